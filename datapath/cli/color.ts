/** Colour where a terminal has it: what is well is green, what is not is red. */

export const COLORS = ['auto', 'always', 'never'] as const;
export type ColorWhen = (typeof COLORS)[number];

let when: ColorWhen = 'auto';

export function setColor(chosen: ColorWhen): void {
  when = chosen;
}

/** Whether standard output gets colours: --color, else NO_COLOR (no-color.org), else whether it is a terminal. */
export function wantsColor(): boolean {
  if (when !== 'auto') return when === 'always';
  const { NO_COLOR, TERM } = process.env;
  return process.stdout.isTTY === true && (NO_COLOR === undefined || NO_COLOR === '') && TERM !== 'dumb';
}

const GREEN = /^(ok|pass|up|ready|passes|running)$/;
const YELLOW = /^(warn|unknown|as Linux|differs|starting)$/;
const RED = /^(fail|down|gone|dead|lost)$/;

/** A word that says how something is, in its colour; any other text as it is. */
export function paintState(text: string): string {
  const code = GREEN.test(text) ? 32 : RED.test(text) ? 31 : YELLOW.test(text) ? 33 : 0;
  return code === 0 ? text : `\u001b[${code}m${text}\u001b[0m`;
}
