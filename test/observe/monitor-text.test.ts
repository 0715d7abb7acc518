import assert from 'node:assert/strict';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { resolveTap, withUplink } from '../../datapath/control/resolved.ts';
import type { WatchContext } from '../../datapath/control/watch.ts';
import { ctText, endpointText, ipcacheText, lbText, natText } from '../../datapath/observe/cilium-text.ts';
import { Directories } from '../../datapath/observe/directory.ts';
import { hexDump, Monitor, verboseText } from '../../datapath/observe/monitor-text.ts';
import { STEP_EGRESS_POLICY, STEP_INGRESS_POLICY } from '../../datapath/path/watcher.ts';
import { DROP_POLICY_DENIED_INGRESS, DROP_ROUTE_LOOP } from '../../datapath/verdict.ts';
import {
  KIND_DROPPED,
  KIND_RECEIVED,
  KIND_STEP,
  STATE_NEW,
  STATE_REPLY,
  STATE_TRACKED,
  TO_OVERLAY,
  type WatchRecord,
} from '../../datapath/watch/record.ts';
import { icmpEcho, ip, tcp4 } from '../fixtures/packets.ts';
import { synRecord } from '../fixtures/watch-record.ts';

const [P1, P2, FAR] = ['10.244.1.10', '10.244.1.11', '10.244.2.20'];
const TEXT = `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: a }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.1/24 }
  host: { device: tp0, address: 10.244.1.1/32 }
  pods:
    - { name: default/p1, netns: p1, device: eth0, address: ${P1}, identity: 1001, labels: { app: web } }
    - { name: default/p2, netns: p2, device: eth0, address: ${P2}, identity: 1002, labels: { app: db, tier: back } }
  remotePods: [{ name: default/far, address: ${FAR} }]
  tunnel: { protocol: vxlan, peers: [{ address: 192.168.10.2 }] }
  routes: [{ to: 10.244.2.0/24, via: 192.168.10.2, encap: true }]
  policies:
    - { name: db, podSelector: { matchLabels: { app: db } }, ingress: [{ from: [{ podSelector: { matchLabels: { app: web } } }], ports: [{ port: 80 }] }] }
  services:
    - { name: default/web, type: NodePort, clusterIP: 10.96.0.10, ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }], endpoints: [{ address: ${P2} }] }
`;

function context(): WatchContext {
  const { config } = loadConfig(TEXT, 'a.yaml');
  assert.ok(config?.spec.uplink.kind === 'tap');
  const resolved = withUplink(config, resolveTap(config.spec.uplink));
  const ports = [
    { number: 0, name: 'default/p1', kind: 'pod', device: 'eth0', layer: 3 as const },
    { number: 1, name: 'default/p2', kind: 'pod', device: 'eth1', layer: 3 as const },
    { number: 2, name: 'tp0', kind: 'host', device: 'tp0', layer: 3 as const },
    { number: 3, name: 'ul0', kind: 'uplink', device: 'ul0', layer: 2 as const },
  ];
  return { node: 'a', config: resolved, ports };
}

const SYN = synRecord({ state: STATE_TRACKED | STATE_NEW, newSrc: ip(P1), newDst: ip(P2), length: 40 });

