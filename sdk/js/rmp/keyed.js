/**
 * Keyed BLAKE3 of at most one chunk: what the hello's proof needs, and no more.
 *
 * Knows: the compression function and the blocks of one chunk of 1024 bytes. Does not know: trees of chunks,
 * plain hashing, extendable output (the specification of BLAKE3, sections 2.1 to 2.4).
 */

import { UsageError } from "./errors.js";

export const KEY_BYTES = 32;
export const MAX_INPUT = 1024;

const BLOCK = 64;
const IV = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];
const PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const CHUNK_START = 1;
const CHUNK_END = 2;
const ROOT = 8;
const KEYED_HASH = 16;

/** The 32 bytes of keyed BLAKE3. `key` has 32 bytes, `input` at most 1024; throws UsageError otherwise. */
export function keyedHash(key, input) {
  if (key.length !== KEY_BYTES || input.length > MAX_INPUT) {
    throw new UsageError(`a key of ${key.length} and an input of ${input.length} bytes`, {
      hint: `the key has ${KEY_BYTES} bytes, the input at most ${MAX_INPUT}`,
      code: "hello.keyed",
    });
  }
  let chaining = words(key);
  const blocks = Math.max(1, Math.ceil(input.length / BLOCK));
  for (let block = 0; block < blocks; block++) {
    const bytes = input.subarray(block * BLOCK, (block + 1) * BLOCK);
    const padded = new Uint8Array(BLOCK);
    padded.set(bytes);
    const flags =
      KEYED_HASH | (block === 0 ? CHUNK_START : 0) | (block === blocks - 1 ? CHUNK_END | ROOT : 0);
    chaining = compress(chaining, words(padded), bytes.length, flags);
  }
  const digest = new Uint8Array(32);
  const view = new DataView(digest.buffer);
  chaining.forEach((word, at) => view.setUint32(4 * at, word, true));
  return digest;
}

function words(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 4 }, (_, at) => view.getUint32(4 * at, true));
}

/** The first half of the compression function's output; the chunk counter is always 0 here. */
function compress(chaining, block, length, flags) {
  const state = Uint32Array.of(...chaining, ...IV.slice(0, 4), 0, 0, length, flags);
  let message = block;
  for (let round = 0; round < 7; round++) {
    mix(state, 0, 4, 8, 12, message[0], message[1]);
    mix(state, 1, 5, 9, 13, message[2], message[3]);
    mix(state, 2, 6, 10, 14, message[4], message[5]);
    mix(state, 3, 7, 11, 15, message[6], message[7]);
    mix(state, 0, 5, 10, 15, message[8], message[9]);
    mix(state, 1, 6, 11, 12, message[10], message[11]);
    mix(state, 2, 7, 8, 13, message[12], message[13]);
    mix(state, 3, 4, 9, 14, message[14], message[15]);
    const before = message;
    message = PERMUTATION.map((from) => before[from]);
  }
  return state.slice(0, 8).map((word, at) => word ^ state[at + 8]);
}

function mix(state, a, b, c, d, first, second) {
  state[a] = state[a] + state[b] + first;
  state[d] = rotated(state[d] ^ state[a], 16);
  state[c] = state[c] + state[d];
  state[b] = rotated(state[b] ^ state[c], 12);
  state[a] = state[a] + state[b] + second;
  state[d] = rotated(state[d] ^ state[a], 8);
  state[c] = state[c] + state[d];
  state[b] = rotated(state[b] ^ state[c], 7);
}

function rotated(word, by) {
  return (word >>> by) | (word << (32 - by));
}
