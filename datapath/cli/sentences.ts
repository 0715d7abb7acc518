/** Errors of the system and of libraries as sentences that say what to do. The one place where that is done. */

/** Commands that we run, and the Debian packages that have them. */
const PACKAGES: Record<string, string> = {
  ip: 'iproute2',
  bridge: 'iproute2',
  ping: 'iputils-ping',
  tracepath: 'iputils-tracepath',
  arping: 'iputils-arping',
  tcpdump: 'tcpdump',
  tshark: 'tshark',
  iperf3: 'iperf3',
  curl: 'curl',
  dig: 'bind9-dnsutils',
  ethtool: 'ethtool',
  nft: 'nftables',
  conntrack: 'conntrack',
};

/** What an errno means to who runs a command, and what helps. */
const ERRNOS: Record<string, string> = {
  EACCES: 'permission denied: run this as root, or as the user whose it is',
  EPERM: 'not permitted: run this as root',
  ENOENT: 'no such file or directory',
  ENOTDIR: 'a part of the path is no directory',
  EISDIR: 'that is a directory, expected a file',
  EEXIST: 'it is there already',
  ENOSPC: 'no space left on device: free some, or name another place',
  EROFS: 'the file system is read-only: name another place',
  EDQUOT: 'the quota of the file system is used up',
  EMFILE: 'too many open files: raise the limit (ulimit -n 4096)',
  ENFILE: 'the system has too many open files (sysctl fs.file-max)',
  ENOMEM: 'not enough memory',
  EAGAIN: 'no more processes or memory may be had: raise the limit (ulimit -u)',
  EADDRINUSE: 'the address is in use by another process (ss -lntup)',
  EADDRNOTAVAIL: 'this host has no such address',
  ECONNREFUSED: 'nobody listens there',
  ECONNRESET: 'the other end hung up',
  EPIPE: 'the other end hung up',
  ETIMEDOUT: 'no answer came in time',
  EHOSTUNREACH: 'the host cannot be reached: ip route get shows the route',
  ENETUNREACH: 'there is no route to that network: ip route get shows the route',
  EBUSY: 'the device is in use by another process (ip -details link show)',
  ENODEV: 'there is no such device: ip link shows which there are',
  ENXIO: 'there is no such device: load the module tun, or give /dev/net/tun to this container',
  EINVAL: 'the kernel takes no such value',
  EOPNOTSUPP: 'the kernel does not support that',
  EXDEV: 'that lies on another file system',
  ELOOP: 'too many symbolic links lead there',
  ENAMETOOLONG: 'the name is too long',
  ENOTEMPTY: 'the directory is not empty',
  ESRCH: 'there is no such process any more',
};

interface SystemError {
  code?: string;
  syscall?: string;
  path?: string;
  address?: string;
  port?: number;
  message?: string;
  /** Of execa. */
  command?: string;
  shortMessage?: string;
  stderr?: unknown;
}

/** The meaning of an errno in words; undefined for one that is not known here. */
export function describeErrno(code: string | undefined): string | undefined {
  return code === undefined ? undefined : ERRNOS[code];
}

/** What went wrong, in one line, with what helps; null if it is a fault of the program and no system's. */
export function sentenceOf(error: unknown): string | null {
  if (typeof error !== 'object' || error === null) return null;
  const { code, syscall, path, address, port, command, shortMessage, message = '', stderr } = error as SystemError;
  const spawned = /^spawn (\S+)$/.exec(syscall ?? '')?.[1];
  if (code === 'ENOENT' && (spawned !== undefined || command !== undefined)) {
    return describeMissing(spawned ?? (command as string).split(' ')[0]);
  }
  if (command !== undefined && shortMessage !== undefined) {
    const said = typeof stderr === 'string' ? stderr.trim().split('\n').at(-1) : undefined;
    return `${command.split(' ').slice(0, 6).join(' ')} failed${said === undefined || said === '' ? '' : `: ${said}`}`;
  }
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') {
    const what = /'([^']+)'/.exec(message)?.[1] ?? 'a part of tunpath';
    return `${what} is not installed: npm ci in the checkout, or install tunpath again`;
  }
  if (code === 'ERR_DLOPEN_FAILED')
    return `a library cannot be loaded: npm ci in the checkout, or install tunpath again`;
  const meaning = describeErrno(code);
  if (meaning === undefined || syscall === undefined) return null;
  const what = path ?? (address === undefined ? undefined : `${address}${port === undefined ? '' : `:${port}`}`);
  return what === undefined ? `${syscall}: ${meaning}` : `${what}: ${meaning}`;
}

function describeMissing(command: string): string {
  const name = command.split('/').at(-1) as string;
  const packaged = PACKAGES[name];
  return `the command ${name} is not there${packaged === undefined ? '' : `: apt-get install ${packaged}`}`;
}
