/** Article 001: from VXLAN to GENEVE and back while pods talk. The article's connection is interrupted; this one is not. */
import { once } from 'node:events';
import type { Scenario, ScenarioContext } from '../scenario.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { distinct, readFrames } from './frames.ts';

const CLIENT = 'curl-pod';
/** In the same subnet, and behind the router. */
const SERVERS = ['172.20.1.217', '172.20.2.73'];
const PORTS = { vxlan: 8472, geneve: 6081 } as const;
/** Times that a switch is waited for; a machine may be busy. */
const PATIENCE = 4;

/** A ping that goes on until it is asked to end. */
function pingFrom(context: ScenarioContext, address: string): { end(): Promise<string> } {
  const child = context.lab.spawn(CLIENT, ['ping', '-q', '-i', '0.02', address], { stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  child.stdout!.on('data', chunk => {
    printed += chunk;
  });
  return {
    async end() {
      child.kill('SIGINT');
      await once(child, 'close');
      return printed;
    },
  };
}

/** `helm upgrade cilium --set routingMode=tunnel --set tunnelProtocol=...` writes these two. */
async function switchTo(context: ScenarioContext, protocol: keyof typeof PORTS, name: string): Promise<void> {
  const data = { 'routing-mode': 'tunnel', 'tunnel-protocol': protocol };
  await context.kubectl(['patch', 'cm', '-n', 'kube-system', 'cilium-config', '-p', JSON.stringify({ data })]);
  const phase = ['get', 'tunnelswitch', name, '-o', 'jsonpath={.status.phase}'];
  const isOver = (stdout: string): boolean => /^(Done|RolledBack|Refused)$/.test(stdout.trim());
  let seen = '';
  for (let i = 0; i < PATIENCE && !isOver(seen); i++) seen = (await context.kubectlUntil(phase, isOver)).stdout.trim();
  context.check(`${name}: phase`, 'Done', seen);
  const lost = await context.kubectl(['get', 'tunnelswitch', name, '-o', 'jsonpath={.status.lost}']);
  context.check(`${name}: packets lost, by the nodes' own account`, 0, lost.stdout.trim());
}

const liveSwitch: Scenario = {
  name: 'cilium-live-switch',
  article: '001',
  shows: 'from VXLAN to GENEVE and back while pods talk; the article is interrupted each time, here nothing is lost',
  topology: TOPOLOGIES.cilium!,
  mode: 'vxlan',
  api: true,
  async run(context) {
    const pings = SERVERS.map(address => ({ address, ping: pingFrom(context, address) }));
    const wire = (protocol: keyof typeof PORTS): Promise<void> => checkWire(context, protocol);
    await wire('vxlan');
    await switchTo(context, 'geneve', 'switch-2');
    await wire('geneve');
    await switchTo(context, 'vxlan', 'switch-3');
    await wire('vxlan');
    await context.kubectl(['get', 'tunnelswitch']);
    for (const { address, ping } of pings) {
      const said = await ping.end();
      const [, sent = '0', received = '-'] = /(\d+) packets transmitted, (\d+) received/.exec(said) ?? [];
      // The last one may be on its way when ping is told to end.
      const missing = Number(sent) - Number(received);
      const isWhole = Number(sent) > 0 && missing <= 1 && !/duplicates|errors/.test(said);
      context.checkThat(`ping ${address} through all of it`, 'none lost', `${received} of ${sent}`, isWhole);
    }
  },
};

/** What the router sees of a ping beside those that run. */
async function checkWire(context: ScenarioContext, protocol: keyof typeof PORTS): Promise<void> {
  // One direction alone: the pings are many for a capture on a busy machine.
  const filter = `src 192.168.10.100 and dst 192.168.20.100 and (udp port ${PORTS.vxlan} or udp port ${PORTS.geneve})`;
  const files = await context.capture({ wire: ['router', filter] }, async () => {
    await context.exec(CLIENT, ['ping', '-c', '2', '-W', '2', SERVERS[1]!]);
  });
  const ports = distinct(await readFrames(files.wire), frame => frame.udp[0]?.dst ?? 'none');
  context.check('router: UDP port of what goes between the nodes', [`${PORTS[protocol]}`], ports);
}

export const liveSwitchScenarios: readonly Scenario[] = [liveSwitch];
