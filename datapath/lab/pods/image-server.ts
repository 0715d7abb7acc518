/**
 * What well-known images serve over HTTP, run as a process of its own in its pod: `image-server.js KIND PORT HOSTNAME [TEXT]`.
 * Prints `listening` on stderr.
 *
 *   nginx        its welcome page
 *   echoserver   the request, as registry.k8s.io/echoserver prints it
 *   http-echo    a fixed text
 *   hello-app    a greeting with its name
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { pathToFileURL } from 'node:url';

type Answer = { status: number; type: string; body: string };

const WELCOME = `<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>If you see this page, the nginx web server is successfully installed and
working. Further configuration is required.</p>
</body>
</html>
`;

const NOT_FOUND = `<html>\r
<head><title>404 Not Found</title></head>\r
<body>\r
<center><h1>404 Not Found</h1></center>\r
</body>\r
</html>\r
`;

const ANSWERS: Record<string, (request: IncomingMessage, hostname: string, text: string) => Answer> = {
  nginx({ url }) {
    const known = url === '/' || url === '/index.html';
    return { status: known ? 200 : 404, type: 'text/html', body: known ? WELCOME : NOT_FOUND };
  },
  echoserver: (request, hostname) => ({ status: 200, type: 'text/plain', body: describe(request, hostname) }),
  'http-echo': (_request, _hostname, text) => ({ status: 200, type: 'text/plain; charset=utf-8', body: `${text}\n` }),
  'hello-app': (_request, hostname) => ({
    status: 200,
    type: 'text/plain; charset=utf-8',
    body: `Hello, world!\nVersion: 1.0.0\nHostname: ${hostname}\n`,
  }),
};

function describe(request: IncomingMessage, hostname: string): string {
  const { method, url, headers, socket, httpVersion } = request;
  const lines = Object.entries(headers).map(([name, value]) => `\t${name}=${value}`);
  return [
    `\n\nHostname: ${hostname}\n`,
    'Pod Information:',
    '\t-no pod information available-\n',
    'Server values:',
    '\tserver_version=tunpath\n',
    'Request Information:',
    `\tclient_address=${socket.remoteAddress}`,
    `\tmethod=${method}`,
    `\treal path=${url}`,
    `\tquery=${new URL(url ?? '/', 'http://x').search.slice(1)}`,
    `\trequest_version=${httpVersion}`,
    '\trequest_scheme=http',
    `\trequest_uri=http://${headers.host ?? ''}${url}\n`,
    'Request Headers:',
    ...lines.sort(),
    '\nRequest Body:\n\t-no body in request-\n\n',
  ].join('\n');
}

/** @param kind one of the keys above */
export function createImageServer(kind: string, hostname: string, text = 'hello-world'): Server {
  const answer = ANSWERS[kind]!;
  return createServer((request, response) => {
    request.resume();
    const { status, type, body } = answer(request, hostname, text);
    const server = kind === 'nginx' ? { server: 'nginx/1.29.0' } : {};
    response.writeHead(status, { ...server, 'content-type': type, 'content-length': Buffer.byteLength(body) });
    response.end(request.method === 'HEAD' ? undefined : body);
    process.stdout.write(`${request.socket.remoteAddress} "${request.method} ${request.url}" ${status}\n`);
  });
}

function main([kind, port, hostname, text]: string[]): void {
  if (kind === undefined || !Object.hasOwn(ANSWERS, kind) || port === undefined || hostname === undefined) {
    process.stderr.write(`usage: image-server ${Object.keys(ANSWERS).join('|')} PORT HOSTNAME [TEXT]\n`);
    process.exitCode = 2;
    return;
  }
  process.on('SIGTERM', () => process.exit(0));
  createImageServer(kind, hostname, text)
    .on('error', error => {
      process.stderr.write(`${kind}: ${error.message}\n`);
      process.exit(1);
    })
    .listen(Number(port), '0.0.0.0', () => process.stderr.write('listening\n'));
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main(process.argv.slice(2));
}
