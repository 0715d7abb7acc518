// Flattens what runs the path into one file each, beside the modules that tsc has made; datapath/flattened.ts says why.
const entries = [
  'datapath/loop',
  'bench/pipeline/worker',
  'bench/micro/worker',
  'bench/lpm/worker',
  'bench/builds/worker',
];

export default entries.map(entry => ({
  input: `dist/${entry}.js`,
  output: { file: `dist/${entry}.flat.js`, format: 'es' },
  external: id => id.startsWith('node:') || /^[a-z]/.test(id),
}));
