import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { combine, type FirewallPacket, judge, parseIptables, parseNft } from '../../datapath/host/firewall.ts';

const fixture = (name: string) => readFileSync(new URL(`../../../test/fixtures/host/${name}`, import.meta.url), 'utf8');

const VXLAN: FirewallPacket = {
  input: 'eth0',
  protocol: 'udp',
  port: 8472,
  source: '192.168.10.2',
  destination: '192.168.10.1',
};

const rules = (...lines: string[]) =>
  ['*filter', ':INPUT DROP [0:0]', ':FORWARD ACCEPT [0:0]', ':EXTRA - [0:0]', ...lines, 'COMMIT'].join('\n');

describe('firewall', () => {
  describe('nft', () => {
    const ruleset = parseNft(JSON.parse(fixture('nft.json')));
    const cases: [string, Partial<FirewallPacket>, string[], string, string?][] = [
      ['no rule for the port, and the policy refuses', {}, ['input'], 'drop', 'inet filter input'],
      ['a port in a set', { port: 53 }, ['input'], 'accept'],
      ['a port in a range', { port: 6081 }, ['input'], 'accept'],
      ['the same from outside the network', { port: 6081, source: '192.168.20.2' }, ['input'], 'drop'],
      ['a jump, by an interface that begins so', { input: 'wg0' }, ['input'], 'accept'],
      ['protocol 4 has no port', { protocol: 'ipip', port: undefined }, ['input'], 'drop'],
      ['protocol 4 where it is named', { protocol: 'ipip', port: undefined, input: 'wg0' }, ['input'], 'accept'],
      ['the mark decides, which is not known', {}, ['forward'], 'unknown', 'inet filter forward'],
      ['ingress of a device that nft does not name', { input: 'lo' }, ['ingress'], 'unknown', 'netdev ing eth'],
    ];
    for (const [what, more, hooks, outcome, chain] of cases) {
      it(what, () => {
        const judgement = judge(ruleset, { ...VXLAN, ...more }, hooks);
        assert.equal(judgement.outcome, outcome);
        if (chain !== undefined) assert.equal(judgement.chain, chain);
      });
    }
  });

  it('nft: a chain of one device says nothing of another', () => {
    const document = JSON.parse(fixture('nft.json'));
    for (const { chain } of document.nftables) if (chain?.family === 'netdev') chain.dev = 'eth1';
    const outcome = (input: string) => judge(parseNft(document), { ...VXLAN, input }, ['ingress']).outcome;
    assert.deepEqual([outcome('eth0'), outcome('eth1')], ['accept', 'drop']);
  });

  describe('iptables', () => {
    const cases: [string, string[], string][] = [
      ['nothing but the policy', [], 'drop'],
      ['the port', ['-A INPUT -p udp -m udp --dport 8472 -j ACCEPT'], 'accept'],
      ['another port', ['-A INPUT -p udp -m udp --dport 8473 -j ACCEPT'], 'drop'],
      ['several ports', ['-A INPUT -p udp -m multiport --dports 53,8000:9000 -j ACCEPT'], 'accept'],
      ['tcp', ['-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT'], 'drop'],
      ['a source', ['-A INPUT -s 192.168.10.0/24 -i eth0 -m comment --comment "from -j DROP" -j ACCEPT'], 'accept'],
      ['not from there', ['-A INPUT ! -s 192.168.10.0/24 -j ACCEPT'], 'drop'],
      ['only what belongs to a flow', ['-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'], 'drop'],
      ['what begins one', ['-A INPUT -m conntrack --ctstate NEW -j ACCEPT'], 'accept'],
      ['a chain', ['-A INPUT -j EXTRA', '-A EXTRA -i eth+ -j ACCEPT'], 'accept'],
      ['a chain that returns', ['-A INPUT -j EXTRA', '-A EXTRA -j RETURN', '-A INPUT -j ACCEPT'], 'accept'],
      ['a limit', ['-A INPUT -p udp -m limit --limit 5/min -j ACCEPT'], 'unknown'],
      ['a mark, and refused first', ['-A INPUT -m mark --mark 0x1 -j ACCEPT', '-A INPUT -j REJECT'], 'unknown'],
      ['logged, then accepted', ['-A INPUT -j LOG --log-prefix "in: "', '-A INPUT -j ACCEPT'], 'accept'],
    ];
    for (const [what, lines, outcome] of cases) {
      it(what, () => assert.equal(judge(parseIptables(rules(...lines)), VXLAN, ['input']).outcome, outcome));
    }
  });

  it('what iptables says itself counts more than its own tables in nft', () => {
    const compat = (chain: string) => ({ family: 'ip', table: 'filter', name: chain, type: 'filter', hook: 'input' });
    const nft = parseNft({
      nftables: [
        { chain: { ...compat('INPUT'), policy: 'drop' } },
        { rule: { family: 'ip', table: 'filter', chain: 'INPUT', expr: [{ xt: null }, { accept: null }] } },
      ],
    });
    assert.equal(judge(nft, VXLAN, ['input']).outcome, 'unknown');
    const iptables = parseIptables(rules('-A INPUT -p udp --dport 8472 -j ACCEPT'));
    assert.equal(judge(combine(nft, iptables), VXLAN, ['input']).outcome, 'accept');
    assert.equal(judge(combine(nft, null), VXLAN, ['input']).outcome, 'unknown');
  });
});
