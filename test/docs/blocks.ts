/**
 * Fenced blocks of a Markdown page, and what HTML comments directly above one say of it:
 *
 *   <!-- not run: REASON -->      a block of commands that cannot be run here
 *   <!-- exits CODE: TEXT -->     the command with TEXT in it ends with CODE instead of 0
 *   <!-- Ctrl-C: TEXT -->         the command with TEXT in it goes on until it is interrupted
 *   <!-- file: NAME -->           the block is written to that file before the next command
 *   <!-- output -->               the block is what the command before it prints; ... stands for anything
 */

/** `sh`: commands, a line each. `yaml`: a file or a part of one. `ts`: a program. `text`, or nothing: anything else. */
export const LANGUAGES = ['sh', 'yaml', 'ts', 'text'] as const;

export interface Mark {
  name: string;
  /** Between the name and the colon: the code of `exits`. */
  value: string;
  text: string;
}

export interface Block {
  /** Of its fence, from 1. */
  line: number;
  language: string;
  lines: string[];
  marks: Mark[];
}

export const MARKS = ['not run', 'exits', 'Ctrl-C', 'file', 'output'] as const;

const MARK = /^<!-- (not run|exits|Ctrl-C|file|output)(?: (\S+))?(?:: ?(.*?))? ?-->$/;

export function blocksOf(page: string): Block[] {
  const blocks: Block[] = [];
  let open: Block | undefined;
  let marks: Mark[] = [];
  for (const [i, line] of page.split('\n').entries()) {
    const fence = /^\s*```(\S*)/.exec(line);
    if (fence !== null) {
      if (open === undefined) {
        open = { line: i + 1, language: fence[1]!, lines: [], marks };
        blocks.push(open);
      } else open = undefined;
      marks = [];
    } else if (open !== undefined) open.lines.push(line);
    else {
      const mark = MARK.exec(line.trim());
      if (mark !== null) marks.push({ name: mark[1]!, value: mark[2] ?? '', text: mark[3] ?? '' });
      // A blank line between a comment and its block changes nothing.
      else if (line.trim() !== '') marks = [];
    }
  }
  return blocks;
}

/** Commands of a block: lines that are more than a comment, those that end in a backslash with the next. */
export function commandsOf(block: Block): { line: number; text: string }[] {
  const commands: { line: number; text: string }[] = [];
  let begun: { line: number; text: string } | undefined;
  for (const [i, line] of block.lines.entries()) {
    const text = begun === undefined ? line : `${begun.text.slice(0, -1)}${line.trim()}`;
    const command = { line: begun?.line ?? block.line + 1 + i, text };
    begun = undefined;
    if (text.endsWith('\\')) begun = command;
    else if (text.trim() !== '' && !text.trim().startsWith('#')) commands.push(command);
  }
  return commands;
}

/** Whether an output has a line with these words; `...` stands for any of them. */
export function isShown(line: string, output: string): boolean {
  const words = line
    .trim()
    .split(/\s+/)
    .map(word => (word === '...' ? '.*' : word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')));
  return new RegExp(`^\\s*${words.join('\\s+')}\\s*$`, 'm').test(output);
}
