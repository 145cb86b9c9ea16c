/**
 * The hello: who speaks, which build, and the proof of the operator credential.
 *
 * The server speaks first (schema 101, with a fresh nonce), the client answers (schema 100), the server
 * closes with 2002 `{id: "hello"}`. The proof binds the credential to this very session; the credential never
 * travels.
 */

import { UsageError } from "./errors.js";
import { keyedHash } from "./keyed.js";

export const PROTOCOL = 0;
export const NONCE_BYTES = 32;
export const CREDENTIAL_BYTES = 32;
export const HELLO_ID = "hello";

const CONTEXT = Buffer.from("runloop operator hello v0");

/** Keyed BLAKE3 over the context and the server's nonce. */
export function proof(credential, nonce) {
  if (!(credential instanceof Uint8Array) || credential.length !== CREDENTIAL_BYTES) {
    throw new UsageError(`the operator credential has ${credential?.length} bytes, not ${CREDENTIAL_BYTES}`, {
      hint: "read them from keys/operator.key in Runloop's home",
      code: "hello.credential",
    });
  }
  return keyedHash(credential, Buffer.concat([CONTEXT, nonce]));
}
