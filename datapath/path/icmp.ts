/** What the node says itself: ICMP errors about packets that end here, and answers to ping. */
import * as counters from '../counters.ts';
import type { Packet } from '../packet/packet.ts';
import { IDENTITY_REMOTE_NODE, PORT_HOST, PORT_UPLINK } from '../port.ts';
import { DROP_ICMP_RATE_LIMIT, DROP_MALFORMED_IPV4, DROP_NO_HOST_PORT, TAKEN } from '../verdict.ts';
import * as ip from './ipv4.ts';
import { addressTowardsSender, answerOptions, echoOptions, takeOptions } from './options.ts';
import type { Path } from './path.ts';

/**
 * Sends an error about `p` to its sender, if the rules allow one; to Record Route and Timestamp options as Linux has it. `p` stays the caller's, and unchanged: the error goes
 * through the whole path as a packet of its own, in the middle of a step of `p`.
 * @param error one of those that path/ipv4.ts names
 * @param info as buildError has it
 */
export function answer(path: Path, p: Packet, error: number, info: number): void {
  if (p.probe !== 0 || !ip.mayAnswer(path.view, p)) return;
  if (ip.isLimited(path.limiter, p, error, path.now)) {
    path.counters.drop(DROP_ICMP_RATE_LIMIT, 0);
    return;
  }
  const source = errorSource(path, p);
  let options = 0;
  if (path.fillsOptions && ip.hasOptions(path.view, p)) {
    const fault = error === ip.BAD_HEADER ? info : 0;
    options = takeOptions(path, p, fault, addressTowardsSender(path, p), source);
    if (options < 0) return;
  }
  const e = ip.buildError(path.pool, p, error, info, source, answerOptions, options);
  if (e === null) return;
  e.inPort = p.inPort;
  e.trace = p.trace;
  e.number = p.number;
  e.owner = path.id;
  e.identity = IDENTITY_REMOTE_NODE;
  ip.countError(path.counters, error);
  const v = path.forward(e);
  if (v !== TAKEN) path.drop(e, v);
}

/** The node still answers ping to an address of its own that is at no host port: there is none, or the address is not its. */
export function answerEcho(path: Path, p: Packet): number {
  const { view } = path;
  if (!ip.isEchoRequest(view, p)) return DROP_NO_HOST_PORT;
  if (path.fillsOptions && ip.hasOptions(view, p) && !echoOptions(path, p)) return DROP_MALFORMED_IPV4;
  ip.turnIntoEchoReply(view, p);
  p.identity = IDENTITY_REMOTE_NODE;
  path.counters.event(counters.EVENT_ICMP_ECHO_ANSWERED);
  return path.forward(p);
}

/** An address that the sender can reach, and that its kernel does not take for its own (RFC 1812 section 4.3.2.4). */
function errorSource(path: Path, p: Packet): number {
  const port = path.ports[p.inPort];
  if (port.kind === PORT_HOST) return p.dst;
  if (port.kind === PORT_UPLINK && p.tunnelSource === 0) return path.underlay.address;
  return path.hostAddress;
}
