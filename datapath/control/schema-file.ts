/** Where the JSON Schema of the configuration lies, for editors. */
import { fileURLToPath } from 'node:url';

const FILE = fileURLToPath(new URL('../../../docs/configuration.schema.json', import.meta.url));

/** The first line of a file that we write: by it an editor with a YAML language server checks the rest. */
export const SCHEMA_LINE = `# yaml-language-server: $schema=${FILE}\n`;
