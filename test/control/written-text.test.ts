import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import type { ResolvedConfig } from '../../datapath/control/resolved.ts';
import { writtenText } from '../../datapath/control/written-text.ts';

const GOOD = new URL('../../../test/fixtures/config/good/', import.meta.url); // seen from dist/test/control

describe('control/written-text', () => {
  for (const name of readdirSync(GOOD)) {
    it(`${name} reads the same when it is written again`, () => {
      const { config } = loadConfig(readFileSync(new URL(name, GOOD), 'utf8'), name);
      const uplink = { ...config!.spec.uplink, written: config!.spec.uplink };
      const text = writtenText({ ...config!, spec: { ...config!.spec, uplink } } as ResolvedConfig);
      const again = loadConfig(text, `${name}, again`);
      assert.equal(again.problems === undefined ? '' : formatProblems(again.problems), '');
      assert.deepEqual(again.config, config);
    });
  }

  it('labels may be called as fields are', () => {
    const text = readFileSync(new URL('minimal.yaml', GOOD), 'utf8');
    const labels = '{ targets: a, isShort: b, low: c, high: d, value: e, mask: f }';
    const { config } = loadConfig(
      `${text}  pods: [{ name: default/p, netns: p, device: eth0, address: 10.0.0.1, labels: ${labels} }]\n`,
      'labels',
    );
    const uplink = { ...config!.spec.uplink, written: config!.spec.uplink };
    const again = loadConfig(writtenText({ ...config!, spec: { ...config!.spec, uplink } } as ResolvedConfig), 'again');
    assert.deepEqual(again.config, config);
    assert.equal(Object.keys(config!.spec.pods[0]!.labels).length, 6);
  });
});
