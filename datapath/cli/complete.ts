/**
 * What may stand at the end of a command line that is being typed. Commands, options and choices are those of commander's
 * own tree; what runs here at the moment comes from completion-values.ts.
 */
import type { Argument, Command, Option } from 'commander';
import { type Completion, type TypedLine, valuesOf } from './completion-values.ts';

export interface Answer {
  /** Whether names of files may stand there, too, or of directories. */
  files: 'none' | 'files' | 'directories';
  completions: Completion[];
}

/**
 * Completes the last of `words`, which stand behind `tunpath`; the last is empty where a new one begins.
 * A line that is wrong has no completions: there are no errors here.
 */
export async function complete(program: Command, words: readonly string[]): Promise<Answer> {
  const typed = new Typed(program);
  for (const word of words.slice(0, -1)) typed.take(word);
  const word = words.at(-1) ?? '';
  const { command, pending } = typed;
  if (pending !== undefined && !(typed.mayEndPending && word.startsWith('-'))) return answerOf(typed, pending, word);
  if (!typed.onlyArguments && word.startsWith('-')) {
    const [, name, value] = /^(--[^=]+)=(.*)$/.exec(word) ?? [];
    const option = name === undefined ? undefined : optionOf(command, name);
    if (option === undefined) return { files: 'none', completions: startingWith(word, optionsOf(command)) };
    const { files, completions } = await answerOf(typed, option, value);
    return { files, completions: completions.map(one => ({ ...one, value: `${name}=${one.value}` })) };
  }
  if (command.commands.length > 0 || typed.inHelp) {
    const commands = command.createHelp().visibleCommands(command);
    const shown = commands.map(child => ({ value: child.name(), description: child.description() }));
    return { files: 'none', completions: startingWith(word, shown) };
  }
  const { registeredArguments } = command;
  const last = registeredArguments.at(-1);
  const argument = registeredArguments[typed.args.length] ?? (last?.variadic === true ? last : undefined);
  if (argument !== undefined) return answerOf(typed, argument, word);
  return { files: 'none', completions: typed.onlyArguments ? [] : startingWith(word, optionsOf(command)) };
}

/** Takes words one by one, as commander will. */
class Typed implements TypedLine {
  command: Command;
  readonly commands: string[] = [];
  args: string[] = [];
  readonly options = new Map<string, string[]>();
  /** An option that waits for its value. */
  pending: Option | undefined;
  /** It has one, or needs none. */
  mayEndPending = false;
  /** After `--`. */
  onlyArguments = false;
  /** After `help`, which names commands. */
  inHelp = false;

  constructor(program: Command) {
    this.command = program;
  }

  take(word: string): void {
    if (this.pending !== undefined && !(this.mayEndPending && word.startsWith('-'))) {
      this.record(this.pending, word);
      if (this.pending.variadic) this.mayEndPending = true;
      else this.pending = undefined;
      return;
    }
    this.pending = undefined;
    if (this.onlyArguments) this.args.push(word);
    else if (word === '--') this.onlyArguments = true;
    else if (word.startsWith('-') && word.length > 1) this.takeOption(word);
    else this.takeName(word);
  }

  private takeOption(word: string): void {
    const [, name, value] = /^(--[^=]+)=(.*)$/s.exec(word) ?? /^(-[^-])(.+)$/s.exec(word) ?? [undefined, word];
    const option = optionOf(this.command, name);
    if (option === undefined) return;
    if (value !== undefined) this.record(option, value);
    else if (option.required || option.optional) {
      this.pending = option;
      this.mayEndPending = option.optional;
    }
  }

  private takeName(word: string): void {
    const child = this.command.commands.find(one => one.name() === word || one.aliases().includes(word));
    if (child !== undefined && this.args.length === 0) {
      this.command = child;
      this.commands.push(child.name());
    } else if (word === 'help' && this.command.commands.length > 0) this.inHelp = true;
    else this.args.push(word);
  }

  private record(option: Option, value: string): void {
    const name = option.name();
    this.options.set(name, [...(this.options.get(name) ?? []), value]);
  }
}

function optionOf(command: Command, flag: string): Option | undefined {
  return command.options.find(({ short, long }) => flag === short || flag === long);
}

function optionsOf(command: Command): Completion[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .flatMap(({ long, short, description }) =>
      // One that has two long names calls the first of them the short one.
      [short, long]
        .filter(flag => flag !== undefined && (flag.startsWith('--') || long === undefined))
        .map(value => ({ value: value as string, description })),
    );
}

/** Of an option's value, or of an argument. */
async function answerOf(line: TypedLine, of: Option | Argument, word: string): Promise<Answer> {
  const values = of.argChoices?.map(value => ({ value })) ?? (await valuesOf(line, of, word));
  if (values === undefined) return { files: filesOf(of), completions: [] };
  return { files: 'none', completions: startingWith(word, values) };
}

const FILES = ['file', 'path', 'report', 'before', 'after', 'command'];

/** By what the value is called, as in `--config <file...>`. */
function filesOf(of: Option | Argument): Answer['files'] {
  const name = 'flags' in of ? (/[<[]([^.\]>]+)/.exec(of.flags)?.[1] ?? '') : of.name();
  return name === 'directory' ? 'directories' : FILES.includes(name) ? 'files' : 'none';
}

function startingWith(word: string, completions: readonly Completion[]): Completion[] {
  return completions.filter(({ value }) => value.startsWith(word));
}
