import assert from 'node:assert/strict';
import fc from 'fast-check';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { addressesOf } from '../../datapath/control/service-config.ts';

import { accepted, DESIGN, edit, names, read, refused } from './config-text.ts';

describe('control/load-config: good files', () => {
  it('loads the configuration of the design as it stands', () => {
    assert.deepEqual(accepted(DESIGN), {
      apiVersion: 'tunpath.dev/v1',
      kind: 'NodeConfig',
      metadata: { name: 'a' },
      spec: {
        uplink: {
          kind: 'tap',
          device: 'ul0',
          mac: '02:00:00:00:00:01',
          address: '192.168.10.1/24',
          gateway: '192.168.10.254',
          mtu: 1500,
        },
        host: { device: 'tp0', address: '10.244.1.1/32' },
        pods: [
          {
            name: 'default/p1',
            netns: 'p1',
            kind: 'tun',
            device: 'eth0',
            address: '10.244.1.10',
            networks: [],
            labels: { app: 'web' },
            mark: 0,
            ports: [],
            identity: 21500,
          },
        ],
        tunnels: [
          {
            name: 'vxlan',
            isShort: true,
            protocol: 'vxlan',
            port: 8472,
            vni: 1,
            mac: '02:42:0a:f4:01:00',
            peers: [{ address: '192.168.10.2', mac: '02:42:0a:f4:02:00' }],
            acceptFrom: 'peers',
          },
        ],
        routes: [
          { to: '10.244.2.0/24', via: '192.168.10.2', encap: 'vxlan' },
          { to: '0.0.0.0/0', via: '192.168.10.254', encap: null },
        ],
        mtu: { tooBig: 'signal', clampMss: false },
        profile: 'linux',
        offload: 'auto',
        masquerade: [
          {
            from: ['10.244.0.0/16'],
            notTo: ['10.244.0.0/16', '224.0.0.0/4'],
            action: 'MASQUERADE',
            randomFully: true,
          },
        ],
        services: [
          {
            name: 'default/web',
            type: 'ClusterIP',
            addresses: ['10.96.0.10'],
            loadBalancerIPs: [],
            externalIPs: [],
            ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 }],
            endpoints: [
              { address: '10.244.1.10', ready: true, serving: true, terminating: false, weight: 1, targets: [8080] },
              { address: '10.244.2.10', ready: true, serving: true, terminating: false, weight: 1, targets: [8080] },
            ],
            sessionAffinity: 'None',
            sessionAffinityTimeoutSeconds: 10800,
            internalTrafficPolicy: 'Cluster',
            externalTrafficPolicy: 'Cluster',
            loadBalancerSourceRanges: [],
            algorithm: 'random',
          },
        ],
        policies: [],
        namespaces: [],
        remotePods: [],
        nodePortRange: { low: 30000, high: 32767 },
        conntrack: { size: 131072, perSource: 0, timeouts: {} },
        flowHistory: 0,
        loop: { ioUring: 'auto', busyPoll: 0 },
      },
    });
  });

  for (const name of names('good/')) {
    it(`loads ${name}`, () => {
      accepted(read(name));
    });
  }

  it('takes several tunnels, the same peer in each, and a tunnel for each route', () => {
    const { tunnels, routes } = accepted(
      edit(DESIGN, [
        [
          '  routes:',
          `  tunnels:
    - { name: ip, protocol: ipip, peers: [{ address: 192.168.10.2 }] }
    - { name: blue, protocol: vxlan, vni: 2, peers: [{ address: 192.168.10.2 }] }
    - { name: far, protocol: vxlan, port: 4789, peers: [{ address: 192.168.10.2 }] }
  routes:
    - { to: 10.244.3.0/24, via: 192.168.10.2, encap: blue }
    - { to: 10.244.4.0/24, via: 192.168.10.2, encap: ip }`,
        ],
        ['encap: true', 'encap: vxlan'],
      ]),
    ).spec;
    assert.deepEqual(
      tunnels.map(({ name, port, vni }) => [name, port, vni]),
      [
        ['vxlan', 8472, 1],
        ['ip', undefined, undefined],
        ['blue', 8472, 2],
        ['far', 4789, 1],
      ],
    );
    assert.deepEqual(
      routes.map(({ encap }) => encap),
      ['blue', 'ip', 'vxlan', null],
    );
  });

  it('fills in everything a short file leaves out', () => {
    assert.deepEqual(accepted(read('good/minimal.yaml')).spec, {
      uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:02', address: '192.168.10.2/24', mtu: 1500 },
      pods: [],
      tunnels: [],
      routes: [],
      mtu: { tooBig: 'signal', clampMss: false },
      profile: 'linux',
      offload: 'auto',
      masquerade: [],
      services: [],
      policies: [],
      namespaces: [],
      remotePods: [],
      nodePortRange: { low: 30000, high: 32767 },
      conntrack: { size: 131072, perSource: 0, timeouts: {} },
      flowHistory: 0,
      loop: { ioUring: 'auto', busyPoll: 0 },
    });
  });

  it('takes microseconds of busy polling, or auto', () => {
    const minimal = read('good/minimal.yaml');
    for (const busyPoll of [0, 50, 1000, 'auto']) {
      assert.equal(accepted(`${minimal}  loop: { busyPoll: ${busyPoll} }\n`).spec.loop.busyPoll, busyPoll);
    }
    for (const wrong of ['1001', '-1', '"always"']) {
      assert.deepEqual(refused(`${minimal}  loop: { busyPoll: ${wrong} }\n`), [
        `11:21: spec.loop.busyPoll: got ${wrong}, expected auto, or a whole number from 0 to 1000`,
      ]);
    }
  });

  it('loads each kind of uplink with its own fields', () => {
    assert.deepEqual(accepted(read('good/uplink-raw.yaml')).spec.uplink, { kind: 'raw', interface: 'eth0' });
    assert.deepEqual(accepted(read('good/uplink-routed.yaml')).spec.uplink, {
      kind: 'routed',
      interface: 'eth0',
      device: 'ul0',
    });
    assert.deepEqual(accepted(read('good/uplink-macvtap.yaml')).spec.uplink, {
      kind: 'macvtap',
      interface: 'eth0',
      address: '192.168.10.21/24',
      gateway: '192.168.10.254',
    });
  });

  it('brings values to one form: MACs, prefix lengths, lists, marks, port ranges, merged maps', () => {
    const { spec } = accepted(read('good/full.yaml'));
    assert.equal('mac' in spec.uplink && spec.uplink.mac, '02:00:00:00:00:0a');
    assert.equal(spec.host?.address, '172.20.0.201/32');
    assert.deepEqual(
      spec.pods.map(pod => [pod.name, pod.address, pod.labels, pod.identity, pod.mtu]),
      [
        ['default/curl-pod', '172.20.0.89', { 'app.kubernetes.io/name': 'curl' }, 21500, 1450],
        ['default/webpod', '172.20.0.90', { 'app.kubernetes.io/name': 'curl' }, 17081, 1450],
        ['default/router', '172.20.0.91', {}, 300, undefined],
      ],
    );
    assert.deepEqual(spec.masquerade, [
      { mark: { value: 0x4000, mask: 0x4000 }, action: 'RETURN', randomFully: false },
      { from: ['172.20.0.0/24'], to: ['172.20.0.0/16'], action: 'RETURN', randomFully: false },
      {
        notFrom: ['172.20.0.0/16'],
        mark: { value: 7, mask: 0xffffffff },
        action: 'MASQUERADE',
        randomFully: true,
        source: '192.168.10.100',
        ports: { low: 32768, high: 60999 },
      },
    ]);
    const [service] = spec.services;
    assert.deepEqual(
      service.ports.map(port => [port.protocol, port.port, port.targetPort, port.nodePort]),
      [
        ['TCP', 80, 80, 30080],
        ['UDP', 53, 5353, 31080],
      ],
    );
    // As the EndpointSlice API says: serving, where it is not given, is ready.
    assert.deepEqual(
      service.endpoints.map(({ ready, serving, terminating, weight }) => [ready, serving, terminating, weight]),
      [
        [true, true, false, 3],
        [false, true, true, 1],
        [false, false, false, 1],
        [true, true, false, 1],
      ],
    );
    assert.deepEqual(
      spec.pods.map(pod => [pod.netns, pod.networks]),
      [
        ['curl', []],
        ['web', []],
        ['/proc/1/ns/net', ['10.50.0.0/16']],
      ],
    );
    assert.deepEqual([spec.serviceCIDR, spec.nodePortRange], [['10.96.0.0/12'], { low: 29000, high: 32767 }]);
  });

  it('finds the port of each endpoint: by its name, its only one, the service’s, the pod’s by name', () => {
    const targets = (service: number) => spec.services[service].endpoints.map(endpoint => endpoint.targets);
    const { spec } = accepted(read('good/full.yaml'));
    assert.deepEqual(targets(0), [
      [80, 5353],
      [80, 5353],
      [80, 5353],
      [8081, undefined],
    ]);
    assert.deepEqual(targets(1), [[8000], [8080]]);
  });

  it('tells a service’s kinds of address and its type apart, also in the short form', () => {
    const { spec } = accepted(read('good/full.yaml'));
    assert.deepEqual(
      spec.services.map(service => [service.type, addressesOf(service)]),
      [
        [
          'LoadBalancer',
          {
            cluster: ['10.96.129.95'],
            loadBalancer: ['192.168.10.211'],
            external: ['192.168.10.212', '192.168.10.100'],
          },
        ],
        ['NodePort', { cluster: ['10.96.129.96'], loadBalancer: [], external: [] }],
        ['ClusterIP', { cluster: ['10.96.129.97', '10.96.129.98'], loadBalancer: [], external: [] }],
        ['LoadBalancer', { cluster: ['10.96.129.99'], loadBalancer: ['192.168.10.213'], external: [] }],
      ],
    );
  });

  it('warns of an address of a service that is another node’s, at its line', () => {
    const text = edit(DESIGN, [['type: ClusterIP', 'externalIPs: [192.168.10.2]']]);
    const { warnings } = loadConfig(text, 'FILE');
    assert.equal(
      formatProblems(warnings ?? []),
      'FILE:32:21: spec.services[0].externalIPs[0]: got "192.168.10.2", which is the address of spec.tunnel.peers[0]: from here the ports of this service lead to its endpoints, not to that node',
    );
    assert.deepEqual(loadConfig(DESIGN, 'FILE').warnings, []);
  });

  it('chooses port and VNI by protocol and profile', () => {
    const short = edit(DESIGN, [
      ['    port: 8472\n', ''],
      ['    vni: 1 ', '    #'],
    ]);
    for (const [protocol, profile, port, vni] of [
      ['vxlan', 'linux', 8472, 1],
      ['vxlan', 'flannel', 8472, 1],
      ['vxlan', 'cilium', 8472, 'identity'],
      ['vxlan', 'calico', 4789, 4096],
      ['vxlan', 'rfc', 4789, 1],
      ['geneve', 'linux', 6081, 1],
      ['geneve', 'cilium', 6081, 'identity'],
      ['geneve', 'calico', 6081, 4096],
    ] as const) {
      const text = edit(short, [
        ['protocol: vxlan', `protocol: ${protocol}`],
        ['profile: linux', `profile: ${profile}`],
      ]);
      const [tunnel] = accepted(text).spec.tunnels;
      assert.deepEqual([tunnel.port, tunnel.vni], [port, vni], `${protocol}, ${profile}`);
    }
  });

  it('derives VTEP MACs from underlay addresses, where these are known', () => {
    const tap = edit(DESIGN, [
      ['    mac: 02:42:0a:f4:01:00 ', '    #'],
      [', mac: 02:42:0a:f4:02:00', ''],
    ]);
    const [tunnel] = accepted(tap).spec.tunnels;
    assert.equal(tunnel.mac, '02:42:c0:a8:0a:01');
    assert.deepEqual(tunnel.peers, [{ address: '192.168.10.2', mac: '02:42:c0:a8:0a:02' }]);
    const [raw] = accepted(read('good/uplink-raw.yaml')).spec.tunnels;
    assert.equal('mac' in raw, false);
    assert.deepEqual(raw.peers, [{ address: '192.168.10.2', mac: '02:42:c0:a8:0a:02' }]);
  });

  it('takes a gateway outside the subnet for a /32, a /31 at its edges, and the host port with the address of the node', () => {
    accepted(
      edit(DESIGN, [
        ['192.168.10.1/24', '192.168.10.1/32'],
        ['gateway: 192.168.10.254', 'gateway: 10.9.9.9'],
        ['via: 192.168.10.254', 'via: 10.9.9.9'],
      ]),
    );
    accepted(
      edit(DESIGN, [
        ['192.168.10.1/24', '192.168.10.2/31'],
        ['gateway: 192.168.10.254', 'gateway: 192.168.10.3'],
        ['address: 192.168.10.2,', 'address: 192.168.10.4,'],
        ['via: 192.168.10.2,', 'via: 192.168.10.4,'],
        ['via: 192.168.10.254', 'via: 192.168.10.3'],
      ]),
    );
    accepted(edit(DESIGN, [['tp0, address: 10.244.1.1/32', 'tp0, address: 192.168.10.1/32']]));
  });

  it('takes VNI 0, a file with comments and an empty document around, and CRLF line ends', () => {
    assert.equal(accepted(edit(DESIGN, [['vni: 1 ', 'vni: 0 ']])).spec.tunnels[0].vni, 0);
    const around = accepted(`# first\n---\n${DESIGN}\n---\n# nothing here\n`);
    assert.deepEqual(around, accepted(DESIGN));
    assert.deepEqual(accepted(DESIGN.replaceAll('\n', '\r\n')), accepted(DESIGN));
  });
});

