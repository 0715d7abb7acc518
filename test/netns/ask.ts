/**
 * `ask answer PORT...`: tells whoever connects the address that it sees. `ask ask ADDRESS:PORT...`: connects to all of them at
 * once and prints as JSON what each said, or `refused`, `silent`, or the error.
 */
import { connect, createServer } from 'node:net';

const SILENT_MS = 2500;

function answer(ports: string[]): void {
  for (const port of ports) {
    createServer(socket => {
      socket.on('error', () => {});
      socket.end(String(socket.remoteAddress));
    }).listen(Number(port), '0.0.0.0', () => process.stdout.write(`listening ${port}\n`));
  }
}

function askOne(target: string): Promise<string> {
  const [host, port] = target.split(':');
  return new Promise(resolve => {
    const socket = connect({ host, port: Number(port) });
    let said = '';
    const timer = setTimeout(() => {
      socket.destroy();
      resolve('silent');
    }, SILENT_MS);
    const end = (result: string) => {
      clearTimeout(timer);
      resolve(result);
    };
    socket.setEncoding('utf8').on('data', text => {
      said += text;
    });
    socket.on('close', () => end(said));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      end(error.code === 'ECONNREFUSED' ? 'refused' : `${error.code}`),
    );
  });
}

const [what, ...args] = process.argv.slice(2);
if (what === 'answer') answer(args);
else process.stdout.write(JSON.stringify(await Promise.all(args.map(askOne))));
