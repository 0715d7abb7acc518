// Bundles the page of `tunpath ui` with its libraries for browsers, beside the modules that tsc has made: live.bundle.js asks
// a server, offline.bundle.js has the datapath in it.
import commonjs from '@rollup/plugin-commonjs';
import nodeResolve from '@rollup/plugin-node-resolve';
import { minify } from 'terser';

const isOfNode = id => id.startsWith('node:') || id === 'koffi';

const DEEP_EQUAL = new URL('dist/datapath/ui/page/deep-equal.js', import.meta.url).pathname;

/** The one function of Node's that the datapath calls. */
const inBrowsers = {
  name: 'in-browsers',
  resolveId: id => (id === 'node:util' ? DEEP_EQUAL : null),
};

/** The built-in topologies as they have been read: a page cannot read files. */
const topologies = {
  name: 'topologies',
  load: async id => {
    if (!id.endsWith('/lab/topology-file.js')) return null;
    const { TOPOLOGIES, topologyNames } = await import(id);
    const found = Object.fromEntries(topologyNames().map(name => [name, TOPOLOGIES[name]]));
    return `export const TOPOLOGIES = ${JSON.stringify(found)};`;
  },
};

const small = {
  name: 'small',
  renderChunk: async code => ({ code: (await minify(code, { module: true })).code, map: null }),
};

export default ['live', 'offline'].map(page => ({
  input: `dist/datapath/ui/page/${page}.js`,
  output: { file: `dist/datapath/ui/page/${page}.bundle.js`, format: 'es' },
  external: id => id !== 'node:util' && isOfNode(id),
  // What only Node has is used by nothing that a page uses, and so left out.
  treeshake: { moduleSideEffects: id => !isOfNode(id) },
  plugins: [inBrowsers, topologies, nodeResolve({ browser: true }), commonjs(), small],
}));
