/** tcpdump in a namespace of the lab, and tshark to read what it wrote. */

import { type ChildProcess, spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { LabError } from './lab-error.ts';

export interface CaptureSummary {
  path: string;
  /** Packets in the file. */
  packets: number;
  /** Packets the kernel had no room for; a capture with any proves nothing about what was not seen. */
  dropped: number;
}

const START_TIMEOUT_MS = 5000;
const SETTLE_MS = 30;

/** A running tcpdump. */
export class Capture {
  readonly path: string;
  private readonly child: ChildProcess;
  private readonly exited: Promise<void>;
  private stderr = '';
  private readonly ended: () => Promise<unknown>;

  private constructor(child: ChildProcess, path: string, ended: () => Promise<unknown>) {
    this.child = child;
    this.path = path;
    this.ended = ended;
    child.stderr!.setEncoding('utf8').on('data', chunk => {
      this.stderr += chunk;
    });
    this.exited = new Promise(resolve => child.on('close', () => resolve()));
  }

  /**
   * Returns once packets are being caught.
   * @param device   interface inside `netns`; `any` gives Linux cooked frames with the interface and direction of each
   * @param options.filter   pcap filter, empty for everything
   * @param options.snaplen  bytes kept of each packet
   * @param options.ended    called when it has been stopped
   */
  static async start(
    netns: string,
    device: string,
    path: string,
    options: { filter: string; snaplen: number; env: NodeJS.ProcessEnv; ended?: () => Promise<unknown> },
  ): Promise<Capture> {
    const { filter, snaplen, env, ended = async () => {} } = options;
    const tcpdump = ['tcpdump', '--immediate-mode', '-U', '-n', '-Z', 'root', '-B', '8192'];
    const child = spawn(
      'ip',
      ['netns', 'exec', netns, ...tcpdump, '-s', `${snaplen}`, '-i', device, '-w', path, ...(filter ? [filter] : [])],
      { stdio: ['ignore', 'ignore', 'pipe'], env },
    );
    const capture = new Capture(child, path, ended);
    child.on('error', error => {
      capture.stderr += error.message;
    });
    for (let waited = 0; !capture.stderr.includes('listening on'); waited += 5) {
      if (child.exitCode !== null || child.pid === undefined || waited > START_TIMEOUT_MS) {
        child.kill('SIGKILL');
        throw new LabError(`tcpdump on ${device} in ${netns}: ${capture.stderr.trim() || 'did not start'}`);
      }
      await sleep(5);
    }
    return capture;
  }

  /** Ends the capture when the file has stopped growing. */
  async stop(): Promise<CaptureSummary> {
    let size = -1;
    for (let rounds = 0; rounds < 30; rounds++) {
      const now = statSync(this.path).size;
      if (now === size) break;
      size = now;
      await sleep(SETTLE_MS);
    }
    this.child.kill('SIGINT');
    await this.exited;
    await this.ended();
    const packets = /(\d+) packets? captured/.exec(this.stderr);
    const dropped = /(\d+) packets? dropped by kernel/.exec(this.stderr);
    if (packets === null) throw new LabError(`tcpdump ended badly: ${this.stderr.trim()}`);
    return { path: this.path, packets: Number(packets[1]), dropped: Number(dropped?.[1] ?? 0) };
  }
}

const TCP_CHECKSUM = 'tcp.checksum.status';
const CHECKSUM_GOOD = '1';
/**
 * tshark calls a TCP checksum of 0xffff bad where RFC 1624 has 0, under this name. It adds up the same, and Linux writes
 * it (CSUM_MANGLED_0 in skb_checksum_help): one packet in 65,536.
 */
const MANGLED_ZERO = 'tcp.checksum.ffff';

/**
 * Decodes a capture, one row per packet that matches, one column per field. A field that occurs several times, as
 * `ip.src` does in a tunnel packet, lists the outermost first.
 * @param fields         tshark names, `ip.len`
 * @param displayFilter  tshark filter, empty for everything
 * @param decodeAs       tshark -d rules; VXLAN on 8472 and 4789 and GENEVE on 6081 are known already
 */
export async function decodeCapture(
  path: string,
  fields: readonly string[],
  displayFilter = '',
  decodeAs: readonly string[] = [],
): Promise<string[][][]> {
  const argv = ['-n', '-r', path, '-T', 'fields', '-E', 'occurrence=a', '-E', 'aggregator=;', '-E', 'separator=/t'];
  for (const rule of ['udp.port==8472,vxlan', ...decodeAs]) argv.push('-d', rule);
  // Off by default in tshark, since captures on a sending host mostly hold packets that the device has yet to finish.
  for (const protocol of ['ip', 'udp', 'tcp']) argv.push('-o', `${protocol}.check_checksum:TRUE`);
  // As they are in the header: those that an ICMP error quotes have nothing to be relative to.
  argv.push('-o', 'tcp.relative_sequence_numbers:FALSE');
  for (const field of [...fields, MANGLED_ZERO]) argv.push('-e', field);
  if (displayFilter !== '') argv.push('-Y', displayFilter);
  const result = await execa('tshark', argv, { reject: false, stdin: 'ignore', maxBuffer: 1 << 30 });
  if (result.exitCode !== 0) throw new LabError(`tshark: ${result.stderr || result.message}`);
  const status = fields.indexOf(TCP_CHECKSUM);
  return result.stdout
    .split('\n')
    .filter(line => line !== '')
    .map(line => {
      const row = line.split('\t').map(cell => (cell === '' ? [] : cell.split(';')));
      const mangledZero = row.pop()!.length > 0;
      if (mangledZero && status >= 0) row[status] = [CHECKSUM_GOOD];
      return row;
    });
}
