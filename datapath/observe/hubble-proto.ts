/**
 * Hubble's Observer API on the wire: messages with Cilium's names and field numbers (api/v1/flow/flow.proto,
 * api/v1/observer/observer.proto, api/v1/relay/relay.proto), as far as this node fills them or looks at them.
 */
import protobuf from 'protobufjs';

const PROTO = `
syntax = "proto3";
package observer;

message Timestamp { int64 seconds = 1; int32 nanos = 2; }
message BoolValue { bool value = 1; }
message UInt32Value { uint32 value = 1; }

enum Verdict { VERDICT_UNKNOWN = 0; FORWARDED = 1; DROPPED = 2; ERROR = 3; AUDIT = 4; REDIRECTED = 5; TRACED = 6; TRANSLATED = 7; }
enum FlowType { UNKNOWN_TYPE = 0; L3_L4 = 1; L7 = 2; SOCK = 3; }
enum IPVersion { IP_NOT_USED = 0; IPv4 = 1; IPv6 = 2; }
enum TrafficDirection { TRAFFIC_DIRECTION_UNKNOWN = 0; INGRESS = 1; EGRESS = 2; }
enum TraceObservationPoint {
  UNKNOWN_POINT = 0; TO_PROXY = 1; TO_HOST = 2; TO_STACK = 3; TO_OVERLAY = 4; FROM_ENDPOINT = 5; FROM_PROXY = 6;
  FROM_HOST = 7; FROM_STACK = 8; FROM_OVERLAY = 9; FROM_NETWORK = 10; TO_NETWORK = 11; TO_ENDPOINT = 101;
}
enum DropReason {
  DROP_REASON_UNKNOWN = 0; INVALID_SOURCE_IP = 132; POLICY_DENIED = 133; INVALID_PACKET_DROPPED = 134;
  CT_TRUNCATED_OR_INVALID_HEADER = 135; FRAGMENTATION_NEEDED = 136; UNSUPPORTED_L3_PROTOCOL = 139; UNROUTABLE = 151;
  CT_MAP_INSERTION_FAILED = 155; SERVICE_BACKEND_NOT_FOUND = 158; NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT = 160;
  SNAT_NO_MAPPING = 167; IS_A_CLUSTERIP = 174; DATAGRAM_FRAGMENT_NOT_FOUND = 175; INVALID_VNI = 183; TTL_EXCEEDED = 196;
}
enum LostEventSource { UNKNOWN_LOST_EVENT_SOURCE = 0; PERF_EVENT_RING_BUFFER = 1; OBSERVER_EVENTS_QUEUE = 2; HUBBLE_RING_BUFFER = 3; }
enum NodeState { UNKNOWN_NODE_STATE = 0; NODE_CONNECTED = 1; NODE_UNAVAILABLE = 2; NODE_GONE = 3; NODE_ERROR = 4; }

message IP { string source = 1; string destination = 2; IPVersion ipVersion = 3; }
message TCPFlags { bool FIN = 1; bool SYN = 2; bool RST = 3; bool PSH = 4; bool ACK = 5; bool URG = 6; bool ECE = 7; bool CWR = 8; bool NS = 9; }
message TCP { uint32 source_port = 1; uint32 destination_port = 2; TCPFlags flags = 3; }
message UDP { uint32 source_port = 1; uint32 destination_port = 2; }
message SCTP { uint32 source_port = 1; uint32 destination_port = 2; }
message ICMPv4 { uint32 type = 1; uint32 code = 2; }
message Layer4 { oneof protocol { TCP TCP = 1; UDP UDP = 2; ICMPv4 ICMPv4 = 3; SCTP SCTP = 5; } }
message Endpoint { uint32 ID = 1; uint32 identity = 2; string namespace = 3; repeated string labels = 4; string pod_name = 5; }
message CiliumEventType { int32 type = 1; int32 sub_type = 2; }
message Service { string name = 1; string namespace = 2; }
message Flow {
  Timestamp time = 1; Verdict verdict = 2; uint32 drop_reason = 3; IP IP = 5; Layer4 l4 = 6; Endpoint source = 8;
  Endpoint destination = 9; FlowType Type = 10; string node_name = 11; bool reply = 16; CiliumEventType event_type = 19;
  Service source_service = 20; Service destination_service = 21; TrafficDirection traffic_direction = 22;
  TraceObservationPoint trace_observation_point = 24; DropReason drop_reason_desc = 25; BoolValue is_reply = 26;
  string Summary = 100000;
}
message LostEvent { LostEventSource source = 1; uint64 num_events_lost = 2; }

message EventTypeFilter { int32 type = 1; bool match_sub_type = 2; int32 sub_type = 3; }
message Other { }
message FlowFilter {
  repeated string source_ip = 1; repeated string source_pod = 2; repeated string destination_ip = 3;
  repeated string destination_pod = 4; repeated Verdict verdict = 5; repeated EventTypeFilter event_type = 6;
  repeated string source_fqdn = 7; repeated string destination_fqdn = 8; repeated string http_status_code = 9;
  repeated string source_label = 10; repeated string destination_label = 11; repeated string protocol = 12;
  repeated string source_port = 13; repeated string destination_port = 14; repeated bool reply = 15;
  repeated string source_service = 16; repeated string destination_service = 17; repeated string dns_query = 18;
  repeated uint32 source_identity = 19; repeated uint32 destination_identity = 20; repeated string http_method = 21;
  repeated string http_path = 22; repeated TCPFlags tcp_flags = 23; repeated string node_name = 24;
  repeated IPVersion ip_version = 25; repeated Other source_workload = 26; repeated Other destination_workload = 27;
  repeated string trace_id = 28; repeated string uuid = 29; repeated TrafficDirection traffic_direction = 30;
  repeated string http_url = 31; repeated Other http_header = 32; repeated DropReason drop_reason_desc = 33;
}
message GetFlowsRequest {
  uint64 number = 1; bool follow = 3; repeated FlowFilter blacklist = 5; repeated FlowFilter whitelist = 6;
  Timestamp since = 7; Timestamp until = 8; bool first = 9;
}
message GetFlowsResponse {
  oneof response_types { Flow flow = 1; LostEvent lost_events = 3; }
  string node_name = 1000; Timestamp time = 1001;
}
message GetNodesRequest { }
message Node {
  string name = 1; string version = 2; string address = 3; NodeState state = 4; uint64 uptime_ns = 6; uint64 num_flows = 7;
  uint64 max_flows = 8; uint64 seen_flows = 9;
}
message GetNodesResponse { repeated Node nodes = 1; }
message ServerStatusRequest { }
message ServerStatusResponse {
  uint64 num_flows = 1; uint64 max_flows = 2; uint64 seen_flows = 3; uint64 uptime_ns = 4;
  UInt32Value num_connected_nodes = 5; UInt32Value num_unavailable_nodes = 6; repeated string unavailable_nodes = 7;
  string version = 8;
}
`;

