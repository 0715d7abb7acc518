/**
 * Runs a command as a systemd unit would let it run: `node confine.js UNIT ARGV...`. Of the unit it takes what stands
 * between a process and the kernel: CapabilityBoundingSet, NoNewPrivileges, SystemCallFilter and RestrictAddressFamilies.
 * Then it becomes the command. For machines on which no systemd runs; the groups of system calls are systemd-analyze's.
 */
import { execFileSync } from 'node:child_process';
import { constants } from 'node:os';
import koffi from 'koffi';
import { type Capability, execute, keepOnly } from '../../datapath/control/capabilities.ts';
import { readUnit } from '../fixtures/unit.ts';

// seccomp.h of libseccomp.
const SCMP_ACT_ALLOW = 0x7fff0000;
const SCMP_ACT_ERRNO = 0x00050000;
const SCMP_CMP_EQ = 4;
const UNKNOWN = -1;

const FAMILIES: Record<string, number> = { AF_UNIX: 1, AF_INET: 2, AF_INET6: 10, AF_NETLINK: 16, AF_PACKET: 17 };

const seccomp = koffi.load('libseccomp.so.2');
const init = seccomp.func('void *seccomp_init(uint32_t action)');
const resolve = seccomp.func('int seccomp_syscall_resolve_name(const char *name)');
const addRule = seccomp.func(
  'int seccomp_rule_add_array(void *context, uint32_t action, int call, unsigned int count, const void *comparisons)',
);
const load = seccomp.func('int seccomp_load(void *context)');

/** Names of system calls that a SystemCallFilter= allows; `~` takes away what stands behind it. */
function allowedCalls(filters: readonly string[]): Set<string> {
  const groups = new Map<string, string[]>();
  // It warns on stderr where it may not see the kernel's own list.
  const listing = execFileSync('systemd-analyze', ['syscall-filter', '--no-pager'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  for (const block of listing.split('\n\n')) {
    const [group, ...entries] = block.split('\n').map(line => line.trim());
    groups.set(
      group,
      entries.filter(entry => entry !== '' && !entry.startsWith('#')),
    );
  }
  const expand = (name: string): string[] => (name.startsWith('@') ? (groups.get(name) ?? []).flatMap(expand) : [name]);
  const allowed = new Set(expand('@default'));
  for (const filter of filters) {
    const remove = filter.startsWith('~');
    for (const call of filter.replace('~', '').split(/\s+/).flatMap(expand)) {
      if (remove) allowed.delete(call);
      else allowed.add(call);
    }
  }
  return allowed;
}

const [unitFile, ...argv] = process.argv.slice(2);
const unit = readUnit(unitFile);
const context = init(SCMP_ACT_ERRNO | constants.errno.EPERM);
for (const name of allowedCalls(unit.get('SystemCallFilter')!)) {
  const call = resolve(name);
  if (call === UNKNOWN || name === 'socket') continue;
  addRule(context, SCMP_ACT_ALLOW, call, 0, null);
}
for (const family of unit.get('RestrictAddressFamilies')!.flatMap(line => line.split(' '))) {
  // struct scmp_arg_cmp: which argument, how to compare, two operands of 64 bits.
  const comparison = new BigUint64Array([BigInt(SCMP_CMP_EQ) << 32n, BigInt(FAMILIES[family]), 0n]);
  addRule(context, SCMP_ACT_ALLOW, resolve('socket'), 1, comparison);
}
if (unit.get('NoNewPrivileges')?.at(-1) !== 'yes')
  throw new Error(`${unitFile}: NoNewPrivileges=yes is what is emulated`);
keepOnly(unit.get('CapabilityBoundingSet')!.flatMap(line => line.split(' ')) as Capability[]);
if (load(context) !== 0) throw new Error('seccomp_load failed');
execute(argv[0], argv, process.env);
