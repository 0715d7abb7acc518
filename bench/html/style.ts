/** The page's style sheet: light and dark by what the reader's system says, light on paper. */

const LIGHT = `
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1a1d21; --faint: #5b6470; --line: #d9dde3;
  --blue: #0b67b2; --orange: #c9560a; --green: #1b8a5a; --purple: #8a4fbf; --yellow: #b88a00; --gray: #7a828c;
  --red: #c5283d; --cyan: #2a9db5;`;

const DARK = `
  --paper: #14171b; --panel: #1d2126; --ink: #e7eaee; --faint: #9aa4b0; --line: #343a42;
  --blue: #5fb0f2; --orange: #f5964f; --green: #4cc38f; --purple: #c094f0; --yellow: #e2bb45; --gray: #98a1ac;
  --red: #f2707f; --cyan: #5fcbe0;`;

export const STYLE = `
:root { color-scheme: light dark;${LIGHT} }
@media (prefers-color-scheme: dark) { :root {${DARK} } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main, header, footer { max-width: 1020px; margin: 0 auto; padding: 0 20px; }
h1 { font-size: 1.7rem; margin: 28px 0 4px; }
h2 { font-size: 1.25rem; margin: 44px 0 4px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 2px; }
p { margin: 4px 0 12px; }
a { color: var(--blue); }
.faint, figcaption { color: var(--faint); font-size: .875rem; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 12px 0; font-size: .9375rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 12px 0; font-size: .875rem; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.warning { border-left: 4px solid var(--orange); background: var(--panel); padding: 6px 12px; margin: 8px 0; font-size: .9375rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { background: var(--panel); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: .8125rem; color: var(--faint); }
.figures { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 20px; margin: 16px 0; align-items: start; }
figure { margin: 0; padding: 14px; background: var(--panel); border-radius: 8px; min-width: 0; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; }
figure svg { max-width: 100%; height: auto; display: block; margin: 6px 0; }
.scroll { overflow-x: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 0; padding: 0; list-style: none; font-size: .8125rem; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; background: currentColor; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.legend span { color: var(--ink); }
table { border-collapse: collapse; font-size: .8125rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
details { margin: 12px 0; }
summary { cursor: pointer; color: var(--faint); font-size: .9375rem; }
footer { margin: 48px auto 32px; }
@media (max-width: 760px) {
  main, header, footer { padding: 0 12px; }
  .figures { grid-template-columns: minmax(0, 1fr); }
  figure { padding: 10px; }
  figure.wide svg { min-width: 720px; }
}
@media print {
  :root {${LIGHT} }
  body { font-size: 11pt; }
  nav, .noprint { display: none; }
  h2 { break-after: avoid; }
  figure, .tile { border: 1px solid var(--line); background: none; }
  .scroll { overflow: visible; }
  figure.wide svg { min-width: 0; }
}
`;
