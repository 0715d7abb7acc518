import assert from 'node:assert/strict';
import { decode, encode, type RecordType } from 'dns-packet';
import { answerQuery, type Zone } from '../../datapath/lab/dns-server.ts';

const zone: Zone = {
  domain: 'cluster.local',
  records: new Map([['web.default.svc.cluster.local', ['10.96.0.7']]]),
};

function ask(type: RecordType, name: string): string {
  const query = encode({ type: 'query', id: 0x1234, questions: [{ type, name }] });
  const answer = decode(answerQuery(query, zone)!) as ReturnType<typeof decode> & { id: number; rcode: string };
  assert.equal(answer.type, 'response');
  assert.equal(answer.id, 0x1234);
  assert.deepEqual(
    answer.questions!.map(question => [question.type, question.name]),
    [[type, name]],
  );
  const data = answer.answers!.map(record => ('data' in record ? String(record.data) : ''));
  return [answer.rcode, ...data].join(' ');
}

describe('answerQuery', () => {
  const cases: [type: RecordType, name: string, answer: string][] = [
    ['A', 'web.default.svc.cluster.local', 'NOERROR 10.96.0.7'],
    ['A', 'WEB.default.svc.Cluster.Local', 'NOERROR 10.96.0.7'],
    ['AAAA', 'web.default.svc.cluster.local', 'NOERROR'],
    ['PTR', '7.0.96.10.in-addr.arpa', 'NOERROR web.default.svc.cluster.local'],
    ['A', 'nosuch.default.svc.cluster.local', 'NXDOMAIN'],
    ['A', 'notcluster.local', 'REFUSED'],
    ['PTR', '8.0.96.10.in-addr.arpa', 'REFUSED'],
  ];
  for (const [type, name, answer] of cases) {
    it(`${type} ${name}: ${answer}`, () => assert.equal(ask(type, name), answer));
  }

  it('says nothing to what is no query, and to no questions', () => {
    const query = encode({ type: 'query', id: 1, questions: [{ type: 'A', name: 'web.default.svc.cluster.local' }] });
    for (let length = 0; length < query.length; length++) {
      const answer = answerQuery(query.subarray(0, length), zone);
      if (length < 12) assert.equal(answer, null, `${length} bytes`);
    }
    assert.equal(answerQuery(encode({ type: 'response', id: 1, questions: [] }), zone), null);
    assert.equal(answerQuery(encode({ type: 'query', id: 1, questions: [] }), zone), null);
  });
});
