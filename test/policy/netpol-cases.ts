/**
 * What NetworkPolicies mean, as a truth table: the cases of Kubernetes' own end-to-end test (test/e2e/network/netpol), as
 * data. Namespaces x, y and z have pods a, b and c each, with the label `pod` and ports 80 and 81 of every protocol, named
 * serve-80-tcp and so on.
 *
 * `says` is read from its beginning, and the last line about a cell counts: `deny` or `allow`, from whom, to whom (`*`, a
 * namespace, or a pod), and which port, if not all. What no line is about is allowed, as is a pod to itself.
 */
import type { NetworkPolicy, Peer } from '../model/policy.ts';

export interface Step {
  policies: NetworkPolicy[];
  /** Labels of namespaces and pods besides those that they have. */
  labels?: Record<string, Record<string, string>>;
  says: string[];
}

export interface Case {
  name: string;
  steps: Step[];
}

const ALL = {};
const A = { matchLabels: { pod: 'a' } };
const NAME = 'kubernetes.io/metadata.name';

const isNamespace = (name: string): Peer => ({ namespaceSelector: { matchLabels: { [NAME]: name } } });
const isNot = (name: string): Peer => ({
  namespaceSelector: { matchExpressions: [{ key: NAME, operator: 'NotIn', values: [name] }] },
});
const isPod = (name: string): Peer => ({ podSelector: { matchLabels: { pod: name } } });

type Rules = Pick<NetworkPolicy, 'ingress' | 'egress' | 'policyTypes'>;

let made = 0;

function policy(namespace: string, podSelector: NetworkPolicy['podSelector'], rules: Rules): NetworkPolicy {
  return { name: `p${++made}`, namespace, podSelector, ...rules };
}

const from = (...peers: Peer[]): Rules => ({ ingress: [{ from: peers }] });
const to = (...peers: Peer[]): Rules => ({ egress: [{ to: peers }], policyTypes: ['Egress'] });
const NO_INGRESS: Rules = { ingress: [], policyTypes: ['Ingress'] };
const NO_EGRESS: Rules = { policyTypes: ['Egress'] };
const NOTHING: Rules = { policyTypes: ['Ingress', 'Egress'] };

/** Of most cases: one policy about x/a, and nothing happens to it. */
function aboutA(name: string, rules: Rules, ...says: string[]): Case {
  return { name, steps: [{ policies: [policy('x', A, rules)], says }] };
}

function aboutX(name: string, rules: Rules, ...says: string[]): Case {
  return { name, steps: [{ policies: [policy('x', ALL, rules)], says }] };
}

/** One policy, before a namespace or pod gets labels, and after. */
function labelled(
  name: string,
  who: string,
  labels: Record<string, string>,
  one: NetworkPolicy,
  before: string[],
  after: string[],
): Case {
  return {
    name,
    steps: [
      { policies: [one], says: before },
      { policies: [one], labels: { [who]: labels }, says: after },
    ],
  };
}

const Y_TO_81: Rules = { ingress: [{ from: [isNamespace('y')], ports: [{ port: 81, protocol: 'TCP' }] }] };