describe('events as cilium-dbg monitor prints them', () => {
  const own = context();
  const directories = new Directories();
  directories.update(own);
  const monitor = new Monitor(own, directories.of('a'));
  /** The flow's number is any, and the same wherever it is printed. */
  const lineOf = (fields: Partial<WatchRecord>) =>
    monitor.eventOf({ ...SYN, ...fields })?.text.replace(/0x[0-9a-f]+/, '0xF');

  it('traces, by where the packet leads', () => {
    assert.equal(
      lineOf({}),
      `-> endpoint 2 flow 0xF , identity 1001->1002 state new ifindex eth1 orig-ip ${P1}: ${P1}:40000 -> ${P2}:80 tcp SYN`,
    );
    const answer = { src: ip(P2), dst: ip(P1), srcPort: 80, dstPort: 40_000, l4Bits: 0x12, identity: 1002, detail: 0 };
    assert.equal(
      lineOf({ ...answer, state: STATE_TRACKED | STATE_REPLY }),
      `-> endpoint 1 flow 0xF , identity 1002->1001 state reply ifindex eth0 orig-ip ${P2}: ${P2}:80 -> ${P1}:40000 tcp SYN, ACK`,
    );
    assert.match(
      lineOf({ detail: 3, dst: ip('9.9.9.9') })!,
      /^-> network .* identity 1001->world state new ifindex ul0 /,
    );
    assert.match(lineOf({ detail: 3, verdict: TO_OVERLAY, dst: ip(FAR) })!, /^-> overlay flow /);
    assert.match(
      lineOf({ detail: 2, dst: ip('10.244.1.1'), state: 0 })!,
      /^-> stack .*->host state unknown ifindex tp0/,
    );
    assert.match(lineOf({ protocol: 1, l4Bits: 0x0800 })!, /: 10\.244\.1\.10 -> 10\.244\.1\.11 EchoRequest$/);
  });

  it('drops, with Cilium’s reason and ours, or ours alone', () => {
    assert.equal(
      lineOf({ kind: KIND_DROPPED, detail: DROP_POLICY_DENIED_INGRESS }),
      `xx drop (Policy denied, drop-policy-denied-ingress) flow 0xF to endpoint 2, ifindex eth0, file verdict.ts:111, , identity 1001->1002: ${P1}:40000 -> ${P2}:80 tcp SYN`,
    );
    assert.match(lineOf({ kind: KIND_DROPPED, detail: DROP_ROUTE_LOOP })!, /^xx drop \(drop-route-loop\) flow /);
  });

  it('policy verdicts, once for each direction that a rule or a refusal is of', () => {
    const judged = { kind: KIND_STEP, detail: STEP_INGRESS_POLICY };
    assert.equal(
      lineOf({ ...judged, policy: 1 }),
      `Policy verdict log: flow 0xF local EP ID 2, remote ID 1001, proto 6, ingress, action allow, auth: disabled, match L3-L4, ${P1}:40000 -> ${P2}:80 tcp SYN`,
    );
    assert.match(
      lineOf({ ...judged, verdict: DROP_POLICY_DENIED_INGRESS })!,
      /local EP ID 2, remote ID 1001, proto 6, ingress, action deny, auth: disabled, match none, /,
    );
    assert.equal(
      lineOf({ ...judged, detail: STEP_EGRESS_POLICY, policy: 1 }),
      undefined,
      'a rule of the other direction',
    );
    assert.equal(lineOf({ kind: KIND_RECEIVED }), undefined);
  });

  it('verbose, with headers or bytes', () => {
    const bytes = tcp4({ src: P1, dst: P2, flags: 2 });
    const event = monitor.eventOf({ ...SYN, bytes, length: 40 })!;
    assert.deepEqual([event.from, event.to, event.type], [1, 2, 'trace']);
    const [line, what, ...packet] = verboseText(event, false).trimEnd().split('\n');
    assert.equal(line, '-'.repeat(78));
    assert.match(
      what,
      /^MARK 0x[0-9a-f]+ FROM 1 to-endpoint: 40 bytes \(40 captured\), state new, interface eth1, identity 1001->1002, orig-ip 10\.244\.1\.10, to endpoint 2$/,
    );
    assert.deepEqual(packet, [`ipv4\t{${P1} > ${P2}, ttl 64, 40 bytes}`, 'tcp\t{40000 > 80, SYN}']);
    assert.ok(verboseText(event, true).endsWith(hexDump(bytes)));
    const dump = hexDump(icmpEcho({ payload: Uint8Array.from(Buffer.from('abc')) })).split('\n');
    assert.match(dump[0], /^00000000 {2}45 00 00 1f 12 34 00 00 {2}40 01 ([0-9a-f]{2} ){6} \|.{16}\|$/);
    assert.match(dump[1], /^00000010 {2}0a f4 02 14 08 00 .* 42 42 00 01 61 62 63 {5}\|.*abc\|$/);
  });
});

