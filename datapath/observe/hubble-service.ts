/**
 * Hubble's Observer service (cilium/hubble, observer.proto) over flows of one node or several: GetFlows, GetNodes and
 * ServerStatus. Any gRPC client of Hubble's API can be its client.
 */
import * as grpc from '@grpc/grpc-js';
import { Directories } from './directory.ts';
import { type Flow, flowOf } from './flow.ts';
import { anyOf, HubbleFilterError } from './hubble-filter.ts';
import {
  type GetFlowsRequest,
  getFlowsRequest,
  getFlowsResponse,
  getNodesRequest,
  getNodesResponse,
  type Message,
  type ProtoTime,
  serverStatusRequest,
  serverStatusResponse,
} from './hubble-proto.ts';
import { flowMessage } from './hubble-text.ts';
import type { WatchedEvent } from './watched.ts';

export interface HubbleNode {
  name: string;
  /** Whether it answers. */
  isThere: boolean;
  address: string;
  uptimeSeconds: number;
  /** Flows that it remembers, how many it would, and how many there have been. */
  remembered: number;
  most: number;
  seen: number;
}

/** Where the flows come from. */
export interface HubbleSource {
  version: string;
  /** Flows and drops from now on, until the signal says so. */
  follow(signal: AbortSignal): AsyncIterable<WatchedEvent[]>;
  /** What is remembered, oldest first. */
  past(): Promise<WatchedEvent[]>;
  nodes(): Promise<HubbleNode[]>;
}

const SERVICE = 'observer.Observer';

/** A gRPC server with the service; nothing listens yet. */
export function hubbleServer(source: HubbleSource): grpc.Server {
  const server = new grpc.Server();
  const method = <Q>(name: string, request: Message<Q>, response: Message<object>, responseStream: boolean) => ({
    path: `/${SERVICE}/${name}`,
    requestStream: false,
    responseStream,
    requestSerialize: (value: object) => request.encode(value),
    requestDeserialize: (bytes: Buffer) => request.decode(bytes),
    responseSerialize: (value: object) => response.encode(value),
    responseDeserialize: (bytes: Buffer) => response.decode(bytes),
  });
  server.addService(
    {
      GetFlows: method('GetFlows', getFlowsRequest, getFlowsResponse, true),
      GetNodes: method('GetNodes', getNodesRequest, getNodesResponse, false),
      ServerStatus: method('ServerStatus', serverStatusRequest, serverStatusResponse, false),
    },
    {
      GetFlows: (call: grpc.ServerWritableStream<GetFlowsRequest, object>) => void getFlows(source, call),
      GetNodes: unary(async () => ({
        nodes: (await source.nodes()).map(node => ({ ...statusOf(node), ...placeOf(node, source.version) })),
      })),
      ServerStatus: unary(async () => {
        const nodes = await source.nodes();
        const gone = nodes.flatMap(({ name, isThere }) => (isThere ? [] : [name]));
        const sum = (of: (node: HubbleNode) => number) => nodes.reduce((total, node) => total + of(node), 0);
        return {
          num_flows: sum(node => node.remembered),
          max_flows: sum(node => node.most),
          seen_flows: sum(node => node.seen),
          uptime_ns: Math.max(0, ...nodes.map(uptimeNs)),
          num_connected_nodes: { value: nodes.length - gone.length },
          num_unavailable_nodes: { value: gone.length },
          unavailable_nodes: gone,
          version: source.version,
        };
      }),
    },
  );
  return server;
}

function statusOf({ remembered, most, seen }: HubbleNode) {
  return { num_flows: remembered, max_flows: most, seen_flows: seen };
}

function placeOf(node: HubbleNode, version: string) {
  const state = node.isThere ? 'NODE_CONNECTED' : 'NODE_UNAVAILABLE';
  return { name: node.name, version, address: node.address, state, uptime_ns: uptimeNs(node) };
}

function uptimeNs({ uptimeSeconds }: HubbleNode): number {
  return Math.round(uptimeSeconds * 1e9);
}

function unary(answer: () => Promise<object>): grpc.handleUnaryCall<object, object> {
  return (_call, callback) => {
    answer().then(
      value => callback(null, value),
      (error: Error) => callback({ code: grpc.status.INTERNAL, details: error.message }),
    );
  };
}

