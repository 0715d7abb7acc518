/** Tables as a Kubernetes API makes them (kind Table of meta.k8s.io/v1), in lines as kubectl has them. */
import type { Json, KubeObject } from '../api/object.ts';

export interface ServerTable {
  columnDefinitions: { name: string; priority: number }[];
  rows: { cells: Json[]; object: KubeObject }[];
  metadata: { resourceVersion?: string };
}

export interface ObjectTableOptions {
  /** Columns of priority 1, too. */
  wide: boolean;
  withNamespace: boolean;
  /** Before each name, where several kinds follow each other: `service/`. */
  prefix: string;
}

const GAP = 3;

/** One table, which may come in several pieces: titles are in the first, and columns stay as wide as they were. */
export class ObjectTable {
  private readonly options: ObjectTableOptions;
  private columns: ServerTable['columnDefinitions'] = [];
  private widths: number[] = [];
  private hasTitles = false;

  constructor(options: ObjectTableOptions) {
    this.options = options;
  }

  /** Lines, each with its newline. */
  text({ columnDefinitions, rows }: ServerTable): string {
    const { wide, withNamespace, prefix } = this.options;
    // A watch says only in its first piece what its columns are.
    if (columnDefinitions.length > 0) this.columns = columnDefinitions;
    if (rows.length === 0) return '';
    const places = this.columns.flatMap(({ priority }, i) => (wide || priority === 0 ? [i] : []));
    const lines = rows.map(({ cells, object }) => {
      const texts = places.map(place => (place === 0 ? prefix : '') + cellText(cells[place]));
      return withNamespace ? [object.metadata.namespace ?? '', ...texts] : texts;
    });
    if (!this.hasTitles) {
      const titles = places.map(place => this.columns[place]!.name.toUpperCase());
      lines.unshift(withNamespace ? ['NAMESPACE', ...titles] : titles);
      this.hasTitles = true;
    }
    for (const line of lines) {
      for (const [i, text] of line.entries()) this.widths[i] = Math.max(this.widths[i] ?? 0, text.length + GAP);
    }
    return lines
      .map(
        line =>
          `${line
            .map((text, i) => text.padEnd(this.widths[i]!))
            .join('')
            .trimEnd()}\n`,
      )
      .join('');
  }
}

/** The first line of it. */
function cellText(cell: Json): string {
  const text = cell === undefined || cell === null ? '' : String(cell);
  const end = text.search(/[\f\n\r]/);
  return end < 0 ? text : `${text.slice(0, end)}...`;
}
