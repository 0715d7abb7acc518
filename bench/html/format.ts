/** Figures as text. */
import { formatFigure } from '../e2e.ts';
import type { Row } from '../result.ts';
import { judge, type Summary } from '../stats.ts';

export function escapeHtml(text: unknown): string {
  return String(text).replace(
    /[&<>"']/g,
    c => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c] as string,
  );
}

/** For a script element: nothing in it can end it. */
export function escapeJson(document: unknown): string {
  return JSON.stringify(document)
    .replace(/</g, '\\u003c')
    .replace(/\u2028/g, '\\u2028')
    .replace(/\u2029/g, '\\u2029');
}

export function formatValue(value: number | null | undefined): string {
  return value === null || value === undefined || !Number.isFinite(value) ? '-' : formatFigure(value);
}

export function formatInterval({ ci95: [low, high], samples }: Summary): string {
  return samples.length < 2 ? '' : `[${formatValue(low)}, ${formatValue(high)}]`;
}

export function describeSummary(summary: Summary, unit: string): string {
  return `${formatValue(summary.median)} ${unit} ${formatInterval(summary)}`.trim();
}

/** `0.94 [0.90, 0.97]`, or `no difference` where the interval leaves room for it. */
export function formatRatio(row: Pick<Row, 'ratio' | 'better' | 'verdict'>): string {
  const { ratio } = row;
  if (ratio === undefined) return '';
  const verdict = row.verdict ?? judge(ratio, row.better ?? 'higher');
  const [low, high] = ratio.ci95;
  const figures = `${ratio.median.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
  return verdict === 'too few pairs' ? `${ratio.median.toFixed(2)} (too few pairs)` : `${figures} ${verdict}`;
}

/** Parameters of a row as text, those left out that are named. */
export function describeParams(params: Record<string, unknown>, without: readonly string[] = []): string {
  return Object.entries(params)
    .filter(([key, value]) => !without.includes(key) && value !== undefined && typeof value !== 'object')
    .map(([key, value]) => (typeof value === 'string' ? value : `${key} ${value}`))
    .join(', ');
}
