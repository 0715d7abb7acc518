/** NetworkPolicy objects from text, as `explain --what-if policy=FILE` takes them. */

import { parseYaml } from '../control/parse-yaml.ts';
import { type PolicyConfig, policy } from '../control/policy-config.ts';
import { QuestionError } from './question.ts';

/** @param file its name, for the problems. @throws QuestionError with everything that is wrong */
export function policiesIn(text: string, file: string): PolicyConfig[] {
  const policies: PolicyConfig[] = [];
  const problems: string[] = [];
  const parsed = parseYaml(text, file);
  if ('faults' in parsed) throw new QuestionError(parsed.faults.join('\n'));
  for (const value of parsed.values) {
    if (value === null) continue;
    const { kind, metadata, spec } = value as {
      kind?: string;
      metadata?: { name?: string; namespace?: string };
      spec?: Record<string, unknown>;
    };
    if (kind !== 'NetworkPolicy') {
      problems.push(`${file}: kind: got ${JSON.stringify(kind ?? null)}, expected NetworkPolicy`);
      continue;
    }
    const { name, namespace = 'default' } = metadata ?? {};
    const read = policy.safeParse({ ...spec, name, namespace });
    if (read.success) policies.push(read.data);
    else {
      problems.push(
        ...read.error.issues.map(
          ({ path, message }) => `${file}: ${name ?? ''} ${path.join('.')}: expected ${message}`,
        ),
      );
    }
  }
  if (policies.length === 0 && problems.length === 0) problems.push(`${file}: got none, expected a NetworkPolicy`);
  if (problems.length > 0) throw new QuestionError(problems.join('\n'));
  return policies;
}
