/** `tunpath node --config FILE`: one node in the foreground, until SIGTERM or SIGINT. */
import { readFileSync } from 'node:fs';
import { findObstacles } from '../control/devices.ts';
import { formatProblems, loadConfig } from '../control/load-config.ts';
import { Node } from '../control/node.ts';
import { chooseSeed, expectedSeed } from '../control/seed.ts';
import { resolveUplink } from '../control/uplink/index.ts';

/** @returns the exit code: 0 stopped as asked, 1 it could not run, 2 bad input */
export async function node(flags: { config: string }): Promise<number> {
  const file = flags.config;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    process.stderr.write(`${file}: ${(error as Error).message}\n`);
    return 2;
  }
  const loaded = loadConfig(text, file);
  if (loaded.problems !== undefined) {
    process.stderr.write(`${formatProblems(loaded.problems)}\n`);
    return 2;
  }
  const { config, obstacles: unresolved } = await resolveUplink(loaded.config);
  const obstacles = config === undefined ? unresolved : await findObstacles(config);
  if (config === undefined || obstacles.length > 0) {
    process.stderr.write(`${obstacles.map(obstacle => `${file}: ${obstacle}`).join('\n')}\n`);
    return 2;
  }

  const seed = chooseSeed();
  if (seed === undefined) {
    process.stderr.write(`${expectedSeed}\n`);
    return 2;
  }
  // From here on there is something to remove: a signal that comes while the node starts ends it once it has started.
  let running: Node | null = null;
  let asked = false;
  const stop = () => {
    asked = true;
    void running?.stop();
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
  try {
    running = await Node.start(config, seed);
  } catch (error) {
    process.stderr.write(`${config.metadata.name}: ${(error as Error).message}\n`);
    return 1;
  }
  if (asked) stop();
  else process.stderr.write('ready\n');
  try {
    await running.ended;
    await running.stop();
    return 0;
  } catch (error) {
    process.stderr.write(`${config.metadata.name}: the loop died: ${(error as Error).stack}\n`);
    await running.stop();
    return 1;
  }
}
