/**
 * The frame on the byte stream: `u32 length · 64-byte header · body`, big-endian.
 *
 * Knows: where a frame starts and ends, which header is legal, how each refusal is called. Does not know:
 * what is in the body (`envelope.js`), what time it is, sockets.
 *
 * Checks happen as early as their bytes are there, in this order, as in every implementation: length prefix
 * below 64 (TruncatedHeader) or above the cap (BodyTooLarge), magic, version, header length, flags and
 * reserved fields, body length, schema 0, ttl 0, expiry beyond u64.
 */

import {
  BodyTooLarge,
  Expired,
  Incomplete,
  InvalidExpiry,
  InvalidHeaderFlags,
  InvalidMagic,
  InvalidTtl,
  LengthMismatch,
  TruncatedHeader,
  UnknownSchema,
  UnsupportedVersion,
  UsageError,
} from "./errors.js";

export const HEADER_LEN = 64;
/** Largest body by default, in bytes. */
export const MAX_BODY = 8 * 1024 * 1024;
export const DEFAULT_TTL_MS = 30_000;

const PREFIX_LEN = 4;
const WHOLE = PREFIX_LEN + HEADER_LEN;
const MAGIC = 0x524d5030;
const NOTHING = new Uint8Array(0);
const U64 = 2n ** 64n - 1n;
const U128 = 2n ** 128n - 1n;

/** One frame, header checked, body not looked at. The four numbers are bigints; `body` is a view. */
export class Frame {
  constructor(schemaId, createdAtMs, ttlMs, traceId, msgId, body) {
    this.schemaId = schemaId;
    this.createdAtMs = createdAtMs;
    this.ttlMs = ttlMs;
    this.traceId = traceId;
    this.msgId = msgId;
    this.body = body;
  }

  /** Unix milliseconds; the frame is dead when `now >= expiresAtMs`. */
  get expiresAtMs() {
    return this.createdAtMs + this.ttlMs;
  }

  /** Throws Expired when the time to live is over. */
  checkExpiry(nowMs) {
    if (BigInt(nowMs) >= this.expiresAtMs) {
      throw new Expired(`the frame expired at ${this.expiresAtMs}, it is ${nowMs}`, {
        hint: "send it again, as a new frame",
      });
    }
  }
}

/** The bytes of one frame, length prefix included; refuses what a reader would refuse. */
export function encodeFrame({
  schemaId,
  body,
  createdAtMs,
  msgId,
  traceId = 0n,
  ttlMs = DEFAULT_TTL_MS,
  maxBody = MAX_BODY,
}) {
  if (body.length > maxBody) throw tooLarge(body.length, maxBody);
  if (!Number.isInteger(schemaId) || schemaId < 1 || schemaId > 0xffff) {
    throw new UnknownSchema(`schema id ${schemaId} is not in 1..65535`);
  }
  const created = whole(createdAtMs, "createdAtMs", U64);
  const ttl = whole(ttlMs, "ttlMs", U64);
  const trace = whole(traceId, "traceId", U128);
  const message = whole(msgId, "msgId", U64);
  checkTimes(created, ttl);
  const bytes = new Uint8Array(WHOLE + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, HEADER_LEN + body.length);
  view.setUint32(4, MAGIC);
  view.setUint16(10, HEADER_LEN);
  view.setUint16(16, schemaId);
  view.setUint32(20, body.length);
  view.setBigUint64(24, created);
  view.setBigUint64(32, ttl);
  view.setBigUint64(40, trace >> 64n);
  view.setBigUint64(48, trace & U64);
  view.setBigUint64(56, message);
  bytes.set(body, WHOLE);
  return bytes;
}

/** Read exactly one frame; throws the named error, Incomplete when bytes are missing. */
export function decodeFrame(data, { maxBody = MAX_BODY } = {}) {
  const reader = new FrameReader({ maxBody });
  const frames = reader.feed(data);
  if (reader.error !== null) throw reader.error;
  if (frames.length === 0) {
    throw new Incomplete(`${data.length} bytes, at least ${reader.missing} more needed`, {
      data: { missing: reader.missing },
    });
  }
  if (frames.length > 1 || reader.pending > 0) {
    throw new LengthMismatch(`${data.length} bytes hold more than one frame`);
  }
  return frames[0];
}

/**
 * Cuts a byte stream into frames. No I/O, no clock; one instance per connection and direction.
 *
 * When legal frames precede a broken one in the same bytes, they are returned and the refusal waits in
 * `error`; the next `feed` throws it. What a peer sends is judged alike however the stream happens to be cut.
 */
export class FrameReader {
  #maxFrame;
  /**
   * The begin of a frame that is not complete, in a buffer that grows as bytes arrive, not as they are
   * promised.
   */
  #held = NOTHING;
  #heldBytes = 0;
  #need = PREFIX_LEN;
  #error = null;

  constructor({ maxBody = MAX_BODY } = {}) {
    this.#maxFrame = HEADER_LEN + maxBody;
  }

  /** The refusal that ended this stream, or null. */
  get error() {
    return this.#error;
  }

  /** Bytes held of a frame that is not complete. */
  get pending() {
    return this.#heldBytes;
  }

  /** How many more bytes are known to be needed before anything can be returned. */
  get missing() {
    return this.#need - this.#heldBytes;
  }

