/** A step of the build: writes the manual pages into dist/man. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { buildProgram } from './main.ts';
import { manPages } from './man.ts';

const directory = new URL('../../man/', import.meta.url);
rmSync(directory, { recursive: true, force: true });
mkdirSync(directory);
for (const [name, text] of manPages(buildProgram())) writeFileSync(new URL(name, directory), text);
