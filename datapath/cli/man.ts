/** Manual pages, of the same texts as --help: one for the program, one for each command with those below it. */
import type { Command } from 'commander';
import { EXAMPLES } from './examples.ts';
import { EXIT_CODES } from './manners.ts';

const FILES: readonly (readonly [path: string, what: string])[] = [
  ['/run/tunpath/NAME.sock', 'Control socket of a node, for its owner alone.'],
  ['/run/tunpath/NAME.hubble.sock', "Hubble's Observer of a node."],
  ['/run/tunpath/LAB/kubeconfig', 'How kubectl reaches the API of a lab.'],
];

const ENVIRONMENT: readonly (readonly [name: string, what: string])[] = [
  ['KUBECONFIG', 'The cluster that apply, diff, delete, get and describe speak to, where --kubeconfig is not given.'],
  ['NO_COLOR', 'If set, no colours, unless --color says so.'],
  ['TUNPATH_LOG_FORMAT, TUNPATH_LOG_LEVEL', 'Defaults of --log-format and --log-level.'],
  ['STATE_DIRECTORY', 'Default of --state-dir; systemd sets it.'],
  ['TUNPATH_DEBUG', 'If set, an error is followed by where in the program it arose.'],
];

/** All pages, by the names of their files. */
export function manPages(program: Command): Map<string, string> {
  const children = program.commands.map(command => [pageName(command), pageOf(command)] as const);
  return new Map([['tunpath.1', mainPage(program)], ...children.map(([name, text]) => [`${name}.1`, text] as const)]);
}

function pageName(command: Command): string {
  return `tunpath-${command.name()}`;
}

function mainPage(program: Command): string {
  return page('tunpath', program, [
    ...section('SYNOPSIS', ['.B tunpath', '.I COMMAND', '[options] [arguments]']),
    ...section('DESCRIPTION', [troff(sentence(program.description()))]),
    ...section(
      'COMMANDS',
      program.commands.flatMap(command => [
        '.TP',
        `.BR ${troff(pageName(command))} (1)`,
        troff(sentence(command.description())),
      ]),
    ),
    ...section('OPTIONS', optionsOf(program)),
    ...examplesOf(''),
    ...section('EXIT STATUS', [troff(EXIT_CODES)]),
    ...section('ENVIRONMENT', termsOf(ENVIRONMENT)),
    ...section('FILES', termsOf(FILES)),
  ]);
}

function pageOf(command: Command): string {
  const below = [...leavesOf(command, [command.name()])];
  const isGroup = command.commands.length > 0;
  const body = [
    ...section(
      'SYNOPSIS',
      below.flatMap(([leaf, words], i) => [
        ...(i === 0 ? [] : ['.br']),
        `.B tunpath ${troff(words.join(' '))}`,
        troff(leaf.usage()),
      ]),
    ),
    ...section('DESCRIPTION', [troff(sentence(command.description())), ...(isGroup ? notesOf(command) : [])]),
  ];
  for (const [leaf, words] of below) {
    if (isGroup) {
      body.push(`.SH ${words.slice(1).join(' ').toUpperCase()}`, troff(sentence(leaf.description())));
      body.push(...argumentsOf(leaf), ...optionsOf(leaf), ...notesOf(leaf));
    } else {
      body.push(...section('ARGUMENTS', argumentsOf(leaf)), ...section('OPTIONS', optionsOf(leaf)));
      body.push(...section('NOTES', notesOf(leaf)));
    }
  }
  body.push(
    ...examplesOf(...below.map(([, words]) => words.join(' '))),
    ...section('EXIT STATUS', [troff(EXIT_CODES)]),
  );
  return page(pageName(command), command, [...body, ...section('SEE ALSO', ['.BR tunpath (1)'])]);
}

/** Commands that do something, in order. */
function* leavesOf(command: Command, words: string[]): Generator<[Command, string[]]> {
  if (command.commands.length === 0) yield [command, words];
  for (const child of command.commands) yield* leavesOf(child, [...words, child.name()]);
}

function page(name: string, command: Command, body: readonly string[]): string {
  const lines = [
    '.\\" Made by the build of the texts of --help.',
    `.TH ${troff(name.toUpperCase())} 1 "" tunpath "User Commands"`,
    // Hyphens in a terminal's narrow lines would be taken for part of a name.
    '.nh',
    '.ad l',
    '.SH NAME',
    `${troff(name)} \\- ${troff(command.description())}`,
    ...body,
  ];
  return `${lines.join('\n')}\n`;
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [`.SH ${title}`, ...lines];
}

function argumentsOf(command: Command): string[] {
  const help = command.createHelp();
  return termsOf(
    help.visibleArguments(command).map(one => [help.argumentTerm(one), help.argumentDescription(one)] as const),
  );
}

function optionsOf(command: Command): string[] {
  const help = command.createHelp();
  return termsOf(help.visibleOptions(command).map(one => [help.optionTerm(one), help.optionDescription(one)] as const));
}

function termsOf(terms: readonly (readonly [term: string, text: string])[]): string[] {
  return terms.flatMap(([term, text]) => ['.TP', `.B ${troff(term)}`, troff(sentence(text))]);
}

/** What --help says behind the options; examples have a place of their own. */
function notesOf(command: Command): string[] {
  const parts: string[] = [];
  command.configureOutput({ writeOut: part => parts.push(part) });
  command.outputHelp();
  // The first is what commander makes of options and arguments.
  return parts
    .slice(1)
    .map(text => text.trim())
    .filter(text => text !== '' && !text.startsWith('Examples:'))
    .flatMap(text =>
      // Lines that are set in are a list.
      /^ /m.test(text) ? ['.PP', '.nf', troff(text), '.fi'] : ['.PP', troff(text)],
    );
}

function examplesOf(...names: readonly string[]): string[] {
  const examples = names.flatMap(name => EXAMPLES[name] ?? []);
  return section(
    'EXAMPLES',
    examples.flatMap(([command, what]) => [
      '.PP',
      troff(sentence(what)),
      '.PP',
      '.RS 4',
      '.nf',
      troff(command),
      '.fi',
      '.RE',
    ]),
  );
}

/** "until SIGTERM" -> "Until SIGTERM." */
function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === '') return '-';
  // A name, an option or a value stays as it is written.
  const first = /^[a-z]+( |$)/.test(trimmed) ? trimmed.charAt(0).toUpperCase() + trimmed.slice(1) : trimmed;
  return /[.:)]$/.test(first) ? first : `${first}.`;
}

/** Text as troff takes it for what it is: with dashes and quotes that can be copied. */
function troff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('§', '\\(sc')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replace(/^\./gm, '\\&.');
}