describe('control/load-config: bad files', () => {
  // Each file says at its end what is wrong with it: "# expect LINE:COLUMN: PATH: got X, expected Y".
  for (const name of names('bad/')) {
    it(`refuses ${name}, all problems at once`, () => {
      const text = read(name);
      const expected = [...text.matchAll(/^# expect (.*)$/gm)].map(match => match[1]);
      assert.ok(expected.length > 0, 'the file must say what to expect');
      assert.deepEqual(refused(text), expected);
    });
  }

  it('reports fifteen problems in one go', () => {
    assert.equal(refused(read('bad/fifteen.yaml')).length, 15);
  });

  it('refuses texts that are no configuration at all', () => {
    assert.deepEqual(refused(''), ['1:1: got nothing, expected one NodeConfig']);
    assert.deepEqual(refused('7'), ['1:1: got 7, expected a map']);
    assert.deepEqual(refused('~'), ['1:1: got nothing, expected one NodeConfig']);
    assert.deepEqual(refused('a: &a [*a]'), ['1:8: a[0]: got *a, expected an anchor that stands before it']);
    assert.deepEqual(refused('<<: [1]'), [
      '1:1: got aliases or merges that cannot be resolved, expected plain values: Merge sources must be maps or map aliases',
    ]);
    assert.ok(refused(`a: ${'['.repeat(100_000)}`).length > 0);
  });

  it('does not expand a text that grows tenfold with every line', () => {
    const lines = Array.from(
      { length: 12 },
      (_, i) => `a${i}: &a${i} [${Array(10).fill(i === 0 ? 'x' : `*a${i - 1}`)}]`,
    );
    const [problem, ...others] = refused(lines.join('\n'));
    assert.match(problem, /^1:1: got aliases or merges that cannot be resolved, expected plain values/);
    assert.deepEqual(others, []);
  });

  it('knows the fields that every object has in JavaScript for unknown ones', () => {
    for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
      const [problem, ...others] = refused(edit(DESIGN, [['  profile: linux', `  ${name}: linux`]]));
      assert.ok(
        problem.startsWith(`26:3: spec.${name}: got the unknown field "${name}", expected one of uplink`),
        problem,
      );
      assert.deepEqual(others, []);
    }
  });
});

describe('control/load-config: random mutations', () => {
  const files = [...names('good/'), ...names('bad/')].map(read);
  const scraps = [
    ...[
      'null',
      '~',
      '[]',
      '{}',
      '""',
      '-1',
      '0',
      '1e400',
      '.nan',
      'true',
      '- ',
      ': ',
      '? ',
      '\n',
      '  ',
      '\t',
      '#',
      '---\n',
    ],
    ...[
      '&a ',
      '*a',
      '<<: *pod',
      '!!map ',
      '!!str ',
      '!x ',
      '|',
      '>-',
      '"',
      "'",
      '[',
      ']',
      '{',
      '}',
      ',',
      '%YAML 1.1\n',
    ],
    ...[
      '10.0.0.1',
      '0.0.0.0/0',
      '255.255.255.255',
      'identity',
      'none',
      '__proto__',
      'spec:',
      'kind: raw',
      '\ufeff',
      '\0',
    ],
  ];
  const mutation = fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    drop: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 300 })),
    insert: fc.oneof(fc.constantFrom('', ...scraps), fc.string({ maxLength: 6 })),
  });

  it('give a configuration or problems that stand in the file, never an exception', () => {
    let loaded = 0;
    let wrong = 0;
    fc.assert(
      fc.property(fc.constantFrom(...files), fc.array(mutation, { maxLength: 6 }), (file, mutations) => {
        let text = file;
        for (const { at, drop, insert } of mutations) {
          const start = Math.floor(at * text.length);
          text = text.slice(0, start) + insert + text.slice(start + drop);
        }
        const { config, problems } = loadConfig(text, 'FILE');
        if (config !== undefined) {
          loaded++;
          return;
        }
        wrong++;
        assert.ok(problems.length > 0);
        const lines = text.split('\n');
        for (const { line, column, message } of problems) {
          assert.ok(line >= 1 && line <= lines.length, `line ${line} of ${lines.length}`);
          assert.ok(column >= 1 && column <= lines[line - 1].length + 1, `column ${column} of line ${line}`);
          assert.match(message, /^got .+, expected .+/s);
        }
      }),
      { numRuns: 1500 },
    );
    assert.ok(loaded > 20 && wrong > 20, 'both outcomes must have been seen');
  });

  it('names the first hundred unknown fields of a file that is of another kind, and their number', function () {
    this.timeout(20_000);
    const fields = Array.from({ length: 5000 }, (_, i) => `  f${i}: 1`);
    const text = ['apiVersion: tunpath.dev/v1', 'kind: NodeConfig', 'metadata: { name: a }', 'spec:', ...fields].join(
      '\n',
    );
    const { problems } = loadConfig(text, 'a.yaml');
    const unknown = problems?.filter(({ path }) => /^spec\.f\d+$/.test(path));
    assert.equal(unknown?.length, 100);
    assert.equal(unknown?.at(-1)?.line, 104);
    assert.ok(problems?.some(({ message }) => message === 'got 5000 unknown fields, of which 100 are named here'));
  });
});
