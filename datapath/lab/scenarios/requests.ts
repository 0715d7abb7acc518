/** Requests to services: what clients see of them, and what is on the wire. */

import type { CapturePoint, ScenarioContext } from '../scenario.ts';
import type { LabNode, LabPod } from '../topology.ts';
import { addressesOf } from './checks.ts';
import { distinct, type Frame, innerOf } from './frames.ts';

/** What a pod's web server says of itself and of whom it sees. */
export interface Answer {
  hostname: string;
  remoteAddress: string;
  remotePort: number;
}

/** Exit status of curl when nobody listens, and when nobody answers. */
export const CURL_REFUSED = 7;
export const CURL_TIMEOUT = 28;

/** The article's loop: requests one after the other, each on its own connection, until one is not answered. */
export async function ask(context: ScenarioContext, host: string, url: string, times = 1): Promise<Answer[]> {
  const request = `curl -s --connect-timeout 1 -m 3 ${url} | grep -E 'Hostname|RemoteAddr'`;
  const command = times === 1 ? request : `for i in $(seq ${times}); do ${request} || break; done`;
  return answersIn((await context.exec(host, ['sh', '-c', command])).stdout);
}

function answersIn(text: string): Answer[] {
  return [...text.matchAll(/^Hostname: (\S+)\nRemoteAddr: (\S+):(\d+)$/gm)].map(match => ({
    hostname: match[1]!,
    remoteAddress: match[2]!,
    remotePort: Number(match[3]),
  }));
}

/** Each different pair of who answered and whom it saw, as `webpod-1 saw 10.0.0.1`. */
export function seenBy(answers: readonly Answer[]): string[] {
  return distinct(answers, answer => `${answer.hostname} saw ${answer.remoteAddress}`);
}

/** Each different pair of addresses of the innermost headers. */
export function pairsOf(frames: readonly Frame[]): string[] {
  return distinct(frames, frame => addressesOf(innerOf(frame)));
}

export function bothWays(one: string, other: string): string[] {
  return [`${one} > ${other}`, `${other} > ${one}`].sort();
}

/** Exit status of one request with nothing else to say. */
export async function checkRefused(context: ScenarioContext, host: string, url: string, status: number): Promise<void> {
  const { exitCode } = await context.exec(host, ['curl', '-s', '--connect-timeout', '1', url]);
  context.check(`${host}: curl ${url} exits with`, status, exitCode);
}

/** What `tunpath get` prints of a node. */
export async function rowsOf<T>(context: ScenarioContext, node: string, kind: string): Promise<T[]> {
  return (await context.lab.control(node, 'get', { kind })) as T[];
}

export function podOf(context: ScenarioContext, name: string): LabPod {
  return context.lab.topology.pods.find(pod => pod.name === name)!;
}

export function nodeOf(context: ScenarioContext, name: string): LabNode {
  return context.lab.topology.nodes.find(node => node.name === name)!;
}

/** Capture points of pods, all with one filter. */
export function atPods(pods: readonly LabPod[], filter: string): Record<string, CapturePoint> {
  return Object.fromEntries(pods.map(pod => [pod.name, [pod.name, filter] as const]));
}
