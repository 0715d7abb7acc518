import { readFileSync, rmSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import commonjs from '@rollup/plugin-commonjs';
import nodeResolve from '@rollup/plugin-node-resolve';

const { dependencies, optionalDependencies } = JSON.parse(readFileSync('package.json', 'utf8'));

// Flattens what runs the path into one file each, beside the modules that tsc has made; datapath/flattened.ts says why.
const entries = [
  'datapath/loop',
  'bench/pipeline/worker',
  'bench/micro/worker',
  'bench/lpm/worker',
  'bench/builds/worker',
];

const isPackage = id => id.startsWith('node:') || /^[a-z]/.test(id);

const flat = entry => ({
  input: `dist/${entry}.js`,
  output: { file: `dist/${entry}.flat.js`, format: 'es' },
  external: isPackage,
});

// The programs, with their packages, in few files: a start reads one or two dozen instead of five hundred. What a command
// needs is read when that command runs. Packages that most commands do without stay where npm has put them, benches stay
// modules, and so does the choice of colours, which they share.
const directory = 'dist/datapath';
const programs = ['cli/main', 'cli/terminal/main', 'lab/api-process'];
const IN_PROGRAMS = ['commander', 'execa', 'ipaddr.js', 'yaml', 'zod'];
const staysPackage = new RegExp(
  `^(${Object.keys({ ...dependencies, ...optionalDependencies })
    .filter(name => !IN_PROGRAMS.includes(name))
    .join('|')}|@kubernetes-models/.*)(/|$)`,
);
rmSync(`${directory}/flat`, { recursive: true, force: true });

/** What lies beside a module is found from where the module was. */
const whereItWas = {
  name: 'where-it-was',
  resolveImportMeta: (property, { moduleId, chunkId }) => {
    if (property !== 'url') return null;
    const module = relative(dirname(resolve(directory, chunkId)), moduleId);
    return `new URL('${module.startsWith('.') ? module : `./${module}`}', import.meta.url).href`;
  },
};

const started = {
  input: Object.fromEntries(programs.map(program => [program, `${directory}/${program}.js`])),
  output: { dir: directory, format: 'es', entryFileNames: '[name].flat.js', chunkFileNames: 'flat/[name].js' },
  external: id => id.startsWith('node:') || staysPackage.test(id) || id.includes('/bench/') || id.endsWith('/color.js'),
  plugins: [whereItWas, nodeResolve({ exportConditions: ['node'] }), commonjs()],
};

export default [...entries.map(flat), started];
