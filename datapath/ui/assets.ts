/** The files of the page: what a browser gets from the server, and the same as one file that needs nobody. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { STYLE } from './style.ts';

export interface Asset {
  type: string;
  text: string;
}

const HEAD = `<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>tunpath</title>
<link rel="icon" href="data:,">`;
const BODY = '<div id="page"></div><noscript>This page needs JavaScript.</noscript>';

/** By path. */
export function liveAssets(): ReadonlyMap<string, Asset> {
  const html = `<!doctype html>
<html lang="en">
<head>
${HEAD}
<link rel="stylesheet" href="/page.css">
<script type="module" src="/page.js"></script>
</head>
<body>${BODY}</body>
</html>
`;
  return new Map([
    ['/', { type: 'text/html; charset=utf-8', text: html }],
    ['/page.css', { type: 'text/css; charset=utf-8', text: STYLE }],
    ['/page.js', { type: 'text/javascript; charset=utf-8', text: bundle('live') }],
  ]);
}

/** One HTML document with the datapath in it; it may load nothing and speak to nobody. */
export function staticPage(): string {
  // An end tag in a string of the script would end it.
  const script = bundle('offline').replaceAll('</script', '<\\/script');
  const policy = `default-src 'none'; script-src '${hashOf(script)}'; style-src '${hashOf(STYLE)}'; img-src data:; base-uri 'none'; form-action 'none'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta http-equiv="Content-Security-Policy" content="${policy}">
${HEAD}
<style>${STYLE}</style>
</head>
<body>${BODY}<script type="module">${script}</script></body>
</html>
`;
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}

/** As rollup has made it of page/NAME.ts. */
function bundle(name: string): string {
  return readFileSync(new URL(`./page/${name}.bundle.js`, import.meta.url), 'utf8');
}
