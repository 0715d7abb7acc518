import { dirname, resolve } from 'node:path';

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

// The command line in one file, which starts sooner: what parses it, and the commands that answer at once. The others
// stay modules, imported when they run. They share the choice of colours with it, so that is a module, too.
const AT_ONCE = /\/(get|which-kind|completion)\.js$/;
const commandLine = {
  ...flat('datapath/cli/main'),
  external: id => isPackage(id) || id.endsWith('/color.js'),
  plugins: [
    {
      name: 'imported-when-run',
      resolveDynamicImport: (id, importer) =>
        typeof id !== 'string' || isPackage(id) || AT_ONCE.test(id)
          ? null
          : { id: resolve(dirname(importer), id), external: true },
    },
  ],
};
commandLine.output = { ...commandLine.output, inlineDynamicImports: true };

export default [...entries.map(flat), commandLine];