  /**

   * The frames that `data` (a Uint8Array) completes, oldest first; throws the named error of a broken one.

   */
  feed(data) {
    if (this.#error !== null) throw this.#error;
    const bytes = this.#joined(data);
    if (bytes === null) return [];
    const frames = [];
    let at = 0;
    try {
      at = this.#cut(bytes, frames);
    } catch (error) {
      this.#error = error;
      if (frames.length === 0) throw error;
      return frames;
    }
    this.#hold(bytes.subarray(at));
    return frames;
  }

  /** Tell that the stream ended; throws TruncatedHeader or Incomplete inside a frame. */
  close() {
    if (this.#error !== null || this.#heldBytes === 0) return;
    if (this.#heldBytes < WHOLE) {
      throw new TruncatedHeader(`the stream ended ${this.#heldBytes} bytes into a frame's header`);
    }
    throw new Incomplete(`the stream ended ${this.missing} bytes before its last frame`, {
      data: { missing: this.missing },
    });
  }

  /** Keep a copy. */
  #hold(data) {
    const needed = this.#heldBytes + data.length;
    if (needed > this.#held.length) {
      const larger = new Uint8Array(Math.max(needed, 2 * this.#held.length));
      larger.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = larger;
    }
    this.#held.set(data, this.#heldBytes);
    this.#heldBytes = needed;
  }

  /** Everything there is to look at, or null while it cannot complete anything. */
  #joined(data) {
    if (this.#heldBytes === 0) return data;
    this.#hold(data);
    if (this.#heldBytes < this.#need) return null;
    const bytes = this.#held.subarray(0, this.#heldBytes);
    this.#held = NOTHING; // not written to again: frames are views of it
    this.#heldBytes = 0;
    return bytes;
  }

  /** Append complete frames; returns where the first incomplete one begins and notes what it needs. */
  #cut(bytes, frames) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    for (;;) {
      const there = bytes.length - at;
      if (there < PREFIX_LEN) {
        this.#need = PREFIX_LEN;
        return at;
      }
      const frameLen = view.getUint32(at);
      checkLength(frameLen, this.#maxFrame);
      if (there < WHOLE) {
        this.#need = WHOLE; // the header is judged before its body is waited for
        return at;
      }
      checkHeader(view, at, frameLen);
      const end = at + PREFIX_LEN + frameLen;
      if (end > bytes.length) {
        this.#need = end - at;
        return at;
      }
      frames.push(
        new Frame(
          view.getUint16(at + 16),
          view.getBigUint64(at + 24),
          view.getBigUint64(at + 32),
          (view.getBigUint64(at + 40) << 64n) | view.getBigUint64(at + 48),
          view.getBigUint64(at + 56),
          bytes.subarray(at + WHOLE, end),
        ),
      );
      at = end;
    }
  }
}

function checkLength(frameLen, maxFrame) {
  if (frameLen < HEADER_LEN) {
    throw new TruncatedHeader(`the length prefix says ${frameLen}, a header alone has ${HEADER_LEN} bytes`);
  }
  if (frameLen > maxFrame) throw tooLarge(frameLen - HEADER_LEN, maxFrame - HEADER_LEN);
}

function checkHeader(view, at, frameLen) {
  const magic = view.getUint32(at + 4);
  if (magic !== MAGIC) {
    const shown = magic.toString(16).padStart(8, "0");
    throw new InvalidMagic(`the header begins with ${shown}, not with 'RMP0'`, {
      hint: "is this Runloop's socket?",
    });
  }
  const version = view.getUint16(at + 8);
  if (version !== 0) {
    throw new UnsupportedVersion(`header version ${version}, this build knows 0`, {
      hint: "upgrade the older side",
    });
  }
  const headerLen = view.getUint16(at + 10);
  if (headerLen !== HEADER_LEN) {
    throw new LengthMismatch(`the header says it has ${headerLen} bytes, version 0 has ${HEADER_LEN}`);
  }
  if (view.getUint32(at + 12) !== 0 || view.getUint16(at + 18) !== 0 || view.getUint32(at + 64) !== 0) {
    throw new InvalidHeaderFlags("flags and reserved fields must be 0");
  }
  const bodyLen = view.getUint32(at + 20);
  if (bodyLen !== frameLen - HEADER_LEN) {
    throw new LengthMismatch(`body_len says ${bodyLen}, the length prefix ${frameLen - HEADER_LEN}`);
  }
  if (view.getUint16(at + 16) === 0) throw new UnknownSchema("schema id 0 is never valid");
  checkTimes(view.getBigUint64(at + 24), view.getBigUint64(at + 32));
}

function checkTimes(created, ttl) {
  if (ttl === 0n) {
    throw new InvalidTtl("a time to live of 0", { hint: `the default is ${DEFAULT_TTL_MS} ms` });
  }
  if (created + ttl > U64) {
    throw new InvalidExpiry(`createdAtMs ${created} + ttlMs ${ttl} does not fit in 64 bits`);
  }
}

function tooLarge(bodyLen, maxBody) {
  return new BodyTooLarge(`a body of ${bodyLen} bytes, at most ${maxBody} are allowed`, {
    hint: "put large content into an artifact and send its digest",
  });
}

/** A number or bigint as an unsigned bigint of a header field. */
function whole(value, what, most) {
  if (typeof value === "bigint" || Number.isSafeInteger(value)) {
    const number = BigInt(value);
    if (number >= 0n && number <= most) return number;
  }
  throw new UsageError(`${what} is out of range: ${String(value)}`, { code: "wire.header_field" });
}
