/** Gives one sequence to both nodes, and compares what comes out of them packet by packet. */
import { describePacket, difference, isIcmpError, PortMap, portsOf } from './compare.ts';
import { FIRST_PORT, Seen, type Sequence, type Step, tupleOf } from './conversation.ts';
import type { Node, Sent } from './network.ts';
import type { OurNode } from './ours.ts';

/** A step at which the two did not do the same. */
export interface Mismatch {
  sequence: Sequence;
  step: Step;
  input: Uint8Array;
  kernel: Sent[];
  ours: Sent[];
  /** Why we dropped it, if we did. */
  reason: string;
  what: string;
}

/** A difference that is meant. */
export interface Chosen {
  name: string;
  why: string;
  /** Whether the sequence goes on behind it; if not, the two have different flows from there on. */
  goesOn?: boolean;
  is(mismatch: Mismatch): boolean;
}

export class Referee {
  /** Packets that both let through, and that both did not. */
  passed = 0;
  refused = 0;
  /** How often each chosen difference was met. */
  readonly met = new Map<string, number>();
  /** Ports of flows that may be unequal: those of sequences that a listed difference has ended, and those chosen. */
  readonly unequal = new Set<number>();
  private readonly kernel: Node;
  private readonly ours: OurNode;
  private readonly chosen: readonly Chosen[];
  private id = 0;

  constructor(kernel: Node, ours: OurNode, chosen: readonly Chosen[]) {
    this.kernel = kernel;
    this.ours = ours;
    this.chosen = chosen;
  }

  /**
   * Plays a sequence. It ends with the first step at which the two differ, because from there on their flows do, too.
   * @returns that step: a difference that is not listed, or 'listed'; null: equal to the end
   */
  run(sequence: Sequence): Mismatch | 'listed' | null {
    const kernelSeen = new Seen();
    const ourSeen = new Seen();
    const ports = new PortMap();
    for (const step of sequence.steps) {
      // Never 0, for which a kernel may choose another.
      this.id = (this.id % 0xffff) + 1;
      const toKernel = step.build(kernelSeen, this.id);
      const input = step.build(ourSeen, this.id);
      if (toKernel === null || input === null) continue;
      const before = this.ours.drops();
      const send = (node: Node, packet: Uint8Array) => {
        const pieces = step.pieces?.(packet);
        if (pieces === undefined) return node.exchange(step.side, packet);
        // The kernel puts them together and cuts them again; we let them go as they came once the first one is there.
        const sent = pieces.flatMap(piece => node.exchange(step.side, piece));
        return sent.sort((a, b) => fragmentOffset(a.bytes) - fragmentOffset(b.bytes));
      };
      const kernel = send(this.kernel, toKernel);
      const ours = send(this.ours, input);
      const reason = [...this.ours.drops()].find(([name, n]) => n > before.get(name)!)?.[0] ?? '';
      const what = compareOutputs(kernel, ours, input, ports);
      for (const port of ports.chosen) this.unequal.add(port);
      const mismatch = { sequence, step, input, kernel, ours, reason, what };
      const listed = this.chosen.find(chosen => chosen.is(mismatch));
      if (listed !== undefined) this.met.set(listed.name, (this.met.get(listed.name) ?? 0) + 1);
      if (listed !== undefined && !listed.goesOn) {
        for (const port of portsOf(input)) if (port >= FIRST_PORT) this.unequal.add(port);
        return 'listed';
      }
      if (what !== '' && listed === undefined) return mismatch;
      learn(kernelSeen, step, kernel);
      learn(ourSeen, step, ours);
      if (ours.length > 0) this.passed++;
      else this.refused++;
    }
    return null;
  }
}

function fragmentOffset(packet: Uint8Array): number {
  return ((packet[6] & 0x1f) << 8) | packet[7];
}

function compareOutputs(kernel: Sent[], ours: Sent[], input: Uint8Array, ports: PortMap): string {
  if (kernel.length !== ours.length) return `${ours.length} packets instead of ${kernel.length}`;
  for (let i = 0; i < kernel.length; i++) {
    if (kernel[i].side !== ours[i].side) return 'side';
    const what = difference(kernel[i].bytes, ours[i].bytes, input, ports);
    if (what !== '') return what;
  }
  return '';
}

function learn(seen: Seen, step: Step, outputs: Sent[]): void {
  const { learn } = step;
  const output = outputs[0];
  if (learn === undefined || output === undefined || output.side !== learn.side || isIcmpError(output.bytes)) return;
  if (learn.forward) seen.far.set(learn.flow, tupleOf(output.bytes));
  seen.last.set(`${learn.flow} ${learn.forward ? 'forward' : 'reverse'}`, output.bytes);
}

export function describeMismatch({ sequence, step, input, kernel, ours, reason, what }: Mismatch): string {
  const list = (sent: Sent[]) => sent.map(({ side, bytes }) => `\n    ${side} ${describePacket(bytes)}`).join('');
  const lines = sequence.steps.map(s => `${s === step ? '-->' : '   '} ${s.what}`);
  return `${sequence.name}: ${what}
${lines.join('\n')}
  sent: ${describePacket(input)}
  kernel:${list(kernel)}
  ours: ${reason}${list(ours)}`;
}
