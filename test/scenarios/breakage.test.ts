/** A datapath that is wrong in one way must fail the scenario that shows it, in the check that is about it. */

import assert from 'node:assert/strict';
import { Lab } from '../../datapath/lab/lab.ts';
import type { LabNodeConfig } from '../../datapath/lab/modes.ts';
import { runScenario } from '../../datapath/lab/scenario.ts';
import { SCENARIOS } from '../../datapath/lab/scenarios/index.ts';

const LAB = `k${process.pid}`;

interface Breakage {
  what: string;
  scenario: string;
  adjust: (spec: LabNodeConfig['spec']) => void;
  /** Checks that must fail, by a part of their name. */
  fails: string[];
}

const BREAKAGES: Breakage[] = [
  {
    what: "one VNI for all instead of the sender's identity",
    scenario: 'cilium-geneve',
    adjust: spec => {
      spec.tunnel.vni = 21500;
    },
    fails: ['router: tcpdump udp port 6081', 'VNI, back', 'tunnel header, back'],
  },
  {
    what: 'the outer header that RFCs wish for: DF, DSCP and source ports; and unknown peers accepted',
    scenario: 'cilium-vxlan',
    adjust: spec => {
      spec.profile = 'rfc';
      spec.tunnel.acceptFrom = 'any';
    },
    fails: [
      'outer DF',
      'outer DSCP and ECN',
      'outer source ports, lowest and highest',
      'TTL of the answers',
      'a stranger sends a tunnel packet from its own address 192.168.20.66: at webpod-w0',
    ],
  },
  {
    what: 'a fixed outer TTL and DF where both are the inner ones; and unknown peers accepted',
    scenario: 'calico-ipip',
    adjust: spec => {
      spec.profile = 'cilium';
      spec.tunnel.acceptFrom = 'any';
    },
    fails: [
      'outer TTL above the inner',
      'outer DF, where the inner is 1',
      'a stranger sends a tunnel packet from its own address 192.168.20.66: at pod3',
    ],
  },
];

describe('a broken datapath fails the scenario', function () {
  this.timeout(60_000);
  afterEach(() => Lab.down(LAB));

  for (const { what, scenario: name, adjust, fails } of BREAKAGES) {
    it(`${name}: ${what}`, async () => {
      const scenario = SCENARIOS.find(candidate => candidate.name === name)!;
      const result = await runScenario(scenario, { labName: LAB, adjust: config => adjust(config.spec) });
      assert.equal(result.pass, false);
      const failed = result.checks.filter(check => !check.pass).map(check => check.what);
      for (const part of fails) {
        assert.ok(
          failed.some(check => check.includes(part)),
          `'${part}' passed; failed: ${failed.join('; ')}`,
        );
      }
    });
  }
});
