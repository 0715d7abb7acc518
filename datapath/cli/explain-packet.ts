/** The packet that `explain` is asked about, where it may be one of a capture file. */
import { describeFileError } from '../control/read-text.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { CaptureFile } from '../io/capture-file.ts';
import type { Entry } from '../observe/explain.ts';
import { entryOf, numberOf, type Question, type Seen } from '../observe/question.ts';
import { UsageError } from './exit.ts';

export interface PacketFlags extends Question {
  pcap?: string;
  frame?: string;
}

/** @throws UsageError or QuestionError that says which option, and what was expected */
export function readEntry(configs: readonly ResolvedConfig[], flags: PacketFlags): Entry {
  return entryOf(configs, flags, flags.pcap === undefined ? null : readFrame(flags.pcap, flags.frame ?? '1'));
}

function readFrame(file: string, frame: string): Seen {
  const wanted = numberOf('--frame', frame, 1, Number.MAX_SAFE_INTEGER);
  let capture: CaptureFile;
  try {
    capture = new CaptureFile(file);
  } catch (error) {
    throw new UsageError(`${file}: ${describeFileError(error).replace(`${file}: `, '')}`);
  }
  try {
    let last = 0;
    for (let packet = capture.next(); packet !== null; packet = capture.next()) {
      last = packet.frame;
      if (last === wanted) return { ...packet, bytes: packet.bytes.slice() };
    }
    throw new UsageError(`--frame ${frame}: ${file} has packets up to ${last}`);
  } finally {
    capture.close();
  }
}
