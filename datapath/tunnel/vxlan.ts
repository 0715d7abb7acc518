/** The VXLAN header on receipt (RFC 7348 section 5). On transmission it is two template words (udp-encap.ts). */
import { CONTINUE, DROP_VXLAN_FLAGS } from '../verdict.ts';
import * as vxlan from '../wire/vxlan.ts';

/**
 * Checks the flags of the VXLAN header at `off`.
 * @param dropReserved refuse any reserved bit, as Linux does; the RFC ignores them
 * @returns CONTINUE or DROP_VXLAN_FLAGS
 */
export function checkVxlan(view: DataView, off: number, dropReserved: boolean): number {
  const flags = view.getInt32(off + vxlan.FLAGS);
  if ((flags & vxlan.FLAG_VNI) === 0) return DROP_VXLAN_FLAGS;
  if (dropReserved && (flags !== vxlan.FLAG_VNI || view.getUint8(off + vxlan.HEADER_LEN - 1) !== 0)) {
    return DROP_VXLAN_FLAGS;
  }
  return CONTINUE;
}
