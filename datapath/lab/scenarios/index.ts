/** Every scenario there is, in the order in which `--all` runs them. */

import type { Scenario } from '../scenario.ts';
import { calicoScenarios } from './calico.ts';
import { ciliumScenarios } from './cilium.ts';
import { flannelScenarios } from './flannel.ts';

export const SCENARIOS: readonly Scenario[] = [...calicoScenarios, ...ciliumScenarios, ...flannelScenarios];
