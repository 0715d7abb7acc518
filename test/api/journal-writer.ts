/** Writes into a journal without end, and prints each revision when it is accepted. For a test that kills it. */
import { writeSync } from 'node:fs';
import { Journal } from '../../datapath/api/store/journal.ts';
import { Store } from '../../datapath/api/store/store.ts';

const store = await Store.open(new Journal(process.argv[2]!));
for (let n = 0; ; n++) {
  const name = `n${n % 50}`;
  const before = store.get('configmaps', name);
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { text: 'x'.repeat(n % 4000) } };
  const stored = await store.put('configmaps', name, object, Number(before?.metadata.resourceVersion ?? 0));
  writeSync(1, `${stored.metadata.resourceVersion}\n`);
}
