/**
 * rtnetlink messages (RFC 3549, man 7 rtnetlink, include/uapi/linux/rtnetlink.h): building the requests that a node makes and
 * reading the answers. Numbers are in the order of the machine, which is little-endian wherever Node runs on Linux for us.
 * Nothing here trusts a length: what does not fit its message ends the reading of it, and the rest is left out.
 */

export const RTM_NEWLINK = 16;
export const RTM_GETLINK = 18;
export const RTM_GETADDR = 22;
export const RTM_GETROUTE = 26;
export const RTM_NEWADDR = 20;
export const RTM_NEWROUTE = 24;
export const RTM_NEWNSID = 88;
export const RTM_GETNSID = 90;

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

export const NLM_F_REQUEST = 0x01;
export const NLM_F_ACK = 0x04;
export const NLM_F_DUMP = 0x300;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const IFLA_TARGET_NETNSID = 46;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_TARGET_NETNSID = 10;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;

const AF_INET = 2;
const IFF_UP = 0x1;
const IFF_LOWER_UP = 0x10000;
const RT_TABLE_MAIN = 254;
const RTN_UNICAST = 1;

/** Upper bits of an attribute's type are flags: nested, byte order. */
const ATTRIBUTE_TYPE = 0x3fff;

const HEADER = 16;
const ATTRIBUTE = 4;
const IFINFO = 16;
const IFADDR = 8;
const RTMSG = 12;
const RTGEN = 4;

/** A network device, as RTM_NEWLINK describes it. */
export interface Link {
  index: number;
  name: string;
  /** It has been switched on. */
  up: boolean;
  /** There is a carrier, and it is on. */
  running: boolean;
  mtu: number;
  /** In the usual text form; '' for a device without one. */
  mac: string;
  /** Index of the bridge, bond or VRF that it belongs to; 0 for none. */
  master: number;
  /** Index of the device below it, or of a veth's other end, in whichever namespace that is; 0 for none. */
  below: number;
  /** bridge, veth, tun, macvtap...; '' for a NIC. */
  kind: string;
}

export interface LinkAddress {
  /** Of the device. */
  index: number;
  /** int32 */
  address: number;
  length: number;
}

/** A default route of the main table. */
export interface DefaultRoute {
  /** Of the device; 0 where it has several next hops. */
  index: number;
  /** int32; 0 for none. */
  gateway: number;
  metric: number;
}

/** One message of a datagram: where its body begins and ends. */
export interface Message {
  type: number;
  sequence: number;
  /** Port of the socket that it answers; 0 when the kernel speaks by itself. */
  from: number;
  to: number;
}

/** The messages of the first `bytes` bytes of a datagram. A length that cannot be ends them. */
export function* messagesIn(view: DataView, bytes: number): Generator<Message> {
  for (let at = 0; at + HEADER <= bytes; ) {
    const length = view.getUint32(at, true);
    if (length < HEADER || length > bytes - at) return;
    const [type, sequence] = [view.getUint16(at + 4, true), view.getUint32(at + 8, true)];
    yield { type, sequence, from: at + HEADER, to: at + length };
    at += align(length);
  }
}

/** The errno of an NLMSG_ERROR, 0 for an acknowledgement; undefined if it is cut short. */
export function errorOf(view: DataView, { from, to }: Message): number | undefined {
  return to - from < 4 ? undefined : 0 - view.getInt32(from, true);
}

/** @returns undefined for what is no complete RTM_NEWLINK with a name */
export function parseLink(view: DataView, { from, to }: Message): Link | undefined {
  if (to - from < IFINFO) return undefined;
  const flags = view.getUint32(from + 8, true);
  const link: Link = {
    index: view.getInt32(from + 4, true),
    name: '',
    up: (flags & IFF_UP) !== 0,
    running: (flags & IFF_UP) !== 0 && (flags & IFF_LOWER_UP) !== 0,
    mtu: 0,
    mac: '',
    master: 0,
    below: 0,
    kind: '',
  };
  for (const { type, at, end } of attributesIn(view, from + IFINFO, to)) {
    if (type === IFLA_IFNAME) link.name = textIn(view, at, end);
    else if (type === IFLA_MTU) link.mtu = u32(view, at, end);
    else if (type === IFLA_LINK) link.below = u32(view, at, end);
    else if (type === IFLA_MASTER) link.master = u32(view, at, end);
    else if (type === IFLA_ADDRESS && end - at === 6) link.mac = macIn(view, at);
    else if (type === IFLA_LINKINFO) {
      for (const inner of attributesIn(view, at, end)) {
        if (inner.type === IFLA_INFO_KIND) link.kind = textIn(view, inner.at, inner.end);
      }
    }
  }
  return link.name === '' ? undefined : link;
}

