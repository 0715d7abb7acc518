/** Every scenario there is, in the order in which `--all` runs them. */

import type { Scenario } from '../scenario.ts';
import { announcingScenarios } from './announcing.ts';
import { awsScenarios } from './aws.ts';
import { balancerScenarios } from './balancers.ts';
import { calicoScenarios } from './calico.ts';
import { ciliumScenarios } from './cilium.ts';
import { cniScenarios } from './cni.ts';
import { flannelScenarios } from './flannel.ts';
import { liveSwitchScenarios } from './live-switch.ts';
import { masqueradeScenarios } from './masquerade.ts';
import { policyScenarios } from './policy.ts';
import { serviceScenarios } from './services.ts';

export const SCENARIOS: readonly Scenario[] = [
  ...calicoScenarios,
  ...ciliumScenarios,
  ...flannelScenarios,
  ...serviceScenarios,
  ...balancerScenarios,
  ...announcingScenarios,
  ...policyScenarios,
  ...cniScenarios,
  ...liveSwitchScenarios,
  ...masqueradeScenarios,
  ...awsScenarios,
];
