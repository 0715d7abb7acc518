/**
 * nftables through libnftables, the library that nft(8) is a command line for.
 *
 * A process of ours instead of nft's, because a table with `flags owner` (Linux 5.12) belongs to the netlink socket that
 * made it: nobody else can change it, another's `nft flush ruleset` passes it by, and it goes when the socket is closed,
 * so even a killed process leaves nothing behind.
 */
import koffi from 'koffi';

const LIBRARY = 'libnftables.so.1';
/** NFT_CTX_OUTPUT_TERSE: sets that the packets fill are listed without their elements. */
const OUTPUT_TERSE = 1 << 11;

/** undefined where it can be loaded, else what to do about it. */
export function missingNftables(): string | undefined {
  try {
    koffi.load(LIBRARY).unload();
    return undefined;
  } catch {
    return `there is no ${LIBRARY} on this machine (apt-get install nftables)`;
  }
}

/** One conversation with the kernel's nftables, in the network namespace that it was begun in. */
export class Nftables {
  private readonly library = koffi.load(LIBRARY);
  private readonly runBuffer = this.library.func('int nft_run_cmd_from_buffer(void *ctx, const char *text)');
  private readonly output = this.library.func('const char *nft_ctx_get_output_buffer(void *ctx)');
  private readonly error = this.library.func('const char *nft_ctx_get_error_buffer(void *ctx)');
  private readonly free = this.library.func('void nft_ctx_free(void *ctx)');
  private context: unknown;

  constructor() {
    const context: unknown = this.library.func('void *nft_ctx_new(uint32_t flags)')(0);
    if (context === null) throw new Error(`${LIBRARY} cannot be set up`);
    this.library.func('int nft_ctx_buffer_output(void *ctx)')(context);
    this.library.func('int nft_ctx_buffer_error(void *ctx)')(context);
    this.library.func('void nft_ctx_output_set_flags(void *ctx, unsigned int flags)')(context, OUTPUT_TERSE);
    this.context = context;
  }

  /**
   * Runs commands as `nft -f` does: all of them, or none.
   * @returns what they print
   * @throws Error with nft's first complaint
   */
  run(commands: string): string {
    if (this.context === null) throw new Error('nftables: closed');
    const status: number = this.runBuffer(this.context, commands);
    const [complaint] = String(this.error(this.context) ?? '').split('\n');
    const printed = String(this.output(this.context) ?? '');
    if (status !== 0) throw new Error(`nftables: ${complaint || `status ${status}`}`);
    return printed;
  }

  /** Tables that are owned by this conversation go with it. */
  close(): void {
    if (this.context === null) return;
    this.free(this.context);
    this.context = null;
  }
}
