/** The reference is made of the schema, and stands in docs/ as it is made. */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { explain, REFERENCE_KINDS, referencePage } from '../../datapath/cli/explain-config.ts';
import { textPathOf } from '../../datapath/control/field-texts.ts';
import { editorSchema, fieldsOf } from '../../datapath/control/reference.ts';

const docs = (name: string) => readFileSync(new URL(`../../../docs/${name}`, import.meta.url), 'utf8');

describe('reference of the configuration', () => {
  it('has a text for every field, and none for a field that is not there', () => {
    for (const kind of REFERENCE_KINDS) {
      const fields = fieldsOf(kind);
      assert.deepEqual(
        fields.filter(({ text }) => text === '').map(({ path }) => path),
        [],
        kind.kind,
      );
      const paths = new Set(fields.map(({ path }) => textPathOf(path)));
      assert.deepEqual(
        Object.keys(kind.texts).filter(path => !paths.has(path)),
        [],
        kind.kind,
      );
    }
  });

  it('stands in docs/ as `npm run docs` makes it', () => {
    // The formatter makes the columns of a table equally wide.
    const plain = (text: string) => text.replace(/ *\| */g, '|').replace(/-{3,}/g, '---');
    assert.equal(plain(docs('configuration.md')), plain(referencePage()), 'run npm run docs');
    assert.deepEqual(
      JSON.parse(docs('configuration.schema.json')),
      JSON.parse(JSON.stringify(editorSchema(REFERENCE_KINDS))),
      'run npm run docs',
    );
  });

  it('explains a field, a list and the whole as kubectl explain does', () => {
    const mtu = explain('spec.mtu', false);
    assert.match(
      mtu,
      /^KIND: {5}NodeConfig\nFIELD: {4}spec\.mtu\nTYPE: {5}map\nDEFAULT: {2}\{ tooBig: signal, clampMss: false \}\n/,
    );
    assert.match(mtu, /^FIELDS:\n {2}tooBig {2}<one of signal, fragment-outer, fragment-inner, larger-underlay>\n/m);
    assert.match(explain('spec.pods', false), /^ {2}address {2}<an IPv4 address such as 10\.244\.1\.10> required$/m);
    assert.match(explain('spec.pods[].address', false), /^DEFAULT: {2}none, it is required$/m);
    assert.match(explain('segment.spec.seed', false), /^KIND: {5}Segment\nFIELD: {4}spec\.seed$/m);
    assert.match(explain('', true), /^ {4}uplink {2}<map> required$/m);
  });

  it('says what was probably meant', () => {
    assert.throws(
      () => explain('spec.mtuu', false),
      /no field 'spec\.mtuu' in NodeConfig \(did you mean spec\.mtu\?\): spec has uplink, host/,
    );
  });
});