/** @param address of a pod, by its name */
export function netpolCases(address: (pod: string) => string): Case[] {
  const block = (pod: string): string => `${address(pod)}/32`;
  return [
    aboutX('default deny ingress', NO_INGRESS, 'deny * -> x'),
    aboutX('default deny all', NOTHING, 'deny * -> x', 'deny x -> *'),
    aboutA('from a pod of its own namespace', from(isPod('b')), 'deny * -> x/a', 'allow x/b -> x/a'),
    {
      name: 'from everybody to one pod of a namespace that takes from nobody',
      steps: [
        {
          policies: [policy('x', ALL, NO_INGRESS), policy('x', A, from({ podSelector: ALL, namespaceSelector: ALL }))],
          says: ['deny * -> x', 'allow * -> x/a'],
        },
      ],
    },
    aboutA('from all namespaces', from({ namespaceSelector: { matchLabels: {} } })),
    aboutA('from another namespace alone', from(isNamespace('y')), 'deny * -> x/a', 'allow y -> x/a'),
    aboutA(
      'pods by an expression',
      from({ podSelector: { matchExpressions: [{ key: 'pod', operator: 'In', values: ['b'] }] } }),
      'deny * -> x/a',
      'allow x/b -> x/a',
    ),
    aboutA(
      'namespaces by an expression',
      from({ namespaceSelector: { matchExpressions: [{ key: NAME, operator: 'In', values: ['y'] }] } }),
      'deny * -> x/a',
      'allow y -> x/a',
    ),
    aboutA('pods or namespaces', from(isNot('x'), isPod('b')), 'deny x/c -> x/a'),
    aboutA(
      'pods and namespaces',
      from({ ...isNot('x'), ...isPod('b') }),
      'deny * -> x/a',
      'allow y/b -> x/a',
      'allow z/b -> x/a',
    ),
    aboutA(
      'several pods of several namespaces',
      from({ ...isNot('x'), podSelector: { matchExpressions: [{ key: 'pod', operator: 'In', values: ['b', 'c'] }] } }),
      'deny x -> x/a',
      'deny y/a -> x/a',
      'deny z/a -> x/a',
    ),
    aboutA(
      'from any of several pods',
      from(isPod('b'), isPod('c')),
      'deny * -> x/a',
      'allow x/b -> x/a',
      'allow x/c -> x/a',
    ),
    aboutA(
      'from one pod of another namespace',
      from({ ...isNamespace('y'), ...isPod('a') }),
      'deny * -> x/a',
      'allow y/a -> x/a',
    ),
    aboutA('by a port', Y_TO_81, 'deny * -> x/a', 'allow y -> x/a tcp/81'),
    {
      name: 'policies add up, port by port',
      steps: [
        { policies: [policy('x', A, Y_TO_81)], says: ['deny * -> x/a', 'allow y -> x/a tcp/81'] },
        {
          policies: [
            policy('x', A, Y_TO_81),
            policy('x', A, { ingress: [{ from: [isNamespace('y')], ports: [{ port: 80, protocol: 'TCP' }] }] }),
          ],
          says: ['deny * -> x/a', 'allow y -> x/a tcp/80', 'allow y -> x/a tcp/81'],
        },
      ],
    },
    aboutX('allow all', { ingress: [{}] }),
    aboutX(
      'one named port, for everybody',
      { ingress: [{ ports: [{ port: 'serve-81-tcp' }] }] },
      'deny * -> x',
      'allow * -> x tcp/81',
    ),
    aboutA(
      'one named port, for a namespace',
      { ingress: [{ from: [isNamespace('y')], ports: [{ port: 'serve-80-tcp', protocol: 'TCP' }] }] },
      'deny * -> x/a',
      'allow y -> x/a tcp/80',
    ),
    aboutX(
      'out by one named port',
      { egress: [{ ports: [{ port: 'serve-80-tcp' }] }], policyTypes: ['Egress'] },
      'deny x -> *',
      'allow x -> * tcp/80',
    ),
    {
      name: 'a policy that changes',
      steps: [
        { policies: [policy('x', ALL, { ingress: [{}] })], says: [] },
        { policies: [policy('x', ALL, NO_INGRESS)], says: ['deny * -> x'] },
      ],
    },
    labelled(
      'a namespace that gets a label',
      'y',
      { ns2: 'updated' },
      policy('x', A, from({ namespaceSelector: { matchLabels: { ns2: 'updated' } } })),
      ['deny * -> x/a'],
      ['deny * -> x/a', 'allow y -> x/a'],
    ),
    labelled(
      'a pod that gets a label, and may in',
      'x/b',
      { pod2: 'updated' },
      policy('x', A, from({ podSelector: { matchLabels: { pod: 'b', pod2: 'updated' } } })),
      ['deny * -> x/a'],
      ['deny * -> x/a', 'allow x/b -> x/a'],
    ),
    aboutX('not from other namespaces', from({ podSelector: { matchLabels: {} } }), 'deny * -> x', 'allow x -> x'),
    labelled(
      'a pod that gets a label, and is isolated',
      'x/a',
      { target: 'isolated' },
      policy('x', { matchLabels: { target: 'isolated' } }, NO_INGRESS),
      [],
      ['deny * -> x/a'],
    ),
    aboutA('no egress of a pod', NO_EGRESS, 'deny x/a -> *'),
    aboutX('no egress of a namespace', NO_EGRESS, 'deny x -> *'),
    aboutA(
      'ingress and egress in one policy',
      { ingress: [{ from: [isPod('b')] }], egress: [{ ports: [{ port: 80 }] }], policyTypes: ['Egress', 'Ingress'] },
      'deny * -> x/a',
      'allow x/b -> x/a',
      'deny x/a -> *',
      'allow x/a -> * tcp/80',
    ),
    {
      name: 'the client may not, though the server would let it',
      steps: [
        {
          policies: [
            policy('x', A, to({ ...isNamespace('y'), ...isPod('a') })),
            ...['a', 'b'].map(name =>
              policy('y', { matchLabels: { pod: name } }, from({ ...isNamespace('x'), ...isPod('a') })),
            ),
          ],
          says: ['deny x/a -> *', 'deny * -> y/a', 'deny * -> y/b', 'allow x/a -> y/a'],
        },
      ],
    },
    aboutA(
      'out to one pod of another namespace',
      to({ ...isNamespace('y'), ...isPod('a') }),
      'deny x/a -> *',
      'allow x/a -> y/a',
    ),
    aboutA(
      'all ports of one protocol',
      { ingress: [{ ports: [{ protocol: 'TCP' }] }] },
      'deny * -> x/a',
      'allow * -> x/a tcp/80',
      'allow * -> x/a tcp/81',
    ),
    {
      name: 'allow-all ingress beside a narrower one',
      steps: [
        {
          policies: [policy('x', ALL, { ingress: [{ ports: [{ port: 80 }] }] })],
          says: ['deny * -> x', 'allow * -> x tcp/80'],
        },
        {
          policies: [
            policy('x', ALL, { ingress: [{ ports: [{ port: 80 }] }] }),
            policy('x', ALL, { ingress: [{}], policyTypes: ['Ingress'] }),
          ],
          says: [],
        },
      ],
    },
    {
      name: 'allow-all egress beside a narrower one',
      steps: [
        {
          policies: [policy('x', ALL, { egress: [{ ports: [{ port: 80 }] }], policyTypes: ['Egress'] })],
          says: ['deny x -> *', 'allow x -> * tcp/80'],
        },
        {
          policies: [
            policy('x', ALL, { egress: [{ ports: [{ port: 80 }] }], policyTypes: ['Egress'] }),
            policy('x', ALL, { egress: [{}], policyTypes: ['Egress'] }),
          ],
          says: [],
        },
      ],
    },
    {
      name: 'policies that are deleted',
      steps: [
        { policies: [policy('x', ALL, NOTHING)], says: ['deny * -> x', 'deny x -> *'] },
        { policies: [], says: [] },
      ],
    },
    aboutA('out to an address block', to({ ipBlock: { cidr: block('y/b') } }), 'deny x/a -> *', 'allow x/a -> y/b'),
    aboutA(
      'out to an address block but for one',
      to({ ipBlock: { cidr: '10.244.0.0/16', except: [block('x/b')] } }),
      'deny x/a -> x/b',
    ),
    {
      name: 'what one policy excepts, another allows',
      steps: [
        {
          policies: [policy('x', A, to({ ipBlock: { cidr: '10.244.0.0/16', except: [block('x/b')] } }))],
          says: ['deny x/a -> x/b'],
        },
        {
          policies: [policy('x', A, to({ ipBlock: { cidr: block('x/b') } }))],
          says: ['deny x/a -> *', 'allow x/a -> x/b'],
        },
        {
          policies: [
            policy('x', A, to({ ipBlock: { cidr: '10.244.0.0/16', except: [block('x/b')] } })),
            policy('x', A, to({ ipBlock: { cidr: block('x/b') } })),
          ],
          says: [],
        },
      ],
    },
    {
      name: 'ingress and egress of one pod, each by its own policy',
      steps: [
        { policies: [policy('x', A, { egress: [{}], policyTypes: ['Egress'] })], says: [] },
        {
          policies: [policy('x', A, { egress: [{}], policyTypes: ['Egress'] }), policy('x', A, NO_INGRESS)],
          says: ['deny * -> x/a'],
        },
      ],
    },
    {
      name: 'SCTP is not TCP, in a namespace that takes from nobody',
      steps: [
        {
          policies: [
            policy('x', ALL, NO_INGRESS),
            policy('x', A, { ingress: [{ ports: [{ port: 81, protocol: 'SCTP' }] }] }),
          ],
          says: ['deny * -> x', 'allow * -> x/a sctp/81'],
        },
      ],
    },
    aboutA(
      'a rule for SCTP isolates for everything else',
      { ingress: [{ ports: [{ port: 80, protocol: 'SCTP' }] }] },
      'deny * -> x/a',
      'allow * -> x/a sctp/80',
    ),
    aboutA(
      'UDP is not TCP',
      { ingress: [{ ports: [{ port: 81, protocol: 'UDP' }] }] },
      'deny * -> x/a',
      'allow * -> x/a udp/81',
    ),
    aboutA('out to all namespaces but one', to(isNot('y')), 'deny x/a -> y'),
    aboutA(
      'UDP by a port, for a namespace',
      { ingress: [{ from: [isNamespace('y')], ports: [{ port: 81, protocol: 'UDP' }] }] },
      'deny * -> x/a',
      'allow y -> x/a udp/81',
    ),
    aboutA(
      'SCTP by a port, for a namespace',
      { ingress: [{ from: [isNamespace('y')], ports: [{ port: 81, protocol: 'SCTP' }] }] },
      'deny * -> x/a',
      'allow y -> x/a sctp/81',
    ),
    aboutA(
      'a range of ports',
      { ingress: [{ ports: [{ port: 79, endPort: 80 }] }] },
      'deny * -> x/a',
      'allow * -> x/a tcp/80',
    ),
  ];
}
