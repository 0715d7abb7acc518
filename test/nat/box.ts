/**
 * A translating node in a few lines, for tests: the steps of the path that matter to conntrack and NAT, in their order.
 *
 *   inside (10.0.0.0/8) --- box, 192.168.10.1 outside --- everything else
 */
import { type FlowOptions, Flows } from '../../datapath/flow/flows.ts';
import { type MasqueradeRule, MasqueradeRules } from '../../datapath/nat/masquerade.ts';
import { type Service, Services } from '../../datapath/nat/service.ts';
import { rowOf, type TranslatedRow, Translation, type TranslationOptions } from '../../datapath/nat/translation.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { beginJudgement } from '../../datapath/path/judge.ts';
import { Random } from '../../datapath/random.ts';
import { CONTINUE, VERDICT_NAMES } from '../../datapath/verdict.ts';
import { bytesOf, ip, load } from '../fixtures/packets.ts';

export const OUTSIDE = '192.168.10.1';
export const CLUSTER = { address: ip('10.0.0.0'), length: 8 };

export interface Result {
  /** Name of the verdict; 'continue' if the packet leaves. */
  verdict: string;
  out: Uint8Array;
  isNew: boolean;
  related: boolean;
  flow: number;
  direction: number;
}

export class Box {
  readonly pool = new Pool(2);
  readonly flows: Flows;
  readonly translation: Translation;
  readonly services: Services;
  readonly rules: MasqueradeRules;
  now = 0;

  constructor(
    options: Partial<FlowOptions & TranslationOptions> = {},
    services: readonly Service[] = [],
    rules: readonly MasqueradeRule[] = [{ from: [CLUSTER], notTo: [CLUSTER], action: 'MASQUERADE' }],
  ) {
    const random = new Random(7);
    this.flows = new Flows(this.pool.view, { capacity: 1000, random, ...options });
    this.translation = new Translation(this.pool.view, this.flows, { random, ...options });
    this.services = new Services(new Random(11));
    this.translation.backends = this.services;
    this.rules = new MasqueradeRules(rules);
    for (const service of services) this.services.set(service);
  }

  /** All flows, as listings show them. */
  rows(): TranslatedRow[] {
    const rows: TranslatedRow[] = [];
    this.flows.list(1, 1 << 20, this.now, flow => rows.push(rowOf(this.flows, flow, this.now)));
    return rows;
  }

  send(bytes: Uint8Array): Result {
    const p = load(this.pool, bytes);
    let verdict = parseIpv4(this.pool.view, p);
    const { flows, translation, services } = this;
    beginJudgement(p);
    flows.payer = (p.src & 0xff) + 1;
    if (verdict === CONTINUE) verdict = flows.track(p, this.now);
    const isNew = p.isNew === 1;
    const related = p.isRelated === 1;
    if (verdict === CONTINUE && isNew) {
      const external = (p.src & 0xff000000) !== CLUSTER.address ? 1 : 0;
      if (p.dst === ip(OUTSIDE)) verdict = translation.translateInbound(p, this.now, false);
      if (verdict === CONTINUE) verdict = services.select(p, external, this.now);
      const masquerade = p.backend !== 0 && p.masquerade !== 0;
      if (verdict === CONTINUE && p.backend !== 0) {
        verdict = translation.translateDestination(p, p.backendAddress, p.backendPort, p.backend);
      }
      if (verdict === CONTINUE) {
        const rule = this.rules.match(p.src, p.newDst, p.protocol, 0);
        this.rules.countHit(rule);
        if (rule > 0 || masquerade) {
          const { rules } = this;
          const at = Math.max(rule, 0);
          const [min, max] = [rules.minPort(at), rules.maxPort(at)];
          verdict = translation.translateSource(p, ip(OUTSIDE), rule, rules.keepsPort(at), this.now, min, max);
        }
      }
      if (verdict === CONTINUE) verdict = translation.confirm(p, this.now);
    } else if (verdict === CONTINUE) verdict = translation.follow(p);
    if (verdict === CONTINUE) verdict = translation.translate(p);
    const out = bytesOf(this.pool, p);
    this.pool.release(p);
    const { flow, direction } = p;
    return { verdict: VERDICT_NAMES[verdict], out, isNew, related, flow, direction };
  }
}

/** A service at 10.96.0.10 with the given endpoints. */
export function service(
  change: Partial<Service> = {},
  endpoints: string[] = ['10.244.2.20:8080'],
  protocol = 6,
): Service {
  return {
    name: 'default/web',
    clusterAddresses: [ip('10.96.0.10')],
    ports: [{ protocol, port: 80, endpoints: endpoints.map(endpoint) }],
    ...change,
  };
}

/** "address:port", ready; with "!" behind it not ready, "~" terminating but serving; "@" on this node. */
export function endpoint(text: string): Service['ports'][0]['endpoints'][0] {
  const [address, rest] = text.split(':');
  return {
    address: ip(address),
    port: Number.parseInt(rest, 10),
    ready: !/[!~]/.test(rest),
    serving: !rest.includes('!'),
    terminating: rest.includes('~'),
    local: rest.includes('@'),
  };
}