describe('tables as cilium-dbg prints them', () => {
  const { config } = context();
  const flow = {
    protocol: 'tcp',
    timeout: 100,
    state: 'ESTABLISHED',
    original: { src: P1, dst: '10.96.0.10', sport: 40_000, dport: 80 },
    reply: { src: P2, dst: P1, sport: 8080, dport: 40_000 },
    dnat: true,
    snat: false,
    age: 3,
  };
  const outside = {
    ...flow,
    state: 'FIN_WAIT',
    original: { src: P1, dst: '9.9.9.9', sport: 40_001, dport: 443 },
    reply: { src: '9.9.9.9', dst: '192.168.10.1', sport: 443, dport: 40_001 },
    dnat: false,
    snat: true,
  };

  it('bpf lb list', () => {
    const backend = { service: 'default/web', address: P2, port: 8080, protocol: 'tcp', ready: true };
    const lines = lbText(config, [backend, { ...backend, ready: false }])
      .trimEnd()
      .split('\n');
    assert.deepEqual(
      lines.map(line => line.split(/ {3,}/)),
      [
        ['SERVICE ADDRESS', 'BACKEND ADDRESS (REVNAT_ID) (SLOT)'],
        ['10.96.0.10:80/TCP (0)', '0.0.0.0:0 (1) (0) [ClusterIP, non-routable]'],
        ['10.96.0.10:80/TCP (1)', `${P2}:8080/TCP (1) (1)`],
        ['0.0.0.0:30080/TCP (0)', '0.0.0.0:0 (1) (0) [NodePort]'],
        ['0.0.0.0:30080/TCP (1)', `${P2}:8080/TCP (1) (1)`],
        ['192.168.10.1:30080/TCP (0)', '0.0.0.0:0 (1) (0) [NodePort]'],
        ['192.168.10.1:30080/TCP (1)', `${P2}:8080/TCP (1) (1)`],
      ],
    );
  });

  it('bpf ct list, bpf nat list', () => {
    const rest = 'expires=100 Flags=0x0010 [ SeenNonSyn ] RevNAT=1 SourceSecurityID=1001';
    const closing = 'expires=100 Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=0 SourceSecurityID=1001';
    assert.deepEqual(ctText(config, [flow, outside]).trimEnd().split('\n'), [
      `TCP OUT ${P1}:40000 -> 10.96.0.10:80 service ${rest}`,
      `TCP OUT ${P1}:40000 -> ${P2}:8080 ${rest}`,
      `TCP IN ${P1}:40000 -> ${P2}:8080 ${rest}`,
      `TCP OUT ${P1}:40001 -> 9.9.9.9:443 ${closing}`,
    ]);
    assert.deepEqual(natText([flow, outside]).trimEnd().split('\n'), [
      `TCP OUT ${P1}:40001 -> 9.9.9.9:443 XLATE_SRC 192.168.10.1:40001 Created=3sec ago NeedsCT=1`,
      `TCP IN 9.9.9.9:443 -> 192.168.10.1:40001 XLATE_DST ${P1}:40001 Created=3sec ago NeedsCT=1`,
    ]);
  });

  it('bpf ipcache list, endpoint list', () => {
    const cache = ipcacheText(config);
    assert.match(cache, /^IP PREFIX\/ADDRESS +IDENTITY\n/);
    assert.match(cache, /^10\.244\.1\.10\/32 +identity=1001 encryptkey=0 tunnelendpoint=0\.0\.0\.0 flags=<none>$/m);
    assert.match(cache, /^192\.168\.10\.2\/32 +identity=6 /m);
    assert.match(
      cache,
      /^10\.244\.2\.20\/32 +identity=0 encryptkey=0 tunnelendpoint=192\.168\.10\.2 flags=hastunnel$/m,
    );
    assert.match(cache, /^0\.0\.0\.0\/0 +identity=2 /m);
    const ports = new Map([
      ['default/p1', { number: 0, state: 'up' }],
      ['default/p2', { number: 1, state: 'down' }],
    ]);
    const rows = endpointText(config, ports).trimEnd().split('\n');
    assert.match(rows[2], /^1 +Disabled +Disabled +1001 +k8s:app=web +10\.244\.1\.10 +ready$/);
    assert.match(rows[3], /^2 +Enabled +Disabled +1002 +k8s:app=db +10\.244\.1\.11 +not-ready$/);
    assert.match(rows[4], /^ +k8s:tier=back$/);
  });
});
