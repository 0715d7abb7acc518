/** The articles' command lines as lines/*.yaml has them, and the table of them in docs/articles.md. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

export interface Line {
  /** Of the article, from 1. */
  line: number;
  /** The command as the article has it; `check` is one of ours, for what the article says or shows as a picture there. */
  run?: string;
  check?: string;
  /** The host that it is typed on; default: the first node of the article's terminal. */
  on?: string;
  /** What is typed instead: the line calls for something else that is no fault of ours. */
  instead?: string;
  /** What the command reads: objects as the article's, in our own writing. */
  objects?: object[];
  /** Typed on the article's terminal while this runs, which is ended then. */
  meanwhile?: string;
  /** It goes on until it is ended, here as soon as it has printed all of `prints`. */
  until?: true;
  /** Lines that an editor puts among the annotations. */
  edit?: string[];
  /** Patterns of what it prints, white space as one blank. */
  prints?: string[];
  /** Patterns of what it does not print. */
  absent?: string[];
  /** Codes that it may end with; default 0. */
  exit?: number[];
  /** Nobody has seen it pass. */
  untried?: true;
  /** Why it is not typed. */
  differs?: string;
  note?: string;
}

/** In the order of the labs that they are typed in; one with the lab of another comes behind it. */
export const ARTICLES = [
  { article: '000', title: "Calico's modes", host: 'k8s-w1' },
  { article: '001', title: 'Cilium, from native routing to LB-IPAM', host: 'k8s-ctr' },
  { article: '002', title: 'kube-proxy and CNI', host: 'k8s-w1' },
  { article: '003', title: 'the VPC CNI', host: 'node1' },
  { article: '004', title: 'flannel', host: 'master' },
] as const;

const ROOT = join(import.meta.dirname, '../../..');

export const DOCUMENT = join(ROOT, 'docs/articles.md');
export const MANIFESTS = join(ROOT, 'test/fixtures/manifests');

export function linesOf(article: string): Line[] {
  return parse(readFileSync(join(ROOT, `test/articles/lines/${article}.yaml`), 'utf8')) as Line[];
}

const HEAD = `# The articles, line by line

Every command line of the five articles that tunpath grew from, in their order. \`test/articles\` types them on labs that are as the
articles' clusters were before the first line: all but those of article 001 in every run of the tests, all of them with
\`node dist/test/articles/typist.js\`. Where an article prints something, the same addresses, counts, headers and chains are expected; what
is random there, and times, are patterns. The articles' texts are not here: the numbers are those of the lines in the files that they
were read from, and \`node dist/test/articles/extract.js DIRECTORY\` compares this with files that are at hand.

- **yes**: works as it stands; after a semicolon, what is typed instead, or what is printed otherwise.
- **no**: differs, because.
- **not tried**: has not been seen to pass. What those lines do the experiments cilium-lbipam, cilium-l2-announce and cilium-l2-failover do.

More about the tools: [terminal.md](terminal.md).
`;

/** docs/articles.md, as scripts/docs writes it. */
export function articlesPage(): string {
  return (
    HEAD + ARTICLES.map(({ article, title }) => `\n## Article ${article}: ${title}\n\n${tableOf(article)}`).join('')
  );
}

function tableOf(article: string): string {
  const rows = linesOf(article).flatMap(({ line, run, instead, differs, untried, note }) => {
    if (run === undefined) return [];
    const parts = [
      differs !== undefined ? `no: ${differs}` : untried ? 'not tried' : 'yes',
      ...(instead === undefined ? [] : [`typed: ${quoted(instead)}`]),
      ...(note === undefined ? [] : [note]),
    ];
    return [[`${line}`, quoted(run), parts.join('; ')]];
  });
  const all = [['line', 'command', 'works'], ...rows];
  const widths = all[0]!.map((_, i) => Math.max(...all.map(row => [...row[i]!].length)));
  const text = (row: string[]): string =>
    `| ${row.map((cell, i) => cell + ' '.repeat(widths[i]! - [...cell].length)).join(' | ')} |\n`;
  return `${text(all[0]!)}| ${widths.map(width => '-'.repeat(width)).join(' | ')} |\n${rows.map(text).join('')}`;
}

/** In backticks, in a cell of a table. */
function quoted(command: string): string {
  return `\`${command.replaceAll('|', '\\|')}\``;
}
