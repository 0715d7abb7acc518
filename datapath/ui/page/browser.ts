/// <reference lib="dom" />
/** What the datapath expects of where it runs. Imported before everything else. */
import { z } from 'zod';

// A page from a file shares memory with nobody, and has no SharedArrayBuffer; here nobody needs it to be shared.
const scope = globalThis as { SharedArrayBuffer?: unknown };
scope.SharedArrayBuffer ??= ArrayBuffer;

// The page's content security policy allows no eval, with which zod would try to be faster.
z.config({ jitless: true });
