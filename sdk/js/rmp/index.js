/**
 * RMP v0, Runloop's wire, for programs in JavaScript. Node 18 or later, no dependencies.
 *
 * `connect` is what most programs need; the rest is the codec it stands on, without I/O.
 */

export { Client, Consumer, Subscription, connect } from "./client.js";
export {
  Envelope,
  checkType,
  decodeEnvelope,
  encodeEnvelope,
  encodeMessage,
  openFrame,
  schemaId,
} from "./envelope.js";
export * from "./errors.js";
export {
  DEFAULT_TTL_MS,
  Frame,
  FrameReader,
  HEADER_LEN,
  MAX_BODY,
  decodeFrame,
  encodeFrame,
} from "./frame.js";
export { PROTOCOL, proof } from "./hello.js";
export { keyedHash } from "./keyed.js";
export { Float, MAX_DEPTH, MAX_VALUES, decodeValue, encodeValue } from "./msgpack.js";
export { BUILD, FAMILIES, IDS, THIRD_PARTY, TYPES } from "./registry.js";
export { Seen } from "./seen.js";
export { Session } from "./session.js";
export * as topics from "./topics.js";
