/**
 * Modules are for people. V8 (Node 20) loads every imported constant from its module at each use, tests whether it is
 * there yet and whether it is a small integer, and checks before a call of an imported function that it is still the same.
 * In one module it knows all of them. So the build also makes one file of each module that runs the path, and everything
 * it imports (rollup.config.js).
 */
import { statSync } from 'node:fs';

/**
 * The one-file twin of a compiled module, or the module itself where there is none, or one that is older than the last
 * compilation.
 */
export function flattened(module: URL): URL {
  const flat = new URL(module.href.replace(/\.js$/, '.flat.js'));
  const made = modified(flat);
  return made > modified(new URL('../.tsbuildinfo', import.meta.url)) ? flat : module;
}

/** 0 where there is no such file. */
function modified(file: URL): number {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
