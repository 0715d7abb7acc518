/** `tunpath explain`: one packet through every step, on configurations alone or on what running nodes have. */

import { formatProblems } from '../control/load-config.ts';
import { describeFileError } from '../control/read-text.ts';
import { loadInputs } from '../mtu-prove/load.ts';
import { ask, documentOf, headerOptions, readRunning, type Subject, subjectOf } from '../observe/ask.ts';
import { GOOD } from '../observe/explain.ts';
import { differentLines, explainText, type Variant, variantOf } from '../observe/explain-text.ts';
import { policiesIn } from '../observe/policies-text.ts';
import { whatIf } from '../observe/what-if.ts';
import { DONE, NO, readText, USAGE, UsageError } from './exit.ts';
import { type PacketFlags, readEntry } from './explain-packet.ts';
import { type Format, isForPeople } from './format.ts';
import { print } from './output.ts';
import { type Column, printDocument, printTable } from './table.ts';
import { watchedNodes } from './watched.ts';

export interface ExplainFlags extends PacketFlags {
  config?: string[];
  both?: boolean;
  whatIf?: string[];
  seed: string;
  output: Format;
}

const COLUMNS: Column<Variant>[] = [
  { title: 'CONFIGURATION', value: row => row.name },
  { title: 'OUTCOME', value: row => row.outcome },
  { title: 'REASON', value: row => row.reasons },
  { title: 'ANSWER', value: row => row.answer },
  { title: 'PATH', value: row => row.path },
  { title: 'BYTES', value: row => row.bytes },
  { title: 'ON THE WIRE', value: row => row.wire },
];

/** Answers no where the packet, or with --both its answer, does not arrive. */
export async function explain(flags: ExplainFlags): Promise<number> {
  const seed = Number(flags.seed);
  if (!/^\d+$/.test(flags.seed)) throw new UsageError(`--seed ${flags.seed}: expected a whole number from 0`);
  checkTogether(flags);
  const subject = flags.config === undefined ? await readRunning(watchedNodes(flags.node)) : readFiles(flags.config);
  if (subject === null) return USAGE;
  const entry = readEntry(subject.configs, flags);
  const variants = (flags.whatIf ?? []).map(text => ({
    name: text,
    change: whatIf(text, file => policiesIn(readText(file), file)),
  }));
  const headers = headerOptions(subject.configs);

  const base = ask(subject, entry, seed, flags.both === true);
  const others = variants.map(({ name, change }) => {
    const configs = subject.configs.map(change);
    return { name, ...ask({ ...subject, configs }, entry, seed, flags.both === true), headers: headerOptions(configs) };
  });
  const rows = [
    variantOf('as it is', base.there, base.back, headers),
    ...others.map(other => variantOf(other.name, other.there, other.back, other.headers)),
  ];
  if (isForPeople(flags.output)) {
    const text = explainText(base.there, 'packet', headers);
    await print(text);
    if (base.back !== null) await print(`\n${explainText(base.back, 'answer', headers)}`);
    for (const { name, there, headers: options } of others) {
      const lines = differentLines(explainText(there, 'packet', options), text);
      await print(`\nwhat if ${name}: ${lines === '' ? 'the same, step by step\n' : `these lines instead\n${lines}`}`);
    }
    if (others.length > 0) {
      await print('\n');
      printTable(rows, COLUMNS, flags.output === 'wide');
    }
  } else {
    await printDocument(flags.output, {
      ...documentOf(base),
      ...(others.length === 0 ? {} : { whatIf: others.map(other => ({ name: other.name, ...documentOf(other) })) }),
      notCopied: subject.missing,
    });
  }
  if (subject.missing.length > 0) process.stderr.write(`not copied: ${subject.missing.join('; ')}\n`);
  const isGood = GOOD.includes(base.there.outcome) && (base.back === null || GOOD.includes(base.back.outcome));
  return isGood ? DONE : NO;
}

/** @throws UsageError for an option that would not be looked at */
function checkTogether({ pcap, hex, frame, port }: ExplainFlags): void {
  if (frame !== undefined && pcap === undefined) throw new UsageError(`--frame ${frame}: expected with --pcap`);
  if (port !== undefined && pcap === undefined && hex === undefined) {
    throw new UsageError(`--port ${port}: expected with --pcap or --hex; --from says where other packets enter`);
  }
}

/** Null where the problems of the files have been printed. */
function readFiles(files: readonly string[]): Subject | null {
  let inputs: ReturnType<typeof loadInputs>;
  try {
    inputs = loadInputs(files);
  } catch (error) {
    const { syscall, path } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    throw new UsageError(`${path}: ${describeFileError(error)}`);
  }
  if (inputs.problems.length > 0) {
    process.stderr.write(`${formatProblems(inputs.problems)}\n`);
    return null;
  }
  if (inputs.configs.length === 0) throw new UsageError(`${files.join(', ')}: got none, expected a NodeConfig`);
  return subjectOf(inputs);
}