const { root } = protobuf.parse(PROTO, { keepCase: true });

export interface Message<T> {
  encode(value: object): Buffer;
  decode(bytes: Uint8Array): T;
}

function message<T>(name: string): Message<T> {
  const type = root.lookupType(`observer.${name}`);
  return {
    encode: value => Buffer.from(type.encode(type.fromObject(value)).finish()),
    decode: bytes => type.toObject(type.decode(bytes), { enums: String, longs: Number, arrays: false }) as T,
  };
}

export interface ProtoTime {
  seconds?: number;
  nanos?: number;
}

/** Absent fields are zero. */
export interface FlowFilterMessage {
  source_ip?: string[];
  destination_ip?: string[];
  source_pod?: string[];
  destination_pod?: string[];
  source_label?: string[];
  destination_label?: string[];
  source_service?: string[];
  destination_service?: string[];
  source_port?: string[];
  destination_port?: string[];
  source_identity?: number[];
  destination_identity?: number[];
  verdict?: string[];
  event_type?: { type?: number; match_sub_type?: boolean; sub_type?: number }[];
  protocol?: string[];
  reply?: boolean[];
  tcp_flags?: Record<string, boolean>[];
  node_name?: string[];
  ip_version?: string[];
  traffic_direction?: string[];
  drop_reason_desc?: string[];
}

export interface GetFlowsRequest {
  number?: number;
  follow?: boolean;
  first?: boolean;
  blacklist?: FlowFilterMessage[];
  whitelist?: FlowFilterMessage[];
  since?: ProtoTime;
  until?: ProtoTime;
}

export const getFlowsRequest = message<GetFlowsRequest>('GetFlowsRequest');
export const getFlowsResponse = message<object>('GetFlowsResponse');
export const getNodesRequest = message<object>('GetNodesRequest');
export const getNodesResponse = message<object>('GetNodesResponse');
export const serverStatusRequest = message<object>('ServerStatusRequest');
export const serverStatusResponse = message<object>('ServerStatusResponse');
