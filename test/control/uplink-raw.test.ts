import assert from 'node:assert/strict';
import { hostRoutes } from '../../datapath/control/host-routes.ts';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { withUplink } from '../../datapath/control/resolved.ts';
import { findUnable, packageObstacle } from '../../datapath/control/uplink/raw.ts';
import { compile } from '../../datapath/program/compile.ts';
import * as hops from '../../datapath/route/nexthop.ts';
import { ip } from '../fixtures/packets.ts';

const ROUTES = [{ to: '10.244.2.0/24', via: '192.168.10.2', encap: true }];

function load(more: object) {
  const spec = {
    uplink: { kind: 'raw', interface: 'eth0' },
    host: { device: 'tp0', address: '10.244.1.1' },
    pods: [{ name: 'p', netns: 'p', device: 'eth0', address: '10.244.1.10' }],
    tunnel: { protocol: 'vxlan', peers: [{ address: '192.168.10.2' }] },
    routes: ROUTES,
    ...more,
  };
  const text = JSON.stringify({ apiVersion: 'tunpath.dev/v1', kind: 'NodeConfig', metadata: { name: 'a' }, spec });
  const { config, problems } = loadConfig(text, 'a.yaml');
  assert.equal(problems, undefined, JSON.stringify(problems));
  return config!;
}

function unable(more: object): string[] {
  return findUnable(load(more).spec, 'eth0', '192.168.10.1').map(
    ({ path, message }) => `${path.join('.')}: ${message}`,
  );
}

describe('what a raw uplink cannot do', () => {
  const web = { name: 'web', addresses: ['10.96.0.10'] };
  const rows: [string, object, RegExp[]][] = [
    ['nothing of it asked for', {}, []],
    ['services without node ports', { services: [{ ...web, ports: [{ port: 80 }] }] }, []],
    ['masquerade under another address', { masquerade: [{ from: '10.244.0.0/16', source: '10.244.1.1' }] }, []],
    ["a route to the host's kernel", { routes: [{ to: '0.0.0.0/0', via: '10.244.1.1' }] }, []],
    [
      'a route past the tunnel',
      { routes: [{ to: '0.0.0.0/0', via: '192.168.10.254' }] },
      [/^spec\.routes\.0: expected encap: true: .*; via: 10\.244\.1\.1 \(spec\.host\.address\)/],
    ],
    [
      'the same without a host port to offer',
      { host: undefined, routes: [{ to: '0.0.0.0/0', via: '192.168.10.254' }] },
      [/^spec\.routes\.0: expected encap: true: (?!.*via:)/],
    ],
    [
      'no tunnel',
      { tunnel: { protocol: 'none' }, routes: [] },
      [/^spec\.tunnel\.protocol: expected ipip, vxlan or geneve/],
    ],
    [
      'all the others',
      {
        host: { device: 'tp0', address: '192.168.10.1' },
        services: [{ ...web, type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] }],
        masquerade: [{ from: '10.244.0.0/16', source: '192.168.10.1' }],
      },
      [/^spec\.host\.address: /, /^spec\.services\.0\.ports\.0\.nodePort: /, /^spec\.masquerade\.0\.source: /],
    ],
  ];
  for (const [what, more, says] of rows) {
    it(what, () => {
      const found = unable(more);
      assert.equal(found.length, says.length, found.join('\n'));
      for (const [i, pattern] of says.entries()) assert.match(found[i], pattern);
    });
  }
});

describe('a node with a raw uplink', () => {
  const written = { kind: 'raw', interface: 'eth0' } as const;
  const resolved = withUplink(load({ routes: [...ROUTES, { to: '0.0.0.0/0', via: '10.244.1.1' }] }), {
    kind: 'raw',
    device: 'eth0',
    address: '192.168.10.1/32',
    gateway: '169.254.1.1',
    mac: '02:00:00:00:00:01',
    mtu: 1500,
    onHostPort: false,
    kernelMac: 'ee:ee:ee:ee:ee:ee',
    written,
  });
  const program = compile(resolved);
  const hopOf = (prefix: string, length: number) => {
    const route = program.routes.find(r => r.prefix === ip(prefix) && r.length === length);
    return route === undefined ? undefined : program.nextHops[route.hop];
  };

  it('hands every packet to one neighbour, whose MAC needs no ARP', () => {
    assert.deepEqual(program.neighbors, [{ address: ip('169.254.1.1'), macHi: 0xeeee, macLo: 0xeeeeeeee | 0 }]);
    assert.equal(hopOf('10.244.2.0', 24)?.gateway, ip('169.254.1.1'));
    assert.equal(hopOf('10.244.2.0', 24)?.peerAddress, ip('192.168.10.2'));
  });

  it('sends nothing but the tunnel by its uplink', () => {
    const port = 'uplink eth0';
    const kinds = program.nextHops.filter(hop => hop.port === port).map(hop => hops.HOP_NAMES[hop.kind]);
    assert.deepEqual(kinds, ['tunnel']);
    assert.deepEqual([hopOf('0.0.0.0', 0)?.kind, hopOf('0.0.0.0', 0)?.gateway], [hops.HOP_HOST, ip('10.244.1.1')]);
    const without = compile({ ...resolved, spec: { ...resolved.spec, routes: resolved.spec.routes.slice(0, 1) } });
    assert.equal(
      without.routes.some(({ length }) => length === 0),
      false,
      'no default route',
    );
  });

  it('gives the host routes to the pods, and none to what the host reaches itself', () => {
    assert.deepEqual(
      hostRoutes(resolved).map(line => line.split(' ')[0]),
      ['10.244.1.10/32', '10.244.2.0/24'],
    );
  });
});

describe('the package raw-socket', () => {
  const failing = (code: string, message: string) => () => {
    throw Object.assign(new Error(message), { code });
  };

  it('is no obstacle where it is there', () =>
    assert.deepEqual(
      packageObstacle(() => ({})),
      [],
    ));

  it('is named with the commands that get it where it is not', () => {
    const [text, ...more] = packageObstacle(failing('MODULE_NOT_FOUND', "Cannot find module 'raw-socket'"));
    assert.deepEqual(more, []);
    assert.match(text, /^spec\.uplink\.kind: raw needs the optional package raw-socket, which is not installed or was/);
    assert.match(text, /apt-get install build-essential python3; then cd \/\S+ && npm install --no-save raw-socket@\d/);
  });

  it('that was built for another Node is told from one that is missing', () => {
    const [text] = packageObstacle(failing('ERR_DLOPEN_FAILED', 'was compiled against a different Node.js version'));
    assert.match(text, /cannot be loaded \(was compiled against a different Node\.js version\)/);
  });
});
