import assert from 'node:assert/strict';
import { fstatSync } from 'node:fs';
import { isJournal, Log, type LogOptions } from '../../datapath/control/log.ts';

const PROBLEM = { file: 'a.yaml', line: 4, column: 7, path: 'spec.uplink', message: 'got nothing, expected a map' };

describe('Log', () => {
  function lines(options: Partial<LogOptions>, say: (log: Log) => void): string[] {
    let written = '';
    const write = (text: string) => {
      written += text;
    };
    say(
      new Log({ format: 'text', level: 'info', node: 'a', journal: false, now: () => new Date(0), write, ...options }),
    );
    return written.split('\n').slice(0, -1);
  }

  it('text: the node, then the message; a problem stands at its place', () => {
    assert.deepEqual(
      lines({}, log => {
        log.info('reloaded', { services: 3 });
        log.problem(PROBLEM);
        log.problem({ ...PROBLEM, path: '' });
        log.ready();
      }),
      [
        'a: reloaded',
        'a.yaml:4:7: spec.uplink: got nothing, expected a map',
        'a.yaml:4:7: got nothing, expected a map',
        'ready',
      ],
    );
  });

  it('JSON: one document for each line', () => {
    const written = lines({ format: 'json' }, log => {
      log.warn('line\nfeed', { services: 3 });
      log.problem(PROBLEM);
      log.ready();
    });
    const { message, ...place } = PROBLEM;
    const common = { time: '1970-01-01T00:00:00.000Z', node: 'a' };
    assert.deepEqual(
      written.map(line => JSON.parse(line)),
      [
        { ...common, level: 'warn', msg: 'line\nfeed', services: 3 },
        { ...common, level: 'error', msg: message, ...place },
        { ...common, level: 'info', msg: 'ready' },
      ],
    );
  });

  it('a level says what is written, but ready as text always is', () => {
    const all = (log: Log) => {
      for (const level of ['debug', 'info', 'warn', 'error'] as const) log[level](level);
      log.ready();
    };
    assert.deepEqual(lines({ level: 'error' }, all), ['a: error', 'ready']);
    assert.deepEqual(lines({ level: 'warn' }, all), ['a: warn', 'a: error', 'ready']);
    assert.deepEqual(lines({ level: 'debug' }, all).length, 5);
    assert.deepEqual(lines({ level: 'error', format: 'json' }, all).length, 1);
  });

  it('in the journal each line of text has its priority', () => {
    const say = (log: Log) => {
      log.error('one\ntwo');
      log.info('three');
      log.ready();
    };
    assert.deepEqual(lines({ journal: true }, say), ['<3>a: one', '<3>two', '<6>a: three', 'ready']);
  });

  it('a stream that was inherited with the variable alone is not the journal', () => {
    const { dev, ino } = fstatSync(2);
    assert.equal(isJournal(2, `${dev}:${ino}`), true);
    assert.equal(isJournal(2, `${dev}:${ino + 1}`), false);
    assert.equal(isJournal(2, ''), false);
  });
});
