/** `tunpath version`: what a report of a fault should say. */
import { release } from 'node:os';
import { DONE } from './exit.ts';
import { type Format, isForPeople } from './format.ts';
import { printDocument } from './table.ts';
import { versionOf } from './version.ts';

export async function versions({ output }: { output: Format }): Promise<number> {
  const found = { tunpath: versionOf(), node: process.versions.node, linux: release() };
  if (!isForPeople(output)) await printDocument(output, found);
  else process.stdout.write(`tunpath ${found.tunpath}, Node ${found.node}, Linux ${found.linux}\n`);
  return DONE;
}
