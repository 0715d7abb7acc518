/** The part of etcd's API (etcdserverpb, version 3) that a store needs: ranges, transactions and watches, over gRPC. */
import { Client, type ClientDuplexStream, credentials, type ServiceError } from '@grpc/grpc-js';
import protobuf from 'protobufjs';

/** Names and numbers of api/etcdserverpb/rpc.proto and api/mvccpb/kv.proto. */
const PROTO = `
syntax = "proto3";
package etcd;
message ResponseHeader { int64 revision = 3; }
message KeyValue { bytes key = 1; int64 mod_revision = 3; bytes value = 5; }
message RangeRequest { bytes key = 1; bytes range_end = 2; int64 limit = 3; int64 revision = 4; }
message RangeResponse { ResponseHeader header = 1; repeated KeyValue kvs = 2; bool more = 3; }
message PutRequest { bytes key = 1; bytes value = 2; }
message DeleteRangeRequest { bytes key = 1; bytes range_end = 2; }
message DeleteRangeResponse { ResponseHeader header = 1; }
message Compare { int32 result = 1; int32 target = 2; bytes key = 3; oneof target_union { int64 mod_revision = 6; } }
message RequestOp { oneof request { PutRequest request_put = 2; DeleteRangeRequest request_delete_range = 3; } }
message TxnRequest { repeated Compare compare = 1; repeated RequestOp success = 2; }
message TxnResponse { ResponseHeader header = 1; bool succeeded = 2; }
message WatchCreateRequest { bytes key = 1; bytes range_end = 2; int64 start_revision = 3; }
message WatchRequest { oneof request_union { WatchCreateRequest create_request = 1; } }
message Event { int32 type = 1; KeyValue kv = 2; }
message WatchResponse {
  ResponseHeader header = 1; bool canceled = 4; int64 compact_revision = 5; string cancel_reason = 6; repeated Event events = 11;
}
`;

const MOD_REVISION = 2;
const DELETE = 1;
const DEADLINE_MS = 5000;

export interface EtcdRow {
  key: string;
  /** Revision of the last write of the key. */
  revision: number;
  value: string;
}

export interface EtcdChange {
  key: string;
  revision: number;
  /** null: removed */
  value: string | null;
}

const root = protobuf.parse(PROTO, { keepCase: true }).root;

function codec(name: string): { encode: (value: object) => Buffer; decode: (bytes: Buffer) => Received } {
  const type = root.lookupType(`etcd.${name}`);
  return {
    encode: value => Buffer.from(type.encode(type.fromObject(value)).finish()),
    decode: bytes => type.toObject(type.decode(bytes), { longs: Number, arrays: true, defaults: true }) as Received,
  };
}

interface Received {
  header: { revision: number } | null;
  kvs: { key: Buffer; mod_revision: number; value: Buffer }[];
  more: boolean;
  succeeded: boolean;
  canceled: boolean;
  compact_revision: number;
  cancel_reason: string;
  events: { type: number; kv: { key: Buffer; mod_revision: number; value: Buffer } }[];
}

const CODECS = {
  RangeRequest: codec('RangeRequest'),
  RangeResponse: codec('RangeResponse'),
  DeleteRangeRequest: codec('DeleteRangeRequest'),
  DeleteRangeResponse: codec('DeleteRangeResponse'),
  TxnRequest: codec('TxnRequest'),
  TxnResponse: codec('TxnResponse'),
  WatchRequest: codec('WatchRequest'),
  WatchResponse: codec('WatchResponse'),
};

export class EtcdClient {
  private readonly client: Client;

  /** @param address HOST:PORT */
  constructor(address: string) {
    this.client = new Client(address, credentials.createInsecure(), {
      // Of one response: a page of large objects.
      'grpc.max_receive_message_length': -1,
      'grpc.keepalive_time_ms': 10_000,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000,
    });
  }

  /** One key, as it is for everybody. */
  async get(key: string): Promise<EtcdRow | undefined> {
    const { kvs } = await this.call('KV/Range', 'RangeRequest', 'RangeResponse', { key: Buffer.from(key) });
    return kvs.map(rowOf)[0];
  }

