import assert from 'node:assert/strict';
import { pickNode } from '../../datapath/cli/client.ts';
import { UsageError } from '../../datapath/cli/exit.ts';
import { nodesOfLab } from '../../datapath/cli/watched.ts';

describe('pickNode', () => {
  const lab = ['tp-lab-k8s-ctr', 'tp-lab-k8s-w1'];
  const rows: [what: string, wanted: string | undefined, nodes: string[], picked: string | RegExp][] = [
    ['the only one, unnamed', undefined, ['a'], 'a'],
    ['by its name', 'b', ['a', 'b'], 'b'],
    ['of the only lab, by its host name', 'k8s-w1', lab, 'tp-lab-k8s-w1'],
    ['of one lab among several', 'two/k8s-w1', [...lab, 'tp-two-k8s-w1'], 'tp-two-k8s-w1'],
    ['by its full name', 'tp-lab-k8s-ctr', lab, 'tp-lab-k8s-ctr'],
    ['a name that is also a host of a lab', 'k8s-w1', [...lab, 'k8s-w1'], 'k8s-w1'],
    ['none runs', undefined, [], /no node runs here/],
    ['several, unnamed', undefined, lab, /several.*lab\/k8s-ctr, lab\/k8s-w1/],
    ['a host of two labs', 'k8s-w1', [...lab, 'tp-two-k8s-w1'], /more than one.*lab\/k8s-w1, two\/k8s-w1/],
    ['unknown', 'k8s-w9', lab, /no node 'k8s-w9'/],
    ['part of a host name', 'w1', lab, /no node 'w1'/],
    ['a lab without that host', 'two/k8s-w1', lab, /no node 'two\/k8s-w1'/],
  ];
  for (const [what, wanted, nodes, picked] of rows) {
    it(what, () => {
      if (typeof picked === 'string') return assert.equal(pickNode(wanted, nodes), picked);
      assert.throws(
        () => pickNode(wanted, nodes),
        (error: unknown) => error instanceof UsageError && error.exitCode === 2 && picked.test(error.message),
      );
    });
  }
});

describe('nodesOfLab', () => {
  it('picks those of one lab alone', () => {
    const nodes = ['a', 'tp-lab-k8s-w1', 'tp-lab2-k8s-w1', 'tp-two-lab'];
    assert.deepEqual(nodesOfLab('lab', nodes), ['tp-lab-k8s-w1']);
    assert.deepEqual(nodesOfLab(undefined, nodes), nodes);
  });
});
