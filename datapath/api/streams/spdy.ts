/**
 * SPDY/3.1 over a connection, the server's end: streams that the client opens, each with headers, data both ways and two
 * ends. `kubectl port-forward` speaks it, and before 1.30 exec and attach, too. Windows of flow control are left out: the
 * clients (moby/spdystream) have none.
 */
import { Duplex } from 'node:stream';
import { createDeflate, createInflate, constants as zlib } from 'node:zlib';

// SPDY/3.1, section 2.6.10.1: what headers are compressed with. Words stand there with their lengths before them.
const WORDS =
  'options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,accept-ranges,' +
  'age,allow,authorization,cache-control,connection,content-base,content-encoding,content-language,' +
  'content-length,content-location,content-md5,content-range,content-type,date,etag,expect,expires,from,host,' +
  'if-match,if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,max-forwards,' +
  'pragma,proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,' +
  'transfer-encoding,upgrade,user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,' +
  'HTTP/1.1,url,public,set-cookie,keep-alive,origin';

const TEXT =
  '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritativ' +
  'e Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 I' +
  'nternal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec' +
  ' 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xm' +
  'l,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=' +
  'iso-8859-1,utf-,*,enq=0.';

const DICTIONARY = Buffer.concat([...WORDS.split(',').map(lengthThenText), Buffer.from(TEXT, 'latin1')]);

const SYN_STREAM = 1;
const SYN_REPLY = 2;
const RST_STREAM = 3;
const PING = 6;
const HEADERS = 8;
const VERSION = 3;
const FLAG_FIN = 1;
const CONTROL = 0x80;
const HEADER_BYTES = 8;
const CANCEL = 5;

/** What a client may send in one frame; spdystream sends 32 KiB at most. */
const MAX_FRAME_BYTES = 1 << 20;
const MAX_STREAMS = 1000;
const MAX_WRITE_BYTES = 1 << 16;

function lengthThenText(text: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(text));
  return Buffer.concat([length, Buffer.from(text, 'latin1')]);
}

export class SpdyStream extends Duplex {
  readonly id: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  private readonly connection: SpdyConnection;
  private localEnd = false;
  private remoteEnd = false;

  constructor(connection: SpdyConnection, id: number, headers: ReadonlyMap<string, string>) {
    super({ allowHalfOpen: true });
    this.connection = connection;
    this.id = id;
    this.headers = headers;
  }

  override _read(): void {
    this.connection.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    let last: Promise<void> = Promise.resolve();
    for (let start = 0; start < chunk.length; start += MAX_WRITE_BYTES) {
      last = this.connection.sendData(this.id, chunk.subarray(start, start + MAX_WRITE_BYTES), false);
    }
    void last.then(() => done());
  }

  override _final(done: (error?: Error | null) => void): void {
    this.localEnd = true;
    void this.connection.sendData(this.id, Buffer.alloc(0), true).then(() => done());
    this.forgetIfEnded();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.localEnd || !this.remoteEnd) this.connection.reset(this.id);
    this.connection.forget(this.id);
    done(error);
  }

  /** Data from the client. @returns false when it should wait */
  receive(data: Buffer): boolean {
    return this.push(data);
  }

  /** The client sends no more. */
  receiveEnd(): void {
    if (this.remoteEnd) return;
    this.remoteEnd = true;
    this.push(null);
    this.forgetIfEnded();
  }

  private forgetIfEnded(): void {
    if (this.localEnd && this.remoteEnd) this.connection.forget(this.id);
  }
}

export class SpdyConnection {
  private readonly socket: Duplex;
  private readonly onStream: (stream: SpdyStream) => void;
  private readonly streams = new Map<number, SpdyStream>();
  private readonly inflate = createInflate({ dictionary: DICTIONARY, finishFlush: zlib.Z_SYNC_FLUSH });
  private readonly deflate = createDeflate({ dictionary: DICTIONARY });
  private inflated: Buffer[] = [];
  private deflated: Buffer[] = [];
  private received: Buffer;
  private busy = false;

  /**
   * @param socket after the upgrade
   * @param head what came with it
   * @param onStream for each stream that the client opens; it has been accepted
   */
  constructor(socket: Duplex, head: Buffer, onStream: (stream: SpdyStream) => void) {
    this.socket = socket;
    this.onStream = onStream;
    this.received = head;
    this.inflate.on('data', chunk => this.inflated.push(chunk));
    this.deflate.on('data', chunk => this.deflated.push(chunk));
    for (const codec of [this.inflate, this.deflate]) codec.on('error', () => socket.destroy());
    socket.on('data', chunk => {
      this.received = this.received.length === 0 ? chunk : Buffer.concat([this.received, chunk]);
      void this.readFrames();
    });
    socket.on('close', () => this.closed());
    void this.readFrames();
  }