/** @returns undefined for what is no complete RTM_NEWADDR of IPv4 */
export function parseLinkAddress(view: DataView, { from, to }: Message): LinkAddress | undefined {
  if (to - from < IFADDR || view.getUint8(from) !== AF_INET) return undefined;
  let own: number | undefined;
  let peer: number | undefined;
  for (const { type, at, end } of attributesIn(view, from + IFADDR, to)) {
    if (end - at !== 4) continue;
    // Where both are there, the other one is the far end's.
    if (type === IFA_LOCAL) own = view.getInt32(at);
    else if (type === IFA_ADDRESS) peer = view.getInt32(at);
  }
  const address = own ?? peer;
  if (address === undefined) return undefined;
  return { index: view.getInt32(from + 4, true), address, length: view.getUint8(from + 1) };
}

/** @returns undefined for what is no default route of the main table */
export function parseDefaultRoute(view: DataView, { from, to }: Message): DefaultRoute | undefined {
  if (to - from < RTMSG || view.getUint8(from) !== AF_INET || view.getUint8(from + 1) !== 0) return undefined;
  if (view.getUint8(from + 4) !== RT_TABLE_MAIN || view.getUint8(from + 7) !== RTN_UNICAST) return undefined;
  const route: DefaultRoute = { index: 0, gateway: 0, metric: 0 };
  for (const { type, at, end } of attributesIn(view, from + RTMSG, to)) {
    if (type === RTA_DST) return undefined;
    if (type === RTA_OIF) route.index = u32(view, at, end);
    else if (type === RTA_PRIORITY) route.metric = u32(view, at, end);
    else if (type === RTA_GATEWAY && end - at === 4) route.gateway = view.getInt32(at);
  }
  return route;
}

/** The device that a route leads to; undefined where there is none. */
export function parseRouteDevice(view: DataView, { from, to }: Message): number | undefined {
  for (const { type, at, end } of attributesIn(view, from + RTMSG, to)) if (type === RTA_OIF) return u32(view, at, end);
  return undefined;
}

/** The id of RTM_GETNSID's answer: -1 if the namespace has none here; undefined if it is cut short. */
export function parseNsid(view: DataView, { from, to }: Message): number | undefined {
  for (const { type, at, end } of attributesIn(view, from + RTGEN, to)) {
    if (type === NETNSA_NSID && end - at === 4) return view.getInt32(at, true);
  }
  return undefined;
}

interface Attribute {
  type: number;
  at: number;
  end: number;
}

function* attributesIn(view: DataView, from: number, to: number): Generator<Attribute> {
  for (let at = from; at + ATTRIBUTE <= to; ) {
    const length = view.getUint16(at, true);
    if (length < ATTRIBUTE || length > to - at) return;
    yield { type: view.getUint16(at + 2, true) & ATTRIBUTE_TYPE, at: at + ATTRIBUTE, end: at + length };
    at += align(length);
  }
}

function align(length: number): number {
  return (length + 3) & ~3;
}

function u32(view: DataView, at: number, end: number): number {
  return end - at < 4 ? 0 : view.getUint32(at, true);
}

function textIn(view: DataView, at: number, end: number): string {
  let text = '';
  for (let i = at; i < end && view.getUint8(i) !== 0; i++) text += String.fromCharCode(view.getUint8(i));
  return text;
}

function macIn(view: DataView, at: number): string {
  return Array.from({ length: 6 }, (_, i) =>
    view
      .getUint8(at + i)
      .toString(16)
      .padStart(2, '0'),
  ).join(':');
}

