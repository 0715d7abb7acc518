/**
 * The command lines of an article: what follows a prompt, or stands where the article shows a terminal, each with the number
 * of its line. The articles themselves are not part of this repository:
 *
 *   node dist/test/articles/extract.js DIRECTORY     prints what lines/*.yaml lacks or has otherwise; exit 1 if anything
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainModule } from '../../bench/main-module.ts';
import { ARTICLES, linesOf } from './lines.ts';

export interface ArticleLine {
  /** From 1. */
  line: number;
  command: string;
}

/** `$ `, or as the articles print root's; the one without a prompt starts with one of these words. */
const PROMPT = /^(?:\(\S+\) )?(?:\$|root@[\w-]+:~#) (.*)$/u;
const WITHOUT = /^(?:kubectl|calicoctl|sudo|ip|cat) .*|^apiVersion: networking\.k8s\.io\S*$/;
/** Prose that starts like a command. */
const PROSE = /[가-힣]/u;

/** @param prompted whether the article has prompts: then no other line is a command */
export function commandsIn(text: string, prompted: boolean): ArticleLine[] {
  const rows = text.split('\n');
  const found: ArticleLine[] = [];
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    const match = PROMPT.exec(row);
    if (match === null && (prompted || !WITHOUT.test(row))) continue;
    const line = i + 1;
    let command = match?.[1] ?? row;
    while (command.endsWith('\\')) command = `${command.slice(0, -1)} ${rows[++i]}`;
    if (/<<\s*EOF/.test(command)) while (rows[i] !== 'EOF') i++;
    command = plain(command);
    if (!PROSE.test(command)) found.push({ line, command });
  }
  return found;
}

/** Without the comment behind it, and with single spaces. */
function plain(command: string): string {
  return command
    .replace(/\s#(?: .*|[가-힣].*)$/u, '')
    .replace(/\s+/g, ' ')
    .trim();
}

function compare(directory: string): string[] {
  const faults: string[] = [];
  for (const { article } of ARTICLES) {
    const file = readdirSync(directory).find(name => name.startsWith(article));
    if (file === undefined) return [`${directory}: no article ${article}`];
    const text = readFileSync(join(directory, file), 'utf8');
    const inArticle = new Map(commandsIn(text, text.includes('\n$ ')).map(({ line, command }) => [line, command]));
    const ours = new Map(
      linesOf(article).flatMap(({ line, run }) => (run === undefined ? [] : [[line, plain(run)] as const])),
    );
    for (const [line, command] of inArticle) {
      if (ours.get(line) !== command) faults.push(`${article}:${line}: ${command} is ${ours.get(line) ?? 'missing'}`);
    }
    for (const [line, run] of ours) {
      if (!inArticle.has(line)) faults.push(`${article}:${line}: ${run} is not in the article`);
    }
  }
  return faults;
}

if (isMainModule(import.meta.url)) {
  const faults = compare(process.argv[2] ?? '.');
  for (const fault of faults) process.stdout.write(`${fault}\n`);
  process.exitCode = faults.length === 0 ? 0 : 1;
}
