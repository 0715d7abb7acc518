/**
 * The articles' command lines, typed on a lab: what they print is looked at where the article prints it. test/articles/lines has
 * them, with what we expect. Those of the long article take minutes: typist.ts types them when it is asked to.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { articlesPage, DOCUMENT, linesOf } from './lines.ts';
import { CLUSTERS, commandOf, Typist } from './typist.ts';

const TYPED = CLUSTERS.filter(({ name }) => name !== 'cilium');

describe('the articles, line by line', function () {
  this.timeout(600_000);
  for (const cluster of TYPED) {
    describe(`${cluster.name}: ${cluster.articles.join(', ')}`, () => {
      let typist: Typist;
      before(async () => {
        typist = await Typist.start(cluster);
      });
      after(() => typist?.stop());

      for (const article of cluster.articles) {
        for (const line of linesOf(article)) {
          if (line.differs !== undefined) continue;
          it(`${article}:${line.line} ${commandOf(line)}`, async () => {
            assert.equal(await typist.type(article, line), undefined);
          });
        }
      }
    });
  }

  it('docs/articles.md has all of it (scripts/docs writes it)', () => {
    assert.equal(readFileSync(DOCUMENT, 'utf8'), articlesPage());
  });
});
