/** Examples of every command, for its --help and its man page. */

/** By the words of the command behind `tunpath`: what to type, and what for. */
export const EXAMPLES: Readonly<Record<string, readonly (readonly [command: string, what: string])[]>> = {
  '': [
    ['tunpath lab up --mode vxlan', 'three nodes, a router and pods, in namespaces of this machine'],
    ['tunpath node --config a.yaml', 'one node, in the foreground'],
    ['tunpath get conntrack --dst 10.96.0.10', 'flows to a service address'],
  ],
  node: [
    ['tunpath node --config a.yaml', 'until Ctrl-C'],
    ['tunpath node --config a.yaml --log-format json --state-dir /var/lib/tunpath', 'as a service does'],
  ],
  apply: [
    ['tunpath apply -f a.yaml', 'to the running node that the file names'],
    ['tunpath apply -f a.yaml --dry-run', 'what that would change'],
    ['sed s/vxlan/geneve/ a.yaml | tunpath apply -f -', 'from a pipe'],
  ],
  diff: [['tunpath diff -f a.yaml', 'exit 1 if the running node is not what the file says']],
  delete: [['tunpath delete -f a.yaml', 'ends the node that the file names']],
  get: [
    ['tunpath get svc', 'services by their short name'],
    ['tunpath get services default/web -o yaml', 'one of them'],
    ['tunpath get counters --sort-by packets', 'the largest last'],
    ['tunpath get conntrack -p tcp --dport 8080 --state ESTABLISHED', 'filters as conntrack -L has them'],
    ['tunpath get neighbors -w', 'and then each that changes'],
    ['tunpath get ports --node lab/k8s-w1 -o wide', 'of a node of a lab'],
    ['tunpath get pods -A -o wide', 'objects of the cluster, as kubectl prints them'],
    ['tunpath get deploy -l app=web -w', 'and then each that changes'],
  ],
  describe: [
    ['tunpath describe service default/web', 'with its endpoints'],
    ['tunpath describe service web -n default', 'an object of the cluster, with its events'],
    ['tunpath describe counter drop-no-route', 'what it means, and where to look'],
  ],
  status: [
    ['tunpath status', 'of the only node'],
    ['tunpath status --node lab/k8s-ctr -o json', 'of one of a lab'],
  ],
  observe: [
    ['tunpath observe', 'flows of all nodes that run here'],
    ['tunpath observe --verdict DROPPED -o dict', 'what is dropped, and why'],
    ['tunpath observe --pod default/p1 --protocol tcp -o jsonpb', 'of one pod, for a program'],
  ],
  capture: [
    ['tunpath capture --drops', 'what is dropped, a line each'],
    ['tunpath capture --at default/p1 -w p1.pcapng tcp and port 80', 'at a port'],
    ['tunpath capture -w - | wireshark -k -i -', 'everywhere, live'],
  ],
  ui: [
    ['tunpath ui', 'prints the address to open'],
    ['tunpath ui --static tunpath.html', 'a file to open: a lab and the datapath, no node, no root'],
  ],
  metrics: [['tunpath metrics --listen 127.0.0.1:9090', 'for Prometheus to scrape']],
  replay: [['tunpath replay in.pcap --config a.yaml -w out.pcapng', 'what the node makes of a capture']],
  conformance: [
    ['tunpath conformance', 'every clause; exit 1 if one fails'],
    ['tunpath conformance --clause 4787/REQ-1 --verbose', 'one, with its packets'],
  ],
  version: [['tunpath version -o json', 'for a report of a fault']],
  completion: [
    ['source <(tunpath completion bash)', 'in this shell'],
    ['tunpath completion bash > /etc/bash_completion.d/tunpath', 'in every one'],
    ['tunpath completion zsh > ~/.zfunc/_tunpath', 'with fpath+=~/.zfunc before compinit'],
    ['tunpath completion fish > ~/.config/fish/completions/tunpath.fish', 'in every one'],
  ],
  'mtu prove': [['tunpath mtu prove -f a.yaml -f b.yaml', 'from configuration alone']],
  'mtu probe': [['tunpath mtu probe curl-pod webpod-w0', 'with real packets, in a lab']],
  'lab up': [
    ['tunpath lab up', 'VXLAN'],
    ['tunpath lab up --mode geneve --name two', 'another one beside it'],
    ['tunpath lab up -f mine.yaml', 'a topology of your own'],
    ['tunpath lab up -t calico --print', 'every address of one that is built in'],
  ],
  'lab topology': [
    ['tunpath lab topology', 'which there are'],
    ['tunpath lab topology calico > mine.yaml', 'one to change'],
  ],
  'lab down': [
    ['tunpath lab down', 'the only one'],
    ['tunpath lab down --all', 'every one'],
  ],
  'lab list': [['tunpath lab list', 'which are up']],
  'lab status': [['tunpath lab status -o wide', 'with namespaces and process ids']],
  'lab exec': [
    ['tunpath lab exec curl-pod -- curl -s 172.20.2.73', 'in a pod'],
    ['tunpath lab exec router --name two -- tcpdump -ni any udp', 'in another lab'],
  ],
  'lab capture': [
    ['tunpath lab capture router udp port 8472', 'the tunnel, between the nodes'],
    ['tunpath lab capture curl-pod -w - | wireshark -k -i -', 'what a pod sees, live'],
  ],
  'lab pingall': [['tunpath lab pingall', 'every pod to every other']],
  'lab graph': [
    ['tunpath lab graph', 'as Mermaid'],
    ['tunpath lab graph --format svg > lab.svg', 'as a picture'],
  ],
  'lab inspect': [['tunpath lab inspect', 'addresses, namespaces, sockets and processes']],
  'lab restart': [['tunpath lab restart k8s-w1', 'a node process, as after a crash']],
  'lab compare': [['tunpath lab compare --mode vxlan geneve', 'the same traffic through two modes']],
  'lab scenario list': [['tunpath lab scenario list', 'with what each shows']],
  'lab scenario run': [
    ['tunpath lab scenario run cilium-vxlan', 'one'],
    ['tunpath lab scenario run --all -o json', 'all'],
  ],
  'host init': [['tunpath host init --peer 192.168.10.2 --output a.yaml', 'a configuration for this machine']],
  'host check': [['tunpath host check', 'exit 1 if anything fails']],
  'bench e2e': [['tunpath bench e2e --quick', 'ours and the kernel in turn']],
  'bench pipeline': [['tunpath bench pipeline --quick', 'packets a second over memory']],
  'bench micro': [['tunpath bench micro --only encap', 'one group']],
  'bench lpm': [['tunpath bench lpm --quick', 'route lookups']],
  'bench overhead': [['tunpath bench overhead --quick', 'what headers cost']],
  'bench mtu': [['tunpath bench mtu --quick', 'lengths around the MTU']],
  'bench all': [['tunpath bench all --quick --html report.html', 'every suite, and a page']],
  'bench report': [['tunpath bench report a.json --html a.html', 'a page of a report']],
  'bench compare': [['tunpath bench compare a.json b.json', 'two reports']],
  'explain-config': [['tunpath explain-config spec.mtu', 'a field of the configuration']],
  example: [['tunpath example two-nodes', 'files and a script to try']],
};
