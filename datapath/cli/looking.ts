/** Commands that look at packets: names and options; what they do is in the files that they import. */
import { type Command, Option } from 'commander';
import { UsageError } from './exit.ts';
import { ends, MANY, OUTPUT } from './options.ts';

export function addLooking(program: Command): void {
  addObserve(program.command('observe').description('flows of running nodes, as `hubble observe` prints them'));
  addMonitor(
    program.command('monitor').description('drops, traces and policy verdicts, as `cilium-dbg monitor` prints them'),
  );
  addExplain(
    program.command('explain').description('one packet through every step, and why; exit 1 if it does not arrive'),
  );

  program
    .command('capture')
    .description('packets of running nodes at any set of points; ends at SIGINT')
    .argument('[filter...]', "in the words of tcpdump: 'tcp and port 80'")
    .option(
      '--at <point...>',
      'ports: default/p1, ul0, or any; with :in or :out only what enters or leaves the node there',
    )
    .addOption(new Option('-i, --interface <point>', 'as --at').argParser(MANY).hideHelp())
    .addOption(new Option('-n', 'as tcpdump: names are never looked up').hideHelp())
    .option('--drops', 'packets that are dropped, with the reason; without --at nothing else')
    .option('-w, --write <file>', 'pcapng; - for standard output, into wireshark -k -i -')
    .addOption(
      new Option('--format <format>', 'of the file; pcap has IPv4 alone').choices(['pcapng', 'pcap']).default('pcapng'),
    )
    .option('-C, --file-size <megabytes>', 'begin another file when one has so many million bytes')
    .option('-W, --files <count>', 'with --file-size: so many files, then the first is written anew')
    .option('-c, --count <packets>', 'end after so many')
    .option('-s, --snapshot-length <bytes>', 'keep so much of each packet; 0: all', '0')
    .option('--node <name>', 'a running node: NAME, or LAB/NODE; default: all of them')
    .action(
      ends(async (filter, { interface: points, ...flags }) =>
        (await import('./capture.ts')).capture(filter, {
          ...flags,
          at: points === undefined ? flags.at : [...(flags.at ?? []), ...points],
        }),
      ),
    );

  program
    .command('ui')
    .description('a page about running nodes: the network, flows, packets, explain, in a browser of this machine')
    .option('--listen <address:port>', 'of this machine; port 0: any', '127.0.0.1:0')
    .option('--static <file>', 'instead: the page as one file with the datapath in it, which needs no node')
    .option('--node <name>', 'a running node: NAME, or LAB/NODE; default: all of them')
    .action(ends(async flags => (await import('./ui.ts')).ui(flags)));

  program
    .command('metrics')
    .description('counters, ports and tables of running nodes in the text format of Prometheus')
    .option('--node <name>', 'a running node: NAME, or LAB/NODE; default: all of them')
    .option('--listen <address:port>', 'serve /metrics there until SIGTERM, every scrape anew')
    .action(ends(async flags => (await import('./metrics.ts')).metrics(flags)));

  program
    .command('replay')
    .description('a capture through a configuration, in memory: no root, the same bytes every time')
    .argument('<file>', 'pcap or pcapng')
    .requiredOption('--config <file>', 'NodeConfig, YAML')
    .option('--node <name>', 'which, where the file has several')
    .option('--compare <file>', 'another NodeConfig: print every packet that differs; exit 1 if any does')
    .option('-w, --write <file>', 'what went in and came out, as pcapng with the verdicts as comments')
    .option('--port <name>', 'where all packets enter: a pod, the host device, uplink')
    .option('--packets', 'a row for every packet')
    .option('--no-arp', 'neighbours that the capture does not show do not answer')
    .option('--seed <number>', 'of source ports, IP ids and backends', '1')
    .option(...OUTPUT)
    .action(ends(async (file, flags) => (await import('./replay.ts')).replay(file, flags)));
}

