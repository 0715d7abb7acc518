/** RFC 5227: when an own address is asked for, announced and defended, and what is remembered of who else has it. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Random } from '../../datapath/random.ts';
import { AddressClaims } from '../../datapath/route/claims.ts';

const OWN = 0x0a000001;
const VIP = 0x0a000002;

/** Claims whose requests are written down as `TIME probe` or `TIME announce`. */
function claimsAt(random: Random | null = null) {
  const sent: string[] = [];
  const clock = { now: 0 };
  const link = { isUp: true };
  const claims = new AddressClaims(
    random,
    (sender, target) => {
      sent.push(`${clock.now} ${sender === 0 ? 'probe' : 'announce'} ${target === OWN ? 'own' : 'vip'}`);
      assert.ok(sender === 0 || sender === target);
    },
    () => link.isUp,
  );
  claims.add(OWN);
  const pass = (ms: number) => {
    const end = clock.now + ms;
    for (;;) {
      const wait = claims.tick(clock.now);
      if (clock.now + wait > end) break;
      clock.now += wait;
    }
    clock.now = end;
  };
  return { claims, sent, clock, link, pass };
}

describe('claims on own addresses', () => {
  it('says nothing of an address until it is claimed', () => {
    const { claims, sent, pass } = claimsAt();
    pass(60_000);
    assert.deepEqual(sent, []);
    assert.equal(claims.tick(60_000), Number.POSITIVE_INFINITY);
    assert.equal(claims.has(OWN), true);
    assert.equal(claims.has(VIP), false);
  });

  it('asks three times, then announces twice, and is quiet', () => {
    const { claims, sent, clock, pass } = claimsAt();
    claims.claim(OWN, clock.now);
    pass(60_000);
    assert.deepEqual(sent, [
      '0 probe own',
      '1000 probe own',
      '2000 probe own',
      '4000 announce own',
      '6000 announce own',
    ]);
  });

  it('announces once, as soon as the link is up', () => {
    const { claims, sent, clock, link, pass } = claimsAt();
    claims.announce(OWN, clock.now);
    assert.deepEqual(sent.splice(0), ['0 announce own']);
    link.isUp = false;
    claims.announce(OWN, clock.now);
    pass(1000);
    assert.deepEqual(sent, []);
    link.isUp = true;
    pass(60_000);
    assert.equal(sent.length, 1);
  });

  it('waits while the link is down, and loses no probe to it', () => {
    const { claims, sent, clock, link, pass } = claimsAt();
    claims.claim(OWN, clock.now);
    link.isUp = false;
    pass(3000);
    assert.deepEqual(sent, ['0 probe own']);
    link.isUp = true;
    pass(60_000);
    assert.equal(sent.length, 5);
    assert.match(sent[1], /^3[01]00 probe own$/);
  });

  it('waits one to two seconds between probes', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const { claims, sent, clock, pass } = claimsAt(new Random(seed));
      claims.claim(OWN, clock.now);
      pass(60_000);
      const times = sent.map(line => Number(line.split(' ')[0]));
      const gaps = times.slice(1).map((time, i) => time - times[i]);
      assert.equal(gaps.length, 4);
      for (const gap of gaps.slice(0, 2)) assert.ok(gap >= 1000 && gap < 2000, `${gap}`);
      assert.deepEqual(gaps.slice(2), [2000, 2000]);
    }
  });

  it('claims several addresses at once, and none that has been removed', () => {
    const { claims, sent, clock, pass } = claimsAt();
    claims.add(VIP);
    claims.claim(OWN, clock.now);
    claims.claim(VIP, clock.now);
    pass(1500);
    claims.remove(OWN);
    pass(60_000);
    assert.equal(sent.filter(line => line.endsWith('own')).length, 2);
    assert.equal(sent.filter(line => line.endsWith('vip')).length, 5);
    claims.claim(OWN, clock.now);
    assert.equal(sent.filter(line => line.endsWith('own')).length, 2);
  });

  it('defends an own address, once in ten seconds (section 2.4 c)', () => {
    const { claims, sent, clock } = claimsAt();
    for (let second = 0; second < 30; second++) {
      clock.now = second * 1000;
      claims.meet(OWN, 2, 7, clock.now);
    }
    assert.deepEqual(sent, ['0 announce own', '10000 announce own', '20000 announce own']);
    const [row, ...more] = claims.conflicts(clock.now);
    assert.deepEqual(row, { address: OWN, mac: { hi: 2, lo: 7 }, packets: 30, firstMs: 29_000, lastMs: 0 });
    assert.equal(more.length, 0);
    assert.equal(claims.news, 1);
  });

  it('remembers a station with our MAC and another address, and has nothing to defend', () => {
    const { claims, sent, clock } = claimsAt();
    claims.meet(VIP, 2, 1, clock.now);
    assert.deepEqual(sent, []);
    assert.equal(claims.conflicts(0)[0].address, VIP);
  });

  it('forgets a conflict after ten minutes without one, and takes its return for news', () => {
    const { claims } = claimsAt();
    claims.meet(OWN, 2, 7, 0);
    assert.equal(claims.conflicts(600_000).length, 1);
    assert.equal(claims.conflicts(600_001).length, 0);
    claims.meet(OWN, 2, 7, 700_000);
    assert.equal(claims.news, 2);
    assert.deepEqual(claims.conflicts(700_000)[0].packets, 1);
  });

  it('remembers the latest sixteen, as a list does', () => {
    const met = fc.array(fc.record({ mac: fc.nat(30), wait: fc.integer({ min: 1, max: 5 }) }), { maxLength: 200 });
    fc.assert(
      fc.property(met, meetings => {
        const { claims } = claimsAt();
        let list: { lo: number; packets: number; last: number }[] = [];
        let now = 0;
        for (const { mac, wait } of meetings) {
          now += wait;
          claims.meet(OWN, 2, mac, now);
          const known = list.find(({ lo }) => lo === mac);
          list = list.filter(other => other !== known);
          list.push({ lo: mac, packets: (known?.packets ?? 0) + 1, last: now });
          if (list.length > 16) list.shift();
        }
        const byMac = (a: { lo: number }, b: { lo: number }) => a.lo - b.lo;
        const rows = claims
          .conflicts(now)
          .map(({ mac, packets, lastMs }) => ({ lo: mac.lo, packets, last: now - lastMs }));
        assert.deepEqual(rows.sort(byMac), list.sort(byMac));
      }),
    );
  });
});