  /** All keys that begin with a text, page by page, as they were at one revision. */
  async *pages(prefix: string, revision: number): AsyncGenerator<EtcdRow[]> {
    const rangeEnd = endOf(prefix);
    for (let from = prefix; ; ) {
      const { kvs, more } = await this.call('KV/Range', 'RangeRequest', 'RangeResponse', {
        key: Buffer.from(from),
        range_end: rangeEnd,
        limit: 1000,
        revision,
      });
      const rows = kvs.map(rowOf);
      yield rows;
      if (!more || rows.length === 0) return;
      from = `${rows.at(-1)!.key}\0`;
    }
  }

  /** Removes all keys that begin with a text. */
  async removeAll(prefix: string): Promise<void> {
    await this.call('KV/DeleteRange', 'DeleteRangeRequest', 'DeleteRangeResponse', {
      key: Buffer.from(prefix),
      range_end: endOf(prefix),
    });
  }

  /** The newest revision of the whole of etcd. */
  async revision(): Promise<number> {
    const { header } = await this.call('KV/Range', 'RangeRequest', 'RangeResponse', { key: Buffer.from('\0') });
    return header?.revision ?? 0;
  }

  /**
   * Writes, or with null removes, a key, and writes another one, if the first is at a revision; 0: if there is none.
   * @returns the revision, or undefined where it is at another
   */
  async write(key: string, value: string | null, expected: number, also: string): Promise<number | undefined> {
    const bytes = Buffer.from(key);
    const { header, succeeded } = await this.call('KV/Txn', 'TxnRequest', 'TxnResponse', {
      compare: [{ result: 0, target: MOD_REVISION, key: bytes, mod_revision: expected }],
      success: [
        value === null
          ? { request_delete_range: { key: bytes } }
          : { request_put: { key: bytes, value: Buffer.from(value) } },
        { request_put: { key: Buffer.from(also), value: Buffer.alloc(0) } },
      ],
    });
    return succeeded ? header!.revision : undefined;
  }

  /**
   * Changes of keys that begin with a text, in the order of revisions.
   * @param ended called once; `compacted` where the history does not reach back to where the watch was to begin
   * @returns what ends it
   */
  watch(
    prefix: string,
    fromRevision: number,
    changed: (changes: EtcdChange[]) => void,
    ended: (why: { compacted: boolean }) => void,
  ): () => void {
    const { WatchRequest, WatchResponse } = CODECS;
    const stream = this.client.makeBidiStreamRequest(
      '/etcdserverpb.Watch/Watch',
      WatchRequest.encode,
      WatchResponse.decode,
    ) as ClientDuplexStream<object, Received>;
    let isOver = false;
    const end = (compacted: boolean): void => {
      if (isOver) return;
      isOver = true;
      stream.cancel();
      ended({ compacted });
    };
    stream.on('data', ({ canceled, compact_revision, events }: Received) => {
      if (isOver) return;
      if (events.length > 0) {
        changed(events.map(({ type, kv }) => ({ ...rowOf(kv), ...(type === DELETE ? { value: null } : {}) })));
      }
      if (canceled) end(compact_revision > 0);
    });
    stream.on('error', () => end(false));
    stream.on('end', () => end(false));
    stream.write({
      create_request: { key: Buffer.from(prefix), range_end: endOf(prefix), start_revision: fromRevision },
    });
    return () => {
      isOver = true;
      stream.cancel();
    };
  }

  close(): void {
    this.client.close();
  }

  private call(
    method: string,
    request: keyof typeof CODECS,
    response: keyof typeof CODECS,
    message: object,
  ): Promise<Received> {
    return new Promise((resolve, reject) => {
      this.client.makeUnaryRequest(
        `/etcdserverpb.${method}`,
        CODECS[request].encode,
        CODECS[response].decode,
        message,
        { deadline: Date.now() + DEADLINE_MS },
        (error: ServiceError | null, value?: Received) => {
          if (error === null) resolve(value!);
          else reject(new Error(`etcd: ${error.details || error.message}`));
        },
      );
    });
  }
}

function rowOf({ key, mod_revision, value }: Received['kvs'][number]): EtcdRow {
  return { key: key.toString(), revision: mod_revision, value: value.toString() };
}

/** The first key behind all that begin with a text. */
function endOf(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  end[end.length - 1]!++;
  return end;
}
