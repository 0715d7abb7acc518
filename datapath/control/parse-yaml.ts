/**
 * YAML from others. The parser of the `yaml` package calls itself for what lies within each other, and some thousand brackets
 * exhaust its stack, which can end the process; here the depth is looked at before.
 */
import { Composer, CST, type Document, LineCounter, Parser, type YAMLError } from 'yaml';

/** A Kubernetes object has a dozen. */
const MAX_DEPTH = 200;

type Options = ConstructorParameters<typeof Composer>[0];

/** Values lie deeper within each other than in any file that somebody has written. */
export class TooDeepError extends RangeError {
  override name = 'TooDeepError';

  constructor() {
    super('got values nested too deep');
  }
}

/** As parseAllDocuments() of the package, without its pretty errors. @throws TooDeepError */
export function parseDocuments(text: string, options: Options, lines?: LineCounter): Document.Parsed[] {
  return [...new Composer(options).compose(shallow(new Parser(lines?.addNewLine).parse(text)))] as Document.Parsed[];
}

/**
 * What the documents of a text say.
 * @returns what is wrong instead, a line for each fault: "FILE:LINE:COLUMN: got a YAML error, ..."
 */
export function parseYaml(text: string, file: string): { values: unknown[] } | { faults: string[] } {
  const lines = new LineCounter();
  try {
    const documents = parseDocuments(text, { logLevel: 'error' }, lines);
    const faults = documents.flatMap(({ errors }) => errors.map(error => `${file}:${faultText(error, lines)}`));
    return faults.length > 0 ? { faults } : { values: documents.map(document => document.toJS() as unknown) };
  } catch (error) {
    // The package's own, for an alias of nothing, and for too many of them.
    if (!(error instanceof TooDeepError || error instanceof ReferenceError)) throw error;
    return { faults: [`${file}:1:1: ${error.message}`] };
  }
}

/** As configurations say it. */
export function faultWords({ message }: YAMLError): string {
  return `got a YAML error, expected valid YAML: ${message.charAt(0).toLowerCase()}${message.slice(1)}`;
}

function faultText(error: YAMLError, lines: LineCounter): string {
  const { line, col } = lines.linePos(error.pos[0]);
  return `${line}:${col}: ${faultWords(error)}`;
}

function* shallow(tokens: Iterable<CST.Token>): Generator<CST.Token> {
  for (const token of tokens) {
    checkDepth(token);
    yield token;
  }
}

/** @throws TooDeepError */
function checkDepth(root: CST.Token): void {
  let level: CST.Token[] = [root];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) throw new TooDeepError();
    level = level.flatMap(childrenOf);
  }
}

function childrenOf(token: CST.Token): CST.Token[] {
  if (token.type === 'document') return token.value === undefined ? [] : [token.value];
  if (!CST.isCollection(token)) return [];
  const children: CST.Token[] = [];
  for (const { key, value } of token.items) {
    if (key) children.push(key);
    if (value) children.push(value);
  }
  return children;
}