function addObserve(command: Command): void {
  command
    .option('-f, --follow', 'go on until SIGINT, as without --last, --since and --until')
    .option('--last <number>', 'of what nodes remember (spec.flowHistory), and end')
    .option('--since <time>', 'what they remember from then on: 5m, or 2026-11-28T09:00:00Z')
    .option('--until <time>', 'and no longer than until then')
    .option('--listen <address:port>', "serve Hubble's API there until SIGTERM, for hubble clients")
    .option('--first <number>', 'end after so many flows')
    .option('--not', 'leave out what the next option takes');
  const excluded: Record<string, string[]> = {};
  let isExcluded = false;
  command.on('option:not', () => {
    isExcluded = true;
  });
  /** Of flows; what stands behind --not is kept apart. */
  const filter = (flags: string, description: string) => {
    const option = new Option(flags, description);
    option.argParser((value: string, before: string[] | undefined) => {
      const isMeant = !isExcluded;
      isExcluded = false;
      if (isMeant) return [...(before ?? []), value];
      const name = option.attributeName();
      excluded[name] = [...(excluded[name] ?? []), value];
      // Not undefined, which commander takes for ''.
      return before ?? [];
    });
    command.addOption(option);
  };
  filter('--verdict <verdict>', 'FORWARDED or DROPPED');
  filter('--reason <name>', 'why it was dropped: no-route');
  filter('--drop-reason-desc <name>', "the same by Cilium's names: POLICY_DENIED");
  filter('-t, --type <type>', 'drop, trace, or trace:to-endpoint');
  for (const [side, whose] of [
    ['', 'source or destination'],
    ['from-', 'source'],
    ['to-', 'destination'],
  ]) {
    filter(`--${side}pod <name>`, `${whose}: default/p1, default/ or p1`);
    filter(`${side === '' ? '-n, ' : ''}--${side}namespace <name>`, whose);
    filter(`${side === '' ? '-l, ' : ''}--${side}label <label>`, `${whose}: app=web`);
    filter(`--${side}ip <address>`, `${whose}: an address, or a network such as 10.244.0.0/16`);
    filter(`--${side}port <port>`, whose);
    filter(`--${side}service <name>`, `${whose}: default/web`);
    filter(`--${side}identity <identity>`, `${whose}: a number, or a name such as world`);
  }
  filter('--protocol <name>', 'tcp, udp, icmp or sctp');
  filter('--tcp-flags <flags>', 'all of these: SYN,ACK');
  filter('--traffic-direction <direction>', 'ingress or egress');
  filter('--node-name <name>', 'of nodes by their full names; * stands for anything');
  command
    .option('--print-node-name', 'also where there is one node only')
    .option('--node <name>', 'a running node: NAME, or LAB/NODE; default: all of them')
    .option('--lab <name>', 'only nodes of a lab')
    .option('-o, --output <format>', 'compact, dict or jsonpb', 'compact')
    .action(
      ends(async flags => {
        const { observe } = await import('./observe.ts');
        return observe({ ...flags, not: isExcluded, excluded });
      }),
    );
}

function addMonitor(command: Command): void {
  command
    .option('-t, --type <type>', 'drop, trace or policy-verdict; default: all of them', MANY)
    .option('-v, --verbose', 'several lines for each event, with the headers of the packet')
    .option('--hex', 'the same, with its first bytes')
    .option(
      '--related-to <id>',
      'only what this endpoint sends or gets; its number is in get endpoints -o cilium',
      MANY,
    )
    .option('--from <id>', 'what it sends', MANY)
    .option('--to <id>', 'what it gets', MANY)
    .option('--node <name>', 'a running node: NAME, or LAB/NODE; default: all of them')
    .action(ends(async flags => (await import('./monitor.ts')).monitor(flags)));
}

function addExplain(command: Command): void {
  command
    .argument('[field]', 'of a configuration instead: spec.mtu, as explain-config')
    .option('--from <who>', 'a pod, a node, or an address outside')
    .option('--to <where>', 'ADDRESS:PORT, or a pod or service by name')
    .option('--proto <name>', 'tcp, udp or icmp; default: tcp with a port, else icmp')
    .option('--sport <port>', 'source port', '40000')
    .option('--length <bytes>', 'of the IP packet')
    .option('--ttl <number>', 'as it is sent', '64')
    .option('--no-df', 'it may be fragmented')
    .option('--pcap <file>', 'a packet of a capture instead')
    .option('--frame <number>', 'which of it; default: 1')
    .option('--hex <bytes>', 'a packet in hex digits instead, IP or Ethernet')
    .option('--port <name>', 'where a packet of --pcap or --hex enters: a pod, the host device, uplink')
    .option('--both', 'and what the receiver answers')
    .option('--what-if <change>', 'mode=geneve, mtu=1400, tooBig=..., profile=..., policy=FILE; may be repeated', MANY)
    .option('--config <file...>', 'NodeConfig files or directories: no root, no devices; default: what runs here', MANY)
    .option('--node <name>', 'of several: where it enters; without --config, the only running node to look at')
    .option('--seed <number>', 'of source ports, IP ids and backends', '1')
    .option(...OUTPUT)
    .action(
      ends(async (field: string | undefined, flags, self: Command) => {
        if (field === undefined) return (await import('./explain.ts')).explain(flags);
        const lone = self.options.find(option => self.getOptionValueSource(option.attributeName()) === 'cli');
        if (lone !== undefined)
          throw new UsageError(`${lone.long}: expected without a field; explain-config has a format`);
        return (await import('./explain-config.ts')).explainConfig(field, { format: 'text' });
      }),
    );
}
