/**
 * `arping -i DEVICE ADDRESS` in the words of the one by Thomas Habets, which the articles have; the machine has the one of
 * iputils, whose lines stay its own.
 */
import { spawn } from 'node:child_process';
import { ToolError } from './desk.ts';
import { real, realPath } from './run.ts';

const FOREVER = 1 << 30;
const SUMMARY_AFTER = 1;

export async function arping(argv: readonly string[]): Promise<number> {
  const at = argv.indexOf('-i');
  if (at < 0) return real('arping', argv);
  const device = argv[at + 1];
  const c = argv.indexOf('-c');
  const count = c < 0 ? FOREVER : Number(argv[c + 1]);
  const target = argv.find((word, i) => /^\d+(\.\d+){3}$/.test(word) && i !== at + 1);
  if (device === undefined || target === undefined || !Number.isInteger(count) || count < 1) {
    throw new ToolError('expected arping -i DEVICE [-c COUNT] ADDRESS');
  }
  process.stdout.write(`ARPING ${target}\n`);
  let sent = 0;
  const times: number[] = [];
  let isOver = false;
  process.on('SIGINT', () => {
    isOver = true;
  });
  while (sent < count && !isOver) {
    const answer = await askOnce(device, target);
    sent++;
    if (answer === undefined) {
      process.stdout.write('Timeout\n');
      continue;
    }
    process.stdout.write(
      `60 bytes from ${answer.mac} (${target}): index=${times.length} time=${answer.ms.toFixed(3)} msec\n`,
    );
    times.push(answer.ms);
    if (sent < count) await new Promise(resolve => setTimeout(resolve, 1000));
  }
  if (sent > SUMMARY_AFTER) process.stdout.write(summary(target, sent, times.length));
  return times.length > 0 ? 0 : 1;
}

function summary(target: string, sent: number, received: number): string {
  const unanswered = Math.round((100 * (sent - received)) / sent);
  return `\n--- ${target} statistics ---\n${sent} packets transmitted, ${received} packets received, ${unanswered}% unanswered (0 extra)\n`;
}

/** By iputils' arping, for a second. */
function askOnce(device: string, target: string): Promise<{ mac: string; ms: number } | undefined> {
  const child = spawn(realPath('arping'), ['-b', '-I', device, '-c', '1', '-w', '1', target]);
  let printed = '';
  child.stdout.on('data', chunk => {
    printed += chunk;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => {
      const match = /\[([0-9A-Fa-f:]{17})\]\s+([\d.]+)ms/.exec(printed);
      resolve(match === null ? undefined : { mac: match[1]!.toLowerCase(), ms: Number(match[2]) });
    });
  });
}
