/** The errno values that devices answer with (include/uapi/asm-generic/errno.h), here so that no one needs libc for them. */
export const EINTR = 4;
export const EIO = 5;
export const EAGAIN = 11;
export const EBUSY = 16;
export const ENODEV = 19;
export const EINVAL = 22;
/** A ring between two threads has no room. */
export const EXFULL = 54;
export const EBADFD = 77;
export const ENOBUFS = 105;
