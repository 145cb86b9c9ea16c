/**
 * The body of a frame: a MessagePack map `type`, `payload`, optional `meta`, in this order.
 *
 * Knows: legal bodies, the typed keys of `meta`, types against schema ids. Does not know: what a payload
 * means, where a topic leads.
 */

import { BodyTypeMismatch, UnknownSchema, isRecord } from "./errors.js";
import { DEFAULT_TTL_MS, encodeFrame } from "./frame.js";
import { Float, Reader, encodeValue, refusal, simplified } from "./msgpack.js";
import { FAMILIES, IDS, THIRD_PARTY, TYPES } from "./registry.js";

/** Characters of a text in `meta`. */
export const MAX_META_TEXT = 1024;

const TEXTS = new Set(["topic", "reply_to", "conversation", "correlation", "performative", "traceparent"]);
const TYPE = /^([a-z]+)(?:\.[a-z][a-z0-9_]*)+\.v[1-9][0-9]*$/;

/** A decoded body. Unknown keys of `meta` are kept. */
export class Envelope {
  constructor(type, payload, meta) {
    this.type = type;
    this.payload = payload;
    this.meta = meta;
  }

  /** Where the envelope is published to; null on traffic of the session itself. */
  get topic() {
    return (this.meta instanceof Map ? this.meta.get("topic") : own(this.meta, "topic")) ?? null;
  }
}

/** The body's bytes; throws BodyDecodeError for what no reader would accept. */
export function encodeEnvelope(type, payload, meta = null) {
  if (typeof type !== "string") throw refusal("type is not a text");
  const body = new Map([
    ["type", type],
    ["payload", payload],
  ]);
  const pairs = meta instanceof Map ? [...meta] : Object.entries(meta ?? {});
  const kept = pairs.filter(([, value]) => value !== undefined);
  if (kept.length > 0) {
    checkMeta(kept);
    body.set("meta", new Map(kept));
  }
  return encodeValue(body);
}

/**
 * Read a body; throws BodyDecodeError unless it is exactly what the protocol describes. `exact` keeps the
 * order of every map and what is a float (see `msgpack.js`).
 */
export function decodeEnvelope(body, { exact = false } = {}) {
  const reader = new Reader(body);
  const pairs = reader.map();
  if (pairs !== 2 && pairs !== 3) throw refusal("the body is not a map of type, payload and perhaps meta");
  expect(reader, "type");
  const type = reader.value(1, false);
  if (typeof type !== "string") throw refusal("type is not a text");
  expect(reader, "payload");
  const payload = reader.value(1, exact);
  let meta = new Map();
  if (pairs === 3) {
    expect(reader, "meta");
    meta = reader.value(1, true);
    if (!(meta instanceof Map)) throw refusal("meta is not a map");
  }
  reader.end();
  checkMeta(meta);
  return new Envelope(type, payload, exact ? meta : simplified(meta));
}

/** Decode a frame's body and hold its type against the header's schema id. */
export function openFrame(frame, options) {
  const envelope = decodeEnvelope(frame.body, options);
  checkType(frame.schemaId, envelope);
  return envelope;
}

/** Throws unless `envelope.type` is what the id stands for (UnknownSchema, BodyTypeMismatch). */
export function checkType(schemaId, envelope) {
  const expected = TYPES.get(schemaId);
  if (expected === undefined) {
    if (schemaId < THIRD_PARTY) {
      throw new UnknownSchema(`schema id ${schemaId} is not in the registry`, {
        hint: "upgrade the older side",
      });
    }
    checkThirdParty(schemaId, envelope);
  } else if (envelope.type !== expected) {
    const said = JSON.stringify(envelope.type.slice(0, 80));
    throw new BodyTypeMismatch(`schema ${schemaId} is ${expected}, the body says ${said}`);
  }
}

/** The registry's id of a type; throws UnknownSchema. */
export function schemaId(type) {
  const id = IDS.get(type);
  if (id === undefined) {
    throw new UnknownSchema(`${JSON.stringify(type)} is not in the registry`, {
      hint: "see docs/reference/registry.md",
    });
  }
  return id;
}

/** One whole frame of a registered type, length prefix included. */
export function encodeMessage(
  type,
  payload,
  { msgId, nowMs, topic = null, meta = null, traceId = 0n, ttlMs = DEFAULT_TTL_MS },
) {
  const wanted = new Map(topic === null ? [] : [["topic", topic]]);
  for (const [key, value] of meta instanceof Map ? meta : Object.entries(meta ?? {})) {
    if (topic === null || key !== "topic") wanted.set(key, value); // only the checked one is sent
  }
  return encodeFrame({
    schemaId: schemaId(type),
    body: encodeEnvelope(type, payload, wanted),
    createdAtMs: nowMs,
    msgId,
    traceId,
    ttlMs,
  });
}

function expect(reader, key) {
  if (reader.value(1, false) !== key) {
    throw refusal("the keys of a body are type, payload and perhaps meta, once each and in this order");
  }
}

/** Hold the keys we know against their types; whatever else is there is kept. */
function checkMeta(pairs) {
  for (const [key, value] of pairs) {
    if (typeof key === "string" && !legal(key, value)) {
      throw refusal(`meta.${key} has a wrong type or size`);
    }
  }
}

function legal(key, value) {
  if (TEXTS.has(key)) return typeof value === "string" && characters(value) <= MAX_META_TEXT;
  switch (key) {
    case "priority":
      return isInteger(value) && value >= 0 && value <= 255;
    case "max_hops":
      return isInteger(value) && value >= 0 && value <= 0xffff;
    case "tags":
      return Array.isArray(value) && value.every((tag) => typeof tag === "string");
    case "opening_id":
      return value instanceof Uint8Array ? value.length === 16 : isInteger(value) && value >= 0;
    case "receipt":
      return typeof value === "boolean";
    default:
      return true;
  }
}

/** What is written, and was read, as an integer; a float that was read exactly is a Float. */
function isInteger(value) {
  return typeof value === "bigint" || (Number.isSafeInteger(value) && !Object.is(value, -0));
}

/** Code points, not UTF-16 units: every language must count alike. */
function characters(text) {
  let count = 0;
  for (const _character of text) count++;
  return count;
}

function checkThirdParty(schemaId, envelope) {
  const family = TYPE.exec(envelope.type)?.[1];
  if (family === undefined || !FAMILIES.has(family)) {
    throw new BodyTypeMismatch(`${JSON.stringify(envelope.type.slice(0, 80))} is not family.kind.vN`);
  }
  const vendor = member(envelope.payload, "vendor");
  const hash = member(envelope.payload, "schema_hash");
  const hashed = typeof hash === "string" || hash instanceof Uint8Array;
  if (IDS.has(envelope.type) || typeof vendor !== "string" || !hashed) {
    throw new BodyTypeMismatch(`schema ${schemaId} belongs to third parties`, {
      hint: "their payload carries vendor and schema_hash",
    });
  }
}

function member(payload, key) {
  if (payload instanceof Map) return payload.get(key);
  return isRecord(payload) && !(payload instanceof Float) ? own(payload, key) : undefined;
}

function own(object, key) {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}
