/** Nodes of labs are called `tp-LAB-NODE`: such names without what all have, also in the midst of a text. */
export function shortName(name: string): string {
  return name.replace(/(?<![\w-])tp-[a-z0-9]+-/g, '');
}
