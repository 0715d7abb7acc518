/** KIND of `tunpath get KIND`: each a list of rows that a running node gives. Apart, so that asking loads nothing else. */
export const KINDS = [
  'routes',
  'services',
  'endpoints',
  'conntrack',
  'nat',
  'masquerade',
  'policies',
  'ports',
  'neighbors',
  'l2-announce',
  'pmtu',
  'counters',
] as const;
