/** The page's questions about nodes, answered from their configurations: the same in the server and in the static page. */

import { CLAUSES } from '../conformance/registry.ts';
import { runClause } from '../conformance/run.ts';
import type { FlowRow } from '../control/nat-rows.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import type { SegmentConfig } from '../control/segment-config.ts';
import { Network } from '../mtu-prove/network.ts';
import { prove } from '../mtu-prove/prove.ts';
import { tableRows } from '../mtu-prove/report.ts';
import { ask, documentOf, headerOptions, type Subject } from '../observe/ask.ts';
import { variantOf } from '../observe/explain-text.ts';
import { policiesIn } from '../observe/policies-text.ts';
import { entryOf, type Question, QuestionError } from '../observe/question.ts';
import { whatIf } from '../observe/what-if.ts';
import { PROFILES, type ProfileName } from '../profile.ts';
import type { ChangeRequest, ClauseRow, ExplainAnswer, ExplainRequest, ProofRow } from './protocol.ts';

const SEED = 1;
/** Clauses in one go. */
const AT_ONCE = 8;
const DEFAULTS: Question = { sport: '40000', ttl: '64', df: true };
/** A segment of TCP with data: what a flow that stands already sends. */
const SEGMENT_LENGTH = '41';

/** @throws QuestionError, WhatIfError */
export function answerExplain(subject: Subject, request: ExplainRequest): ExplainAnswer {
  const { both = false, whatIf: changes = [], ...given } = request;
  const entry = entryOf(subject.configs, { ...DEFAULTS, ...ofKnownFlow(subject.flows, given) });
  const base = ask(subject, entry, SEED, both);
  const variants = [variantOf('as it is', base.there, base.back, headerOptions(subject.configs))];
  for (const text of changes) {
    const configs = subject.configs.map(whatIf(text, noFile));
    const found = ask({ ...subject, configs }, entry, SEED, both);
    variants.push(variantOf(text, found.there, found.back, headerOptions(configs)));
  }
  return { ...documentOf(base), variants, notCopied: subject.missing };
}

function noFile(): never {
  throw new QuestionError('policy=FILE: expected a policy under Change');
}

/** A flow that nodes know is asked about as its sender began it, whatever has been rewritten of what was seen. */
function ofKnownFlow(flows: Subject['flows'], given: Partial<Question>): Partial<Question> {
  const { from, to, sport } = given;
  const [address, port] = (to ?? '').split(':');
  for (const rows of flows.values()) {
    const row = rows.find(({ original, reply }) => {
      const isOriginal = original.src === from && original.dst === address && isPorts(original, sport, port);
      return isOriginal || (reply.dst === from && reply.src === address && isPorts(reply, port, sport));
    });
    if (row === undefined) continue;
    const { src, dst, sport: own, dport } = row.original;
    const isTcp = row.protocol === 'tcp';
    return {
      ...given,
      from: src,
      to: dport === undefined ? dst : `${dst}:${dport}`,
      ...(own === undefined ? {} : { sport: String(own) }),
      ...(isTcp && given.length === undefined ? { length: SEGMENT_LENGTH } : {}),
    };
  }
  return given;
}

function isPorts({ sport, dport }: FlowRow['original'], from: string | undefined, to: string | undefined): boolean {
  return from !== undefined && to !== undefined && String(sport) === from && String(dport) === to;
}

/** What passes between all pods. */
export function answerProve(configs: readonly ResolvedConfig[], segments: readonly SegmentConfig[]): ProofRow[] {
  return tableRows(prove(new Network([...configs], [], [...segments])), false);
}

/** Lets others have a turn meanwhile. @param rfc 0: all of them. @throws QuestionError for a profile that is none */
export async function answerConformance(profile: string, rfc: number): Promise<ClauseRow[]> {
  if (!Object.hasOwn(PROFILES, profile)) {
    throw new QuestionError(`profile ${profile}: expected one of ${Object.keys(PROFILES).join(', ')}`);
  }
  const rows: ClauseRow[] = [];
  for (const clause of CLAUSES.filter(one => rfc === 0 || one.rfc === rfc)) {
    rows.push(runClause(clause, profile as ProfileName));
    if (rows.length % AT_ONCE === 0) await new Promise(resolve => setTimeout(resolve));
  }
  return rows;
}

/**
 * The configuration as it would be written with the change. An MTU is that of pods: the uplink's cannot change while a node
 * runs. @throws QuestionError, WhatIfError
 */
export function withChange(
  config: ResolvedConfig,
  { change, text = '' }: Omit<ChangeRequest, 'dryRun'>,
): ResolvedConfig {
  if (change === 'policy') {
    const policies = text.trim() === '' ? [] : policiesIn(text, 'policy');
    return { ...config, spec: { ...config.spec, policies } };
  }
  if (!change.startsWith('mtu=')) return whatIf(change, noFile)(config);
  const mtu = whatIf(change, noFile)(config).spec.uplink.mtu;
  return { ...config, spec: { ...config.spec, pods: config.spec.pods.map(pod => ({ ...pod, mtu })) } };
}
