#!/usr/bin/env node
/**
 * The tunpath command: names and options here, what they do in the files beside it. Those are imported when their
 * command runs, so that `--help` and short commands start fast.
 */

import { realpathSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { LOG_FORMATS, LOG_LEVELS } from '../control/log.ts';
import { MOST_LOOPS } from '../drive/slots.ts';
import { addAsking } from './asking.ts';
import { DONE, exitCodeOf, readText, reportError, USAGE, UsageError } from './exit.ts';
import { addLooking } from './looking.ts';
import { addManners } from './manners.ts';
import { ends, KUBECONFIG, MANY, NODE, OUTPUT } from './options.ts';
import { knownElsewhere } from './other-tools.ts';
import { guardStreams } from './output.ts';
import { versionOf } from './version.ts';

const HTML = ['--html <file>', 'a page with charts, too: one file that needs nothing else'] as const;

/** All commands, with their options, arguments and texts. */
export function buildProgram(): Command {
  const program = new Command('tunpath')
    .description('A userspace datapath: pods, tunnels and routing over TUN and TAP devices')
    .version(versionOf(), '-v, --version')
    .enablePositionalOptions()
    .showHelpAfterError('(--help lists commands and options)')
    .configureOutput({
      outputError: (text, write) => {
        const elsewhere = text.startsWith('error: unknown command') ? knownElsewhere(process.argv.slice(2)) : undefined;
        write(text.replace(/^error: /, 'tunpath: '));
        if (elsewhere !== undefined) write(`here that is: ${elsewhere}\n`);
      },
    });

  program
    .command('node')
    .description('run one node, or several in one process, in the foreground until SIGTERM')
    .option('--config <file...>', 'NodeConfig, YAML, or a directory of them; read again at SIGHUP', MANY)
    .option('--kubeconfig <file>', 'follow the cluster that this leads to; --config or --uplink say what it does not')
    .option('--node-name <name>', 'which Node of the cluster this is, with --kubeconfig')
    .option('--uplink <uplink>', 'raw:INTERFACE or routed:INTERFACE[:DEVICE], with --kubeconfig instead of --config')
    .option(
      '--loops <count>',
      'threads that nodes are spread over; default: by the processors, those of a segment together',
      countOf,
      0,
    )
    .addOption(new Option('--log-format <format>').choices(LOG_FORMATS).default('text').env('TUNPATH_LOG_FORMAT'))
    .addOption(new Option('--log-level <level>').choices(LOG_LEVELS).default('info').env('TUNPATH_LOG_LEVEL'))
    .addOption(new Option('--state-dir <directory>', 'where what is applied outlives the node').env('STATE_DIRECTORY'))
    .option('--drop-capabilities', 'once the pods are set up, keep only CAP_NET_ADMIN and CAP_NET_RAW')
    .action(
      ends(async flags => {
        if (flags.kubeconfig !== undefined) return (await import('./follow.ts')).followCluster(flags);
        if (flags.config === undefined)
          throw new UsageError('expected --config FILE, or --kubeconfig FILE --node-name NAME');
        const lone = ['nodeName', 'uplink'].find(flag => flags[flag] !== undefined);
        if (lone !== undefined)
          throw new UsageError(`--${lone === 'uplink' ? lone : 'node-name'} goes with --kubeconfig`);
        return (await import('./node.ts')).node(flags);
      }),
    );

  const FILE = [
    '-f, --file <file>',
    'NodeConfig, or Kubernetes objects, or a directory of those; - is standard input',
  ] as const;
  const FILE_NODE = [
    '--node <name>',
    'a running node: NAME, or LAB/NODE; default: the one that the file names',
  ] as const;
  program
    .command('apply')
    .description('make a running node, or a cluster, what a file says; no packet is lost')
    .requiredOption(...FILE)
    .option('--dry-run', 'say what would change, and change nothing')
    .option(...FILE_NODE)
    .option(...OUTPUT)
    .option(...KUBECONFIG)
    .action(ends(flags => fileCommand(flags, 'apply', 'applyObjects')));

  program
    .command('diff')
    .description('what a running node has that a configuration does not say, and the other way; exit 1 if anything')
    .requiredOption(...FILE)
    .option(...FILE_NODE)
    .option(...OUTPUT)
    .option(...KUBECONFIG)
    .action(ends(flags => fileCommand(flags, 'diff', 'diffObjects')));

  program
    .command('delete')
    .description('end the running node that a configuration names; what it made goes with it')
    .requiredOption(...FILE)
    .option(...FILE_NODE)
    .option(...KUBECONFIG)
    .action(ends(flags => fileCommand(flags, 'deleteFile', 'deleteObjects')));

  addAsking(program);
  addLooking(program);

  program
    .command('example')
    .description('files to start from, and what to type; without a name: which there are')
    .addArgument(new Argument('[name]').choices(['two-nodes']))
    .option('--directory <directory>', 'where the files go', '.')
    .action(ends(async (name, flags) => (await import('./example.ts')).example(name, flags)));

  program
    .command('explain-config')
    .description('what a field of the configuration means, as `kubectl explain` does')
    .argument('[path]', 'spec.mtu, spec.tunnel.vni; segment.spec.impairments; default: the whole', '')
    .option('--recursive', 'all fields below, too')
    .addOption(
      new Option('--format <format>', 'text; the page docs/configuration.md; a JSON Schema for editors')
        .choices(['text', 'markdown', 'schema'])
        .default('text'),
    )
    .action(ends(async (path, flags) => (await import('./explain-config.ts')).explainConfig(path, flags)));

  program
    .command('version')
    .description('of tunpath, of Node, and of the kernel')
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./versions.ts')).versions(flags)));

  program
    .command('completion')
    .description('a script that lets a shell complete commands, options, and what runs here')
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh', 'fish']))
    .action(ends(async shell => (await import('./completion.ts')).completion(shell)));

  program
    .command('conformance')
    .description('hold the datapath against the RFCs, clause by clause, with packets in memory')
    .option('--profile <name>', 'linux, cilium, calico, flannel, rfc; all: side by side', 'rfc')
    .option('--clause <clause...>', 'only these: 7348, 7348/5, 4787/REQ-1')
    .option('--verbose', 'every packet sent and received')
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./conformance.ts')).conformance(flags)));

  addSegment(program.command('segment').description('Ethernets in the processes of nodes, and what spoils them'));
  addMtu(program.command('mtu').description('what size of packet passes, and who refuses the next one'));
  addLab(program.command('lab').description('a cluster in network namespaces of this machine'));
  addHost(
    program.command('host').description('this machine: what a node on it needs, and whether a running pair works'),
  );
  addBench(program.command('bench').description('measurements, with where and how they were made'));
  addManners(program);
  return program;
}

function addSegment(segment: Command): void {
  segment
    .command('list')
    .description('segments, their ports, and the impairments of each')
    .option(...NODE)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./segment.ts')).list(flags)));
  segment
    .command('set')
    .description('change what is named; the rest stays. Names and units are those of tc netem and tbf')
    .argument('<segment>', 'as `segment list` names it')
    .option('--from <node>', 'what this node sends, instead of the whole wire')
    .option('--to <node>', 'what this node gets')
    .option('--delay <time>', '5ms, 200us; 0: none')
    .option('--jitter <time>', 'around the delay')
    .option('--distribution <name>', 'of the jitter: uniform, normal, pareto')
    .option('--loss <share>', '0.1%, or in bursts: "gemodel P [R [1-H [1-K]]]"')
    .option('--duplicate <share>', 'sent twice')
    .option('--reorder <share>', 'not delayed')
    .option('--corrupt <share>', 'with one bit turned over')
    .option('--rate <rate>', '10mbit, 1gbit; 0: no limit')
    .option('--burst <size>', 'that may exceed the rate at once: 16kb')
    .option('--limit <count>', 'of packets that wait, or with a rate a size: 100kb')
    .option('--ce-threshold <size>', 'waiting bytes from which on ECN marks Congestion Experienced')
    .option('--mtu <bytes>', 'longest IP packet')
    .option('--icmp <what>', 'passed, filtered')
    .option('--source-dest-check <addresses>', "with --from or --to: the port's own, which alone may send and get; off")
    .option('--clear', 'no impairments, but those named beside it')
    .option(...NODE)
    .action(ends(async (name, flags) => (await import('./segment.ts')).set(name, flags)));
}

function addMtu(mtu: Command): void {
  mtu
    .command('prove')
    .description('from configuration alone: what passes between all pods, and what becomes of larger packets')
    .option('-f, --file <path...>', 'files, or directories of them: NodeConfig and Underlay documents')
    .option('--lab <name>', 'the configurations of a running lab')
    .option('--expand', 'every pair of pods, not every pair of nodes')
    .option('--pcap <file>', 'write the first packet that fails')
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./mtu.ts')).prove(flags)));
  mtu
    .command('probe')
    .description('between two pods of a running lab, with real packets, in both directions')
    .argument('<from>', 'a pod, as `lab status` names it')
    .argument('<to>', 'another')
    .option('--lab <name>', 'several labs may be up, each with its name', 'lab')
    .option(...OUTPUT)
    .action(ends(async (from, to, flags) => (await import('./mtu.ts')).probe(from, to, flags)));
}

function addLab(lab: Command): void {
  const NEW_NAME = ['--name <lab>', 'several labs may be up, each with its name', 'lab'] as const;
  const NAME = ['--name <lab>', 'which, where several are up; default: the only one, or the one called lab'] as const;

  lab
    .command('up')
    .description('bring a lab up; one whose nodes have died gets them back')
    .option('--mode <mode>', 'native, ipip, vxlan, geneve or crosssubnet; default: as the topology says, vxlan')
    .option('-t, --topology <name>', 'as `lab topology` lists them, or a file; default: cilium')
    .option('-f, --file <file>', 'a topology of your own; - is standard input')
    .option('--print', 'the topology with everything that it leaves open, instead of bringing it up')
    .option('--profile <profile>', 'linux, cilium, calico, flannel, rfc; default: by mode and topology')
    .option('--offload <which>', 'auto, none', 'auto')
    .option('--no-api', 'without the Kubernetes API that kubectl talks to')
    .option('--etcd <address:port>', "keep the API's objects in this etcd; default: a journal beside the lab")
    .option('--processes', 'a process for each node, with TAPs on bridges; default: all nodes in one, with segments')
    .option('--loops <count>', 'threads that the nodes of the one process are spread over, as of `node`', countOf)
    .option('--ui', 'then serve a page about it until SIGINT, as tunpath ui')
    .option('--simulate', 'instead: many nodes and pods in memory, asked once who reaches whom; no root')
    .option('--nodes <n>', 'with --simulate; default 200', wholeNumber)
    .option('--pods <n>', 'with --simulate, of each node; default 20', wholeNumber)
    .option('--policies', 'with --simulate: pods k0 are reached by pods k1 alone')
    .option('--every-pod', 'with --simulate: every pod to every pod; default: every node to every node')
    .option(...NEW_NAME)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./lab.ts')).up(flags)));

  lab
    .command('down')
    .description('remove a lab, also one left behind')
    .option(...NAME)
    .option('--all', 'every lab')
    .action(ends(async flags => (await import('./lab.ts')).down(flags)));

  lab
    .command('status')
    .description('hosts of a lab and whether they run')
    .option(...NAME)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./lab.ts')).status(flags)));

  lab
    .command('list')
    .description('which labs are up, or left behind')
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./lab-look.ts')).list(flags)));

  lab
    .command('topology')
    .description('built-in topologies; with a name: its file, to change and bring up with `lab up -f`')
    .argument('[name]', 'which to print')
    .option(...OUTPUT)
    .action(ends(async (name, flags) => (await import('./lab-topology.ts')).topology(name, flags)));

  lab
    .command('inspect')
    .description('namespaces, sockets, processes and services of a lab, for other tools to find them')
    .option(...NAME)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./lab-look.ts')).inspect(flags)));

  lab
    .command('graph')
    .description('a picture of a lab')
    .addOption(new Option('--format <format>', 'mermaid, svg').choices(['mermaid', 'svg']).default('mermaid'))
    .option(...NAME)
    .action(ends(async flags => (await import('./lab-look.ts')).graph(flags)));

  lab
    .command('pingall')
    .description('a ping from every pod to every other; exit 1 if one is not answered')
    .option(...NAME)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./lab-look.ts')).pingall(flags)));

  lab
    .command('restart')
    .description('end a node of a lab, if it still runs, and start it again')
    .argument('<node>', 'as `lab status` names it')
    .option(...NAME)
    .action(ends(async (host, flags) => (await import('./lab-look.ts')).restart(host, flags)));

  lab
    .command('exec')
    .description('run a command on a node, a pod or the router')
    .argument('<host>', 'as `lab status` names it')
    .argument('<command...>', 'what to run there')
    .option(...NAME)
    .passThroughOptions()
    .usage('[options] <host> -- <command...>')
    .action(ends(async (host, argv, flags) => (await import('./lab.ts')).exec(host, argv, flags)));

  lab
    .command('shell')
    .description('a shell on a host, with kubectl and the tools of the articles: cilium, hubble, calicoctl, iptables')
    .argument('<host>', 'as `lab status` names it')
    .option(...NAME)
    .action(ends(async (host, flags) => (await import('./lab.ts')).shell(host, flags)));

  lab
    .command('capture')
    .description('tcpdump on a host: what its own interfaces see')
    .argument('<host>', 'as `lab status` names it')
    .argument('[filter...]', "in the words of tcpdump: 'udp port 8472'")
    .option('-i, --interface <name>', 'of the host', 'any')
    .option('-w, --write <file>', 'pcap; - for standard output, into wireshark -k -i -')
    .option('-c, --count <packets>', 'end after so many')
    .option(...NAME)
    .action(ends(async (host, filter, flags) => (await import('./lab.ts')).capture(host, filter, flags)));

  lab
    .command('compare')
    .description('send the same traffic through every mode and print what each costs')
    .option('--mode <mode...>', 'only these')
    .option('-t, --topology <name>', 'as for `lab up`')
    .option('-f, --file <file>', 'a topology of your own')
    .option('--name <lab>', 'name of the labs it makes', 'compare')
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./compare.ts')).compare(flags)));

  const scenario = lab
    .command('scenario')
    .description('the experiments of the articles, each checked against captured packets');
  scenario
    .command('list')
    .description('list the experiments')
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./scenario.ts')).list(flags)));
  scenario
    .command('run')
    .description('run some of them, each in a lab of its own')
    .argument('[names...]', 'as `lab scenario list` names them')
    .option('--all', 'every one')
    .option('--name <lab>', 'name of the labs it makes', 'scenario')
    .option(...OUTPUT)
    .action(ends(async (names, flags) => (await import('./scenario.ts')).run(names, flags)));
}

function addHost(host: Command): void {
  host
    .command('init')
    .description('look at this machine and write a configuration that works here, or say what stands in the way')
    .option('--interface <name>', 'the NIC; default: the one of the default route')
    .addOption(
      new Option('--uplink <kind>', 'how the node is on the network')
        .choices(['auto', 'raw', 'macvtap', 'routed'])
        .default('auto'),
    )
    .addOption(new Option('--tunnel <protocol>', 'to the peers').choices(['vxlan', 'geneve', 'ipip']).default('vxlan'))
    .option('--port <number>', "the tunnel's UDP port; default: the usual one")
    .option('--peer <address>', 'another node, ADDRESS or ADDRESS=PODS-NETWORK; may be repeated', MANY, [])
    .option('--pod <netns>', 'a network namespace that becomes a pod; may be repeated', MANY, [])
    .option('--name <name>', 'of the node; default: the name of the host')
    .option('--pod-cidr <network>', 'of this node; default: 10.244.N.0/24, N the last byte of its address')
    .option('--address <address>', 'ADDRESS/LENGTH of its own for a macvtap')
    .option('--output <file>', 'where to write it; default: standard output')
    .option('--force', 'replace that file')
    .action(ends(async flags => (await import('./host.ts')).init(flags)));

  host
    .command('check')
    .description(
      'try what a running node and its peers need: underlay, tunnel both ways, MTU, checksums, who filters what',
    )
    .option(
      '--peer <address>',
      'only this peer; ADDRESS=TARGET names what to ping behind its tunnel, by default the first address of its network',
      MANY,
      [],
    )
    .option(...NODE)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./host.ts')).check(flags)));
}

function addBench(bench: Command): void {
  bench.addHelpText('after', '\nA list has commas and no blanks: --modes vxlan,ipip.');

  bench
    .command('e2e')
    .description(
      "pod to pod through ours and through the kernel's counterpart in turn: throughput, packets, latency, CPU",
    )
    .option('--modes <list>', 'vxlan, geneve, ipip, native, local, vxlan-no-offload')
    .option(
      '--suites, --only <list>',
      'tcp1, tcp4, udp64, udp1400, rr, ndr64, ndr1400, latency, latency-loaded, connections',
    )
    .option('--nat <list>', 'none, service, masquerade')
    .option('--uplink <list>', 'tap, segment, raw, macvtap, routed')
    .option('--pairs <count>', 'trials of each side (default: 8, with --quick 3)')
    .option('--seconds <count>', 'length of one trial in seconds (default: 1)')
    .option('--no-ceiling', 'leave out plain veth, which takes its turn with the first mode')
    .option('--quick', 'a first look: fewer cases, 3 pairs')
    .addHelpText(
      'after',
      '\nWith any of the lists every combination is measured, without them a selection.\ntcp, udp, ndr and latency are their suites together, service is\n--nat service,masquerade.',
    )
    .option(...HTML)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./bench.ts')).e2e(flags)));

  bench
    .command('pipeline')
    .description('the whole path over memory, without the kernel: packets per second and core, cost by step')
    .option('--modes <list>', 'native, ipip, vxlan, geneve')
    .option('--sizes <list>', 'lengths of an IP packet in bytes, 28 to 1500, or IMIX')
    .option('--flows <list>', 'numbers of flows')
    .option('--nat <list>', 'none, tracked, service, masquerade')
    .option('--visits <count>', 'fresh threads for each case (default: 5)')
    .option('--quick', 'a first look: fewer cases, 2 visits')
    .addHelpText(
      'after',
      '\nWith any of the lists every combination is measured, without them a selection,\nthe steps and burst sizes.',
    )
    .option(...HTML)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./bench.ts')).pipeline(flags)));

  bench
    .command('micro')
    .description('every operation of the path by itself: time and bytes per packet')
    .option(
      '--only <list>',
      'parse, lpm, conntrack, service, rewrite, encap, checksum, fragment, segment; default: all',
    )
    .option('--visits <count>', 'fresh threads for each operation (default: 5)')
    .option('--quick', 'a first look: 2 short visits')
    .option(...HTML)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./bench.ts')).micro(flags)));

  bench
    .command('lpm')
    .description('longest prefix match in tables of 10 to a million prefixes')
    .option('--prefixes <list>', 'table sizes, in prefixes')
    .option('--rte', "DPDK's rte_lpm in turn with ours, on the same table (wants gcc, pkg-config, libdpdk-dev)")
    .option('--quick', 'a first look: two sizes, fewer rounds')
    .option(...HTML)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./bench.ts')).lpm(flags)));

  bench
    .command('overhead')
    .description('what a tunnel should cost, by its headers, and what it does: on the wire, in throughput, in CPU time')
    .option('--quick', 'a first look: fewer and shorter trials')
    .option(...HTML)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./bench.ts')).overhead(flags)));

  bench
    .command('mtu')
    .description('lengths around the MTU, through each tunnel and each of the four ways to meet what does not fit')
    .option('--modes <list>', 'ipip, vxlan, geneve; default: all, with --quick vxlan')
    .option('--quick', 'a first look: one tunnel, the boundaries only')
    .option(...HTML)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./bench.ts')).mtu(flags)));

  bench
    .command('all')
    .description('every suite in one run and one report; Ctrl-C ends it with what is measured')
    .option('--only <list>', 'micro, lpm, pipeline, overhead, mtu, e2e; default: all')
    .option('--quick', 'a first look, under 5 minutes instead of 45')
    .option(...HTML)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./bench.ts')).all(flags)));

  bench
    .command('report')
    .description('a page with charts of a report')
    .argument('<report>', 'a file, from -o json')
    .requiredOption(...HTML)
    .action(ends(async (file, flags) => (await import('./bench.ts')).report(file, flags)));

  bench
    .command('compare')
    .description('what became faster or slower between two reports of the same suite, or two builds')
    .argument('<before>', 'a file, from -o json; with --build a directory')
    .argument('<after>', 'the same')
    .option('--build', 'the two are checkouts that are built: run them in turn, which finds a few percent')
    .option('--only <list>', 'with --build: pipeline and groups of micro; default: pipeline,encap')
    .option('--thorough', 'with --build: every case of the groups of micro')
    .option('--check', 'exit 1 if something became slower beyond doubt')
    .option(...OUTPUT)
    .action(ends(async (before, after, flags) => (await import('./bench.ts')).compare(before, after, flags)));
}

function wholeNumber(value: string): number {
  if (!/^\d{1,9}$/.test(value)) throw new InvalidArgumentError('Expected a whole number.');
  return Number(value);
}

function countOf(value: string): number {
  const count = Number(value);
  if (!/^\d{1,2}$/.test(value) || count < 1 || count > MOST_LOOPS)
    throw new UsageError(`got ${value}, expected a number of loops from 1 to ${MOST_LOOPS}`);
  return count;
}

function isCommand(program: Command, words: readonly string[]): boolean {
  let at: Command | undefined = program;
  for (const word of words) at = at?.commands.find(command => [command.name(), ...command.aliases()].includes(word));
  return at !== undefined;
}

/** Every command ends by itself: errors of parsing are thrown here instead of ending the process where they are found. */
function throwOnExit(command: Command): void {
  command.exitOverride();
  for (const child of command.commands) throwOnExit(child);
}

/** What a file says decides who it is for: a node, or the API of a cluster. */
async function fileCommand(
  flags: Parameters<typeof import('./apply.ts').apply>[0] & { kubeconfig?: string },
  forNode: 'apply' | 'diff' | 'deleteFile',
  forCluster: 'applyObjects' | 'diffObjects' | 'deleteObjects',
): Promise<number> {
  const text = isDirectory(flags.file) ? undefined : readText(flags.file);
  const cluster = await import('./cluster.ts');
  if (text !== undefined && cluster.isForNode(text)) return (await import('./apply.ts'))[forNode]({ ...flags, text });
  return cluster[forCluster]({ ...flags, text });
}

/** What cannot be looked at is for who reads it to tell. */
function isDirectory(file: string): boolean {
  try {
    return statSync(file).isDirectory();
  } catch {
    return false;
  }
}

/** Runs one command, whose words are `words`. Its exit code, and that of an error, which is reported, is the process's. */
export async function runCommand(words: readonly string[]): Promise<void> {
  const program = buildProgram();
  if (words[0] === '__complete') (await import('./completion.ts')).addComplete(program);
  throwOnExit(program);
  // `help lab up` is not only of `lab`.
  const [first, ...rest] = words;
  const line = first === 'help' && rest.length > 0 ? [...rest, '--help'] : words;
  try {
    if (line !== words && !isCommand(program, rest))
      throw new UsageError(`help ${rest.join(' ')}: no such command: tunpath --help lists them`);
    await program.parseAsync(line, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed what there is to say.
      process.exitCode = error.exitCode === 0 ? DONE : USAGE;
    } else {
      reportError(error);
      process.exitCode = exitCodeOf(error);
    }
  }
}

/** What makes pages of the commands, and tests, import this file. npm starts it by a symbolic link. */
function isStarted(): boolean {
  try {
    return realpathSync(process.argv[1]).replace(/\.flat\.js$/, '.js') === fileURLToPath(import.meta.url);
  } catch {
    return false;
  }
}

// Not awaited here: in one file, what a command imports stands below.
if (isStarted()) {
  guardStreams();
  void runCommand(process.argv.slice(2));
}