// ---- Requests

/** A whole message: header, body, attributes. */
function request(
  type: number,
  flags: number,
  sequence: number,
  body: Uint8Array,
  attributes: Uint8Array[],
): Uint8Array {
  const length = HEADER + body.length + attributes.reduce((sum, { length }) => sum + length, 0);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, NLM_F_REQUEST | flags, true);
  view.setUint32(8, sequence, true);
  bytes.set(body, HEADER);
  let at = HEADER + body.length;
  for (const attribute of attributes) {
    bytes.set(attribute, at);
    at += attribute.length;
  }
  return bytes;
}

function attribute(type: number, value: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(align(ATTRIBUTE + value.length));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, ATTRIBUTE + value.length, true);
  view.setUint16(2, type, true);
  bytes.set(value, ATTRIBUTE);
  return bytes;
}

function attributeOfInt(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return attribute(type, bytes);
}

/** @param nsid of the namespace to look in; null: the socket's own */
export function linkRequest(sequence: number, name: string, nsid: number | null): Uint8Array {
  const attributes = [attribute(IFLA_IFNAME, new TextEncoder().encode(`${name}\0`))];
  if (nsid !== null) attributes.push(attributeOfInt(IFLA_TARGET_NETNSID, nsid));
  return request(RTM_GETLINK, 0, sequence, new Uint8Array(IFINFO), attributes);
}

/** Changes of a device. What is absent stays. */
export interface LinkChange {
  mac?: string;
  mtu?: number;
  up?: boolean;
}

export function setLinkRequest(sequence: number, index: number, { mac, mtu, up }: LinkChange): Uint8Array {
  const body = new Uint8Array(IFINFO);
  const view = new DataView(body.buffer);
  view.setInt32(4, index, true);
  if (up !== undefined) {
    view.setUint32(8, up ? IFF_UP : 0, true);
    view.setUint32(12, IFF_UP, true); // the flags that change
  }
  const attributes: Uint8Array[] = [];
  if (mac !== undefined) {
    const bytes = Uint8Array.from(mac.split(':'), part => Number.parseInt(part, 16));
    attributes.push(attribute(IFLA_ADDRESS, bytes));
  }
  if (mtu !== undefined) attributes.push(attributeOfInt(IFLA_MTU, mtu));
  return request(RTM_NEWLINK, NLM_F_ACK, sequence, body, attributes);
}

export function allLinksRequest(sequence: number): Uint8Array {
  return request(RTM_GETLINK, NLM_F_DUMP, sequence, new Uint8Array(IFINFO), []);
}

/** IPv4 addresses of all devices. @param nsid as in linkRequest() */
export function addressesRequest(sequence: number, nsid: number | null): Uint8Array {
  const body = new Uint8Array(IFADDR);
  body[0] = AF_INET;
  const attributes = nsid === null ? [] : [attributeOfInt(IFA_TARGET_NETNSID, nsid)];
  return request(RTM_GETADDR, NLM_F_DUMP, sequence, body, attributes);
}

/** IPv4 routes of the main table. @param index of the device that they lead to; 0: all */
export function routesRequest(sequence: number, index = 0): Uint8Array {
  const body = new Uint8Array(RTMSG);
  body[0] = AF_INET;
  body[4] = RT_TABLE_MAIN;
  return request(RTM_GETROUTE, NLM_F_DUMP, sequence, body, index === 0 ? [] : [attributeOfInt(RTA_OIF, index)]);
}

/** Asks which id a namespace has here. @param fd of the namespace */
export function nsidRequest(sequence: number, fd: number): Uint8Array {
  return request(RTM_GETNSID, 0, sequence, new Uint8Array(RTGEN), [attributeOfInt(NETNSA_FD, fd)]);
}

/** Gives a namespace an id here, which the kernel chooses; its events are then told to sockets that ask for all ids. */
export function newNsidRequest(sequence: number, fd: number): Uint8Array {
  const attributes = [attributeOfInt(NETNSA_NSID, -1), attributeOfInt(NETNSA_FD, fd)];
  return request(RTM_NEWNSID, NLM_F_ACK, sequence, new Uint8Array(RTGEN), attributes);
}