/** Streams to one client, no faster than it reads; what it has missed then is told as lost events. */
async function getFlows(source: HubbleSource, call: grpc.ServerWritableStream<GetFlowsRequest, object>): Promise<void> {
  const stop = new AbortController();
  call.on('cancelled', () => stop.abort());
  call.on('close', () => stop.abort());
  call.on('error', () => stop.abort());
  try {
    const reply = new Reply(call, call.request, stop.signal);
    // Begun first: what happens while the past is read is in it, or comes again.
    const live = call.request.follow === true ? source.follow(stop.signal)[Symbol.asyncIterator]() : null;
    const first = await live?.next();
    await reply.past(source);
    if (live !== null && first !== undefined) await reply.follow(first, live);
    call.end();
  } catch (error) {
    const isRequest = error instanceof HubbleFilterError;
    const code = isRequest ? grpc.status.INVALID_ARGUMENT : grpc.status.INTERNAL;
    call.emit('error', { code, details: (error as Error).message });
  }
}

/** Flows that `number` means where it is absent and nobody follows: all that are remembered. */
const ALL = Number.POSITIVE_INFINITY;

class Reply {
  private readonly call: grpc.ServerWritableStream<GetFlowsRequest, object>;
  private readonly signal: AbortSignal;
  private readonly request: GetFlowsRequest;
  private readonly takes: (flow: Flow) => boolean;
  private readonly directories = new Directories();
  /** Of the records that were sent as past: following may see them again. */
  private lastMs = 0;

  /** @throws HubbleFilterError */
  constructor(call: grpc.ServerWritableStream<GetFlowsRequest, object>, request: GetFlowsRequest, signal: AbortSignal) {
    this.call = call;
    this.request = request;
    this.signal = signal;
    const { whitelist = [], blacklist = [], since, until } = request;
    const [wanted, unwanted] = [anyOf(whitelist), anyOf(blacklist)];
    const [from, to] = [msOf(since) ?? 0, msOf(until) ?? Number.POSITIVE_INFINITY];
    this.takes = flow =>
      flow.timeMs >= from && flow.timeMs <= to && (whitelist.length === 0 || wanted(flow)) && !unwanted(flow);
  }

  /** The last `number` of what is remembered, or the first; all of it with `since`. */
  async past(source: HubbleSource): Promise<void> {
    const { number = 0, first = false, follow = false, since, until } = this.request;
    const flows = this.flowsOf(await source.past());
    const isRange = since !== undefined || until !== undefined;
    const most = number > 0 ? number : follow && !isRange ? 0 : ALL;
    const shown = first ? flows.slice(0, most) : most === 0 ? [] : flows.slice(-most);
    this.lastMs = flows.at(-1)?.timeMs ?? 0;
    for (const flow of shown) await this.send(flowResponse(flow));
  }

  async follow(first: IteratorResult<WatchedEvent[]>, live: AsyncIterator<WatchedEvent[]>): Promise<void> {
    const until = msOf(this.request.until) ?? Number.POSITIVE_INFINITY;
    for (let next = first; next.done !== true; next = await live.next()) {
      if (this.signal.aborted || Date.now() > until) break;
      const events = next.value;
      for (const event of events) {
        if ('lost' in event) {
          const lost = { source: 'HUBBLE_RING_BUFFER', num_events_lost: event.lost };
          await this.send({ lost_events: lost, node_name: event.node, time: timeMessage(Date.now()) });
        }
      }
      for (const flow of this.flowsOf(events)) {
        if (flow.timeMs > this.lastMs) await this.send(flowResponse(flow));
      }
    }
    void live.return?.();
  }

  private flowsOf(events: readonly WatchedEvent[]): Flow[] {
    const flows: Flow[] = [];
    for (const event of events) {
      if ('context' in event) this.directories.update(event.context);
      if (!('record' in event)) continue;
      const flow = flowOf(event.record, this.directories.of(event.node));
      if (flow !== null && this.takes(flow)) flows.push(flow);
    }
    return flows;
  }

  private async send(response: object): Promise<void> {
    if (this.signal.aborted || this.call.write(response)) return;
    await new Promise<void>(resolve => {
      const done = () => {
        this.call.off('drain', done);
        this.signal.removeEventListener('abort', done);
        resolve();
      };
      this.call.on('drain', done);
      this.signal.addEventListener('abort', done);
    });
  }
}

function flowResponse(flow: Flow): object {
  const { time: _time, is_reply, ...fields } = flowMessage(flow);
  const time = timeMessage(flow.timeMs);
  const isReply = is_reply === undefined ? {} : { is_reply: { value: is_reply } };
  return { flow: { ...fields, ...isReply, time }, node_name: flow.nodeName, time };
}

function timeMessage(ms: number): ProtoTime {
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: Math.min(999_999_999, Math.round((ms - seconds * 1000) * 1e6)) };
}

function msOf(time: ProtoTime | undefined): number | undefined {
  return time === undefined ? undefined : (time.seconds ?? 0) * 1000 + (time.nanos ?? 0) / 1e6;
}
