/**
 * The one network that the kernel and the datapath both stand in for, in the referee's tests:
 *
 *   clients 10.1.0.1-16, a backend 10.1.0.20          everything else, by the gateway 192.168.10.254
 *                                   |                 |
 *                            'in'  10.1.0.254   192.168.10.1  'out', MTU 1400
 *                                   +---- the node ----+
 *
 * A client of 10.1.0.0/16 leaves under 192.168.10.1, unless it goes to 10.1.0.0/16 or 10.2.0.0/16. Services have one
 * backend each, so that nothing is left to chance.
 */
export type Side = 'in' | 'out';

export interface Sent {
  side: Side;
  bytes: Uint8Array;
}

/** One of the two that are compared. */
export interface Node {
  /** Sends an IP packet into a side. @returns what comes out of both because of it: by side, in order */
  exchange(side: Side, bytes: Uint8Array): Sent[];
}

export const CLIENTS = Array.from({ length: 16 }, (_, i) => `10.1.0.${i + 1}`);
export const INSIDE_BACKEND = '10.1.0.20';
export const INSIDE_ADDRESS = '10.1.0.254';
export const OUTSIDE_ADDRESS = '192.168.10.1';
export const GATEWAY = '192.168.10.254';
export const OUT_MTU = 1400;
/** A host outside that is masqueraded to, and one that is not. */
export const SERVER = '203.0.113.5';
export const PEER = '10.2.0.20';

export interface TestService {
  vip: string;
  backend: string;
  /** protocol number, port, backend's port */
  ports: [number, number, number][];
}

const PORTS: TestService['ports'] = [
  [6, 80, 8080],
  [17, 53, 5353],
];
export const TO_PEER: TestService = { vip: '10.96.0.10', backend: PEER, ports: PORTS };
export const TO_SERVER: TestService = { vip: '10.96.0.11', backend: '198.51.100.20', ports: PORTS };
export const TO_INSIDE: TestService = { vip: '10.96.0.12', backend: INSIDE_BACKEND, ports: PORTS };
export const SERVICES = [TO_PEER, TO_SERVER, TO_INSIDE];

/** So long that no flow ends by itself while the kernel, whose time is real, works on the sequences. */
export const TIMEOUT_SECONDS = 3000;
