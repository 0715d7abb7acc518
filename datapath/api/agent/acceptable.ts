/** A configuration made of objects, without those that no node takes: one that is wrong does not keep the others away. */
import { stringify } from 'yaml';
import { loadConfig, type Problem } from '../../control/load-config.ts';
import type { Json } from '../object.ts';

export interface Refused {
  kind: 'Service' | 'NetworkPolicy';
  /** NAMESPACE/NAME */
  place: string;
  message: string;
}

export interface Acceptable {
  config: Json;
  refused: Refused[];
  /** What else is wrong with it; empty if a node takes it. */
  problems: Problem[];
}

/** @param file for messages */
export function withoutFaulty(written: Json, file: string): Acceptable {
  const refused: Refused[] = [];
  let config = written;
  for (;;) {
    const problems = loadConfig(stringify(config), file).problems ?? [];
    const faulty = problems.flatMap(({ path, message }) => {
      const match = /^spec\.(services|policies)\[(\d+)\]/.exec(path);
      return match === null ? [] : [{ list: match[1]!, index: Number(match[2]), message: `${path}: ${message}` }];
    });
    if (faulty.length === 0) return { config, refused, problems };
    const { services, policies } = config.spec;
    for (const { list, index, message } of faulty) {
      const [kind, item] =
        list === 'services' ? (['Service', services[index]] as const) : (['NetworkPolicy', policies[index]] as const);
      refused.push({ kind, place: kind === 'Service' ? item.name : `${item.namespace}/${item.name}`, message });
    }
    const kept = (list: string, items: Json[]): Json[] =>
      items?.filter((_, index) => !faulty.some(one => one.list === list && one.index === index));
    config = {
      ...config,
      spec: { ...config.spec, services: kept('services', services), policies: kept('policies', policies) },
    };
  }
}
