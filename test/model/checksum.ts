/** Lives beside the packet builders, which the program has use for, too. */
export * from '../../datapath/packet/slow-checksum.ts';
