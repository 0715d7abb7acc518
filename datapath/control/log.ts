/**
 * A node's log, on stderr: a line for each event, as text for people or as JSON for machines. Small enough that a library
 * would be more: no file, no rotation, no colour; the journal or the shell does that.
 */
import { fstatSync } from 'node:fs';
import type { Writable } from 'node:stream';

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ['text', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What a machine finds beside the message. */
export type Fields = Readonly<Record<string, unknown>>;

/** Priorities of syslog, by which the journal knows the level of a line of text (sd-daemon(3)). */
const PRIORITY: Record<LogLevel, number> = { error: 3, warn: 4, info: 6, debug: 7 };

export interface LogOptions {
  format: LogFormat;
  /** The least important level that is written. */
  level: LogLevel;
  /** Name of the node, in front of text and as a field of JSON, once it is known. */
  node?: string;
  /** Whether the lines go to the journal. */
  journal?: boolean;
  write?: (text: string) => void;
  now?: () => Date;
}

export class Log {
  private readonly options: LogOptions & Required<Pick<LogOptions, 'journal' | 'write' | 'now'>>;
  private readonly last: number;

  constructor(options: LogOptions) {
    this.options = {
      journal: isJournal(2),
      write: boundedWriter(process.stderr),
      now: () => new Date(),
      ...options,
    };
    this.last = LOG_LEVELS.indexOf(options.level);
  }

  /** The same log under the name of a node. */
  of(node: string): Log {
    return new Log({ ...this.options, node });
  }

  error(message: string, fields?: Fields): void {
    this.add('error', message, fields);
  }

  warn(message: string, fields?: Fields): void {
    this.add('warn', message, fields);
  }

  info(message: string, fields?: Fields): void {
    this.add('info', message, fields);
  }

  debug(message: string, fields?: Fields): void {
    this.add('debug', message, fields);
  }

  /** Something wrong with a file, at its place: the place stands in front of the message as compilers write it. */
  problem(
    problem: { file: string; line: number; column: number; path: string; message: string },
    level: LogLevel = 'error',
  ): void {
    const { file, line, column, path, message } = problem;
    if (LOG_LEVELS.indexOf(level) > this.last) return;
    if (this.options.format === 'json') this.add(level, message, { file, line, column, path });
    else this.line(level, `${file}:${line}:${column}: ${path === '' ? '' : `${path}: `}${message}`);
  }

  /** The word that whoever started the node waits for; as text it stands alone in its line, at every level. */
  ready(): void {
    if (this.options.format === 'json') this.add('info', 'ready');
    else this.options.write('ready\n');
  }

  private add(level: LogLevel, message: string, fields: Fields = {}): void {
    if (LOG_LEVELS.indexOf(level) > this.last) return;
    const { format, node, now, write } = this.options;
    if (format === 'text') this.line(level, node === undefined ? message : `${node}: ${message}`);
    else write(`${JSON.stringify({ time: now().toISOString(), level, node, msg: message, ...fields })}\n`);
  }

  private line(level: LogLevel, text: string): void {
    const { journal, write } = this.options;
    const prefix = journal ? `<${PRIORITY[level]}>` : '';
    write(`${text.replace(/^/gm, prefix)}\n`);
  }
}

/** What the log holds for a reader that does not read: a node must not grow because a terminal has been stopped. */
const MAX_HELD_BYTES = 1024 * 1024;

/**
 * Writes lines to a stream for as long as its reader keeps up; lines that it has no room for are counted, and the number
 * is written when there is room again. A stream that is closed or full loses the log and nothing else.
 */
export function boundedWriter(stream: Writable): (text: string) => void {
  let lost = 0;
  stream.on('error', () => {});
  return text => {
    if (stream.writableLength > MAX_HELD_BYTES) {
      lost++;
      return;
    }
    if (lost > 0) stream.write(`${lost} lines of the log are lost: nobody read them\n`);
    lost = 0;
    stream.write(text);
  };
}

/** Whether a descriptor leads to the journal: children of a service inherit the variable, but perhaps not the stream. */
export function isJournal(fd: number, stream = process.env.JOURNAL_STREAM): boolean {
  if (stream === undefined) return false;
  const { dev, ino } = fstatSync(fd);
  return stream === `${dev}:${ino}`;
}
