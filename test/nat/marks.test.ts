/** Packet marks: a pod's port sets them, masquerade rules match them, as flannel's first rule does. */
import assert from 'node:assert/strict';
import { dotted } from '../../datapath/packet/build.ts';
import { udp4 } from '../fixtures/packets.ts';
import { NODE, POD, TestNode } from '../forward-rig.ts';

const OUTSIDE = '203.0.113.5';
const MARKED = '10.244.1.30';

/** Source of the packet that leaves by the uplink for one from `src`. */
function leavesAs(node: TestNode, port: string, src: string): string {
  node.meetNeighbors();
  node.send(port, udp4({ src, dst: OUTSIDE }));
  const packets = node.collect('ul0');
  assert.equal(packets.length, 1);
  const frame = packets[0];
  return dotted(new DataView(frame.buffer, frame.byteOffset).getInt32(14 + 12));
}

describe('packet marks', () => {
  const pods = [{ name: 'p3', netns: 'n3', device: 'eth0', address: MARKED, mark: 0x4001 }];
  const all = { from: ['10.244.0.0/16'] };
  const cases: [what: string, masquerade: object[], marked: string, plain: string][] = [
    ['a rule for the mark returns what has it', [{ mark: '0x4000/0x4000', action: 'RETURN' }, all], MARKED, NODE],
    ['a rule for the mark masquerades what has it alone', [{ ...all, mark: '0x4000/0x4000' }], NODE, POD],
    ['another bit is not meant', [{ mark: '0x2000/0x2000', action: 'RETURN' }, all], NODE, NODE],
    ['the whole mark is compared without a mask', [{ mark: 0x4001, action: 'RETURN' }, all], MARKED, NODE],
    ['no mark at all can be asked for', [{ mark: '0/0xffffffff', action: 'RETURN' }, all], NODE, POD],
  ];
  for (const [what, masquerade, marked, plain] of cases) {
    it(what, () => {
      const node = new TestNode({ pods, masquerade });
      assert.equal(leavesAs(node, 'p3', MARKED), marked);
      assert.equal(leavesAs(node, 'p1', POD), plain);
    });
  }
});
