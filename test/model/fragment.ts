/** Fragmentation and reassembly as plain functions over byte arrays, straight from RFC 791. */

/** Header options as they stand in every fragment behind the first: No Operation instead of those that are not copied. */
function laterOptions(options: Uint8Array): number[] {
  const kept: number[] = [];
  for (let i = 0; i < options.length; ) {
    if (options[i] === 0) return [...kept, ...options.slice(i)];
    const length = options[i] === 1 ? 1 : options[i + 1];
    kept.push(...(options[i] >= 128 ? options.slice(i, i + length) : Array<number>(length).fill(1)));
    i += length;
  }
  return kept;
}

function header(packet: Uint8Array, options: number[], payloadLen: number, offset: number, more: boolean): number[] {
  const h = [...packet.slice(0, 20), ...options];
  const total = h.length + payloadLen;
  h[0] = 0x40 + h.length / 4;
  h[2] = total >> 8;
  h[3] = total & 255;
  h[6] = (more ? 0x20 : 0) | (offset / 8 / 256);
  h[7] = (offset / 8) & 255;
  h[10] = 0;
  h[11] = 0;
  let sum = 0;
  for (let i = 0; i < h.length; i += 2) {
    sum += h[i] * 256 + h[i + 1];
    if (sum > 65535) sum -= 65535;
  }
  h[10] = (65535 - sum) >> 8;
  h[11] = (65535 - sum) & 255;
  return h;
}

/** Fragments of `packet`, each at most `mtu` bytes; the packet may be a fragment. */
export function slowFragment(packet: Uint8Array, mtu: number): Uint8Array[] {
  const headerLen = (packet[0] & 15) * 4;
  const payload = packet.slice(headerLen);
  const wasMore = (packet[6] & 0x20) !== 0;
  const base = ((packet[6] & 0x1f) * 256 + packet[7]) * 8;
  const fragments: Uint8Array[] = [];
  let done = 0;
  do {
    const options = done === 0 ? [...packet.slice(20, headerLen)] : laterOptions(packet.slice(20, headerLen));
    const room = mtu - 20 - options.length;
    const left = payload.length - done;
    const n = left <= room ? left : room - (room % 8);
    const last = done + n === payload.length;
    const h = header(packet, options, n, base + done, last ? wasMore : true);
    fragments.push(Uint8Array.from([...h, ...payload.slice(done, done + n)]));
    done += n;
  } while (done < payload.length);
  return fragments;
}

/** The datagram that `fragments` make, in any order; null while bytes are missing. */
export function slowReassemble(fragments: Uint8Array[]): Uint8Array | null {
  const bytes = new Map<number, number>();
  let end = -1;
  let first: Uint8Array | null = null;
  for (const f of fragments) {
    const headerLen = (f[0] & 15) * 4;
    const offset = ((f[6] & 0x1f) * 256 + f[7]) * 8;
    if (offset === 0) first = f;
    for (let i = headerLen; i < f.length; i++) bytes.set(offset + i - headerLen, f[i]);
    if ((f[6] & 0x20) === 0) end = offset + f.length - headerLen;
  }
  if (first === null || end < 0 || bytes.size !== end) return null;
  const options = [...first.slice(20, (first[0] & 15) * 4)];
  const payload = Array.from({ length: end }, (_, i) => bytes.get(i)!);
  return Uint8Array.from([...header(first, options, end, 0, false), ...payload]);
}
