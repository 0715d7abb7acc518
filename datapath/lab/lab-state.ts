/** lab.json: enough for another process to use the lab. */
import { readFileSync } from 'node:fs';
import { replaceFile } from '../io/replace-file.ts';
import type { LabProcess } from './lab-processes.ts';
import type { ModeOptions } from './modes.ts';
import { stateDirOf } from './names.ts';
import type { ProcessIdentity } from './processes.ts';
import type { Topology } from './topology.ts';

export interface LabState {
  name: string;
  topology: Topology;
  options: ModeOptions;
  owner: ProcessIdentity | null;
  processes: LabProcess[];
}

/** @throws Error where there is no such lab */
export function readLabState(lab: string): LabState {
  return JSON.parse(readFileSync(pathOf(lab), 'utf8')) as LabState;
}

export function writeLabState(state: LabState): void {
  replaceFile(pathOf(state.name), `${JSON.stringify(state, null, 2)}\n`);
}

function pathOf(lab: string): string {
  return `${stateDirOf(lab)}/lab.json`;
}