  /** Ends when what was written has been sent. */
  end(): void {
    this.socket.end();
  }

  resume(): void {
    this.socket.resume();
  }

  forget(id: number): void {
    this.streams.delete(id);
  }

  reset(id: number): void {
    const body = Buffer.alloc(8);
    body.writeUInt32BE(id, 0);
    body.writeUInt32BE(CANCEL, 4);
    this.write(controlFrame(RST_STREAM, 0, body));
  }

  sendData(id: number, data: Buffer, isLast: boolean): Promise<void> {
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32BE(id & 0x7fffffff, 0);
    header.writeUInt32BE(data.length, 4);
    header[4] = isLast ? FLAG_FIN : 0;
    return this.write(Buffer.concat([header, data]));
  }

  private write(bytes: Buffer): Promise<void> {
    if (this.socket.destroyed || this.socket.writableEnded) return Promise.resolve();
    // Also when it fails: then the connection closes.
    return new Promise(resolve => {
      this.socket.write(bytes, () => resolve());
    });
  }

  private async readFrames(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.received.length >= HEADER_BYTES) {
        const length = this.received.readUIntBE(5, 3);
        if (length > MAX_FRAME_BYTES) throw new Error('a frame is too long');
        if (this.received.length < HEADER_BYTES + length) break;
        const header = this.received.subarray(0, HEADER_BYTES);
        const body = this.received.subarray(HEADER_BYTES, HEADER_BYTES + length);
        this.received = this.received.subarray(HEADER_BYTES + length);
        if ((header[0]! & CONTROL) === 0) this.readData(header, body);
        else await this.readControl(header.readUInt16BE(0) & 0x7fff, header.readUInt16BE(2), header[4]!, body);
      }
    } catch {
      this.socket.destroy();
    }
    this.busy = false;
  }

  private readData(header: Buffer, body: Buffer): void {
    const stream = this.streams.get(header.readUInt32BE(0) & 0x7fffffff);
    if (stream === undefined) return;
    if (body.length > 0 && !stream.receive(body)) this.socket.pause();
    if ((header[4]! & FLAG_FIN) !== 0) stream.receiveEnd();
  }

  private async readControl(version: number, type: number, flags: number, body: Buffer): Promise<void> {
    if (version !== VERSION) throw new Error(`SPDY version ${version}`);
    if (type === SYN_STREAM) {
      const id = body.readUInt32BE(0) & 0x7fffffff;
      const headers = await this.readHeaders(body.subarray(10));
      if (this.streams.size >= MAX_STREAMS || this.streams.has(id)) return this.reset(id);
      const stream = new SpdyStream(this, id, headers);
      this.streams.set(id, stream);
      // Whoever uses the stream hears of its end; nobody has to.
      stream.on('error', () => {});
      await this.accept(id);
      this.onStream(stream);
      if ((flags & FLAG_FIN) !== 0) stream.receiveEnd();
    } else if (type === HEADERS) {
      await this.readHeaders(body.subarray(4));
    } else if (type === RST_STREAM) {
      this.streams.get(body.readUInt32BE(0) & 0x7fffffff)?.destroy();
    } else if (type === PING) {
      await this.write(controlFrame(PING, 0, body));
    }
    // After GOAWAY the streams that are open come to their ends; settings and windows are nothing to us.
  }

  private async accept(id: number): Promise<void> {
    const stream = Buffer.alloc(4);
    stream.writeUInt32BE(id);
    const noHeaders = Buffer.alloc(4);
    this.deflated = [];
    await new Promise<void>(resolve => {
      this.deflate.write(noHeaders);
      this.deflate.flush(zlib.Z_SYNC_FLUSH, () => resolve());
    });
    await this.write(controlFrame(SYN_REPLY, 0, Buffer.concat([stream, ...this.deflated])));
  }

  private async readHeaders(block: Buffer): Promise<Map<string, string>> {
    this.inflated = [];
    await new Promise<void>((resolve, reject) =>
      this.inflate.write(block, error => (error ? reject(error) : resolve())),
    );
    const text = Buffer.concat(this.inflated);
    const headers = new Map<string, string>();
    let at = 4;
    const next = (): string => {
      const length = text.readUInt32BE(at);
      at += 4 + length;
      return text.toString('utf8', at - length, at);
    };
    for (let count = text.readUInt32BE(0); count > 0; count--) headers.set(next().toLowerCase(), next());
    return headers;
  }

  private closed(): void {
    for (const stream of this.streams.values()) stream.destroy();
    this.inflate.close();
    this.deflate.close();
  }
}

function controlFrame(type: number, flags: number, body: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(0x8000 | VERSION, 0);
  header.writeUInt16BE(type, 2);
  header.writeUInt32BE(body.length, 4);
  header[4] = flags;
  return Buffer.concat([header, body]);
}
