import assert from 'node:assert/strict';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { findUnable, packageObstacle } from '../../datapath/control/uplink/raw.ts';

function unable(more: object): string[] {
  const spec = {
    uplink: { kind: 'raw', interface: 'eth0' },
    host: { device: 'tp0', address: '10.244.1.1' },
    pods: [{ name: 'p', netns: 'p', device: 'eth0', address: '10.244.1.10' }],
    tunnel: { protocol: 'vxlan', peers: [{ address: '192.168.10.2' }] },
    routes: [{ to: '10.244.2.0/24', via: '192.168.10.2', encap: true }],
    ...more,
  };
  const text = JSON.stringify({ apiVersion: 'tunpath.dev/v1', kind: 'NodeConfig', metadata: { name: 'a' }, spec });
  const { config, problems } = loadConfig(text, 'a.yaml');
  assert.equal(problems, undefined, JSON.stringify(problems));
  return findUnable(config!.spec, 'eth0', '192.168.10.1').map(({ path, message }) => `${path.join('.')}: ${message}`);
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
