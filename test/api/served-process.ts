/** An API with a journal on a Unix socket: `served-process.js DIRECTORY`. Prints `ready`. For a test that kills it. */
import { openApi } from '../../datapath/api/api.ts';

const directory = process.argv[2]!;
const api = await openApi({ directory: `${directory}/store` });
await api.server.listenUnix(`${directory}/api.sock`);
process.stdout.write('ready\n');
