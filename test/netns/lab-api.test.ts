/** A lab with its API: real kubectl changes what real packets meet. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Lab } from '../../datapath/lab/lab.ts';
import { apiDirOf, kubeconfigOf } from '../../datapath/lab/names.ts';
import { kubectlPath } from '../api/kubectl.ts';

const NAME = 'labapi';

const SECOND = `
apiVersion: v1
kind: Service
metadata: { name: second }
spec: { clusterIP: 10.96.5.5, selector: { app: webpod }, ports: [{ name: web, port: 8080, targetPort: 80 }] }
`;

describe('a lab and kubectl', function () {
  this.timeout(90_000);
  let lab: Lab;
  let home: string;
  before(async () => {
    await Lab.down(NAME);
    home = mkdtempSync(join(tmpdir(), 'tunpath-lab-api-'));
    lab = await Lab.up({ name: NAME, mode: 'vxlan', api: true });
  });
  after(async () => {
    await Lab.down(NAME);
    rmSync(home, { recursive: true });
  });

  const start = (argv: string[]): ChildProcess =>
    spawn(kubectlPath('1.35'), argv, { env: { PATH: process.env.PATH, HOME: home, KUBECONFIG: kubeconfigOf(NAME) } });
  const kubectl = async (line: string, input = ''): Promise<{ code: number; stdout: string; stderr: string }> => {
    const child = start(line.split(' '));
    const result = { code: -1, stdout: '', stderr: '' };
    child.stdout!.on('data', chunk => (result.stdout += chunk));
    child.stderr!.on('data', chunk => (result.stderr += chunk));
    child.stdin!.end(input);
    const [code] = await once(child, 'close');
    return { ...result, code };
  };
  /** What the second service answers, asked until it is as wanted or time is up. */
  const ask = async (wanted: (code: number) => boolean): Promise<number> => {
    let code = -1;
    for (let tries = 0; tries < 20; tries++) {
      ({ exitCode: code } = await lab.exec('curl-pod', ['curl', '-s', '-m', '1', '10.96.5.5:8080']));
      if (wanted(code)) break;
    }
    return code;
  };

  it('nobody else may use it', () => {
    assert.equal(statSync(kubeconfigOf(NAME)).mode & 0o777, 0o600);
    assert.equal(statSync(`${apiDirOf(NAME)}/api.sock`).mode & 0o777, 0o600);
  });

  it('shows what runs, and where', async () => {
    const pods = await kubectl('get pods -o wide');
    assert.match(pods.stdout, /^curl-pod +1\/1 +Running +0 +\S+ +172\.20\.0\.89 +k8s-ctr /m, pods.stderr);
    assert.match((await kubectl('get nodes')).stdout, /^k8s-w1 +Ready /m);
    const { stdout } = await kubectl('get endpointslices -l kubernetes.io/service-name=webpod');
    assert.match(
      stdout,
      /80 +172\.20\.0\.131,172\.20\.2\.73,172\.20\.1\.217|80 +172\.20\.0\.131,172\.20\.1\.217,172\.20\.2\.73/,
    );
  });

  it('exec runs in the pod, whose packets go through the datapath', async () => {
    const { code, stdout, stderr } = await kubectl('exec curl-pod -- curl -s -m 3 10.96.129.95');
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^Hostname: webpod-697b545f57-/);
  });

  it('a service that is applied answers, and one that is deleted does not', async () => {
    assert.notEqual((await lab.exec('curl-pod', ['curl', '-s', '-m', '1', '10.96.5.5:8080'])).exitCode, 0);
    const applied = await kubectl('apply -f -', SECOND);
    assert.equal(applied.stdout, 'service/second created\n', applied.stderr);
    assert.equal(await ask(code => code === 0), 0);
    await kubectl('delete service second');
    assert.notEqual(await ask(code => code !== 0), 0);
  });

  it('packets flow on when the API is killed', async () => {
    const flow = lab.spawn('curl-pod', ['ping', '-q', '-i', '0.02', '-c', '50', '172.20.1.217']);
    let printed = '';
    flow.stdout!.on('data', chunk => (printed += chunk));
    const { stdout } = await lab.exec('router', ['pgrep', '-f', `api-process.js ${NAME}$`]);
    process.kill(Number(stdout.trim()), 'SIGKILL');
    await once(flow, 'close');
    assert.match(printed, /50 packets transmitted, 50 received/);
    assert.notEqual((await kubectl('get pods --request-timeout=2s')).code, 0);
  });
});
