/** What all commands have in common: colours, examples, exit codes, and the last word of a wrong line. */
import { type Command, Option } from 'commander';
import { nearest } from '../control/nearest.ts';
import { COLORS, type ColorWhen, setColor } from './color.ts';
import { EXAMPLES } from './examples.ts';

/** What they mean, for --help and man pages. */
export const EXIT_CODES = 'Exit codes: 0 done, 1 it ran and the answer is no, 2 wrong usage or bad input.';
/** Room for a command beside its explanation. */
const COMMAND_WIDTH = 60;

/** Every command below `program`, with its words. */
export function* allCommands(program: Command, words: readonly string[] = []): Generator<[Command, string[]]> {
  for (const command of program.commands) {
    const own = [...words, command.name()];
    yield [command, own];
    yield* allCommands(command, own);
  }
}

export function addManners(program: Command): void {
  program.addHelpText('after', `${examplesText('')}\n\n${EXIT_CODES}`);
  for (const [command, words] of allCommands(program)) {
    if (command.commands.length > 0) continue;
    command.addOption(
      new Option('--color <when>', 'colours: auto, always, never').choices(COLORS).default('auto', 'on a terminal'),
    );
    command.hook('preAction', (_, action) => setColor(action.opts().color as ColorWhen));
    const name = words.join(' ');
    if (EXAMPLES[name] !== undefined) command.addHelpText('after', examplesText(name));
  }
}

export function examplesText(name: string): string {
  const lines = (EXAMPLES[name] ?? []).map(([command, what]) =>
    command.length < COMMAND_WIDTH ? `  ${command.padEnd(COMMAND_WIDTH)} # ${what}` : `  ${command}   # ${what}`,
  );
  return `\nExamples:\n${lines.join('\n')}`;
}

/** @returns " (did you mean X?)" for a word that is near one of the known ones, or nothing */
export function didYouMean(word: string, known: readonly string[]): string {
  const meant = nearest(word, known);
  return meant === undefined ? '' : ` (did you mean ${meant}?)`;
}
