/**
 * Bounded MessagePack: one value in, one value out, every doubt a BodyDecodeError.
 *
 * Knows: the shortest encoding of every value, nesting of at most 64, no extension types, strict UTF-8, and
 * how equal keys of a map are told. Does not know: what a body of a frame must hold (`envelope.js`).
 *
 * Reading gives null, booleans, numbers (bigints beyond 2^53), texts, Uint8Arrays, arrays, and for maps plain
 * objects, or Maps where a key is no text. Of equal keys the last value counts, at the first one's place. An
 * object forgets where its integer-like keys stood and a number whether it was a float: `exact` keeps both,
 * with Maps throughout and floats as Float.
 */

import { BodyDecodeError } from "./errors.js";

/** Maps and arrays inside one another, the outermost included. */
export const MAX_DEPTH = 64;
/** Values in one body before it is refused as abusive; counted only where containers abound. */
export const MAX_VALUES = 262_144;

const U64 = 2n ** 64n - 1n;
const I64 = -(2n ** 63n);
const PLAIN = Object.prototype;

/** A number that is to be written as a float although it is whole. */
export class Float {
  constructor(value) {
    this.value = value;
    Object.freeze(this);
  }

  valueOf() {
    return this.value;
  }
}

// --- writing ------------------------------------------------------------------------------------------

/** The shortest MessagePack of a value; throws BodyDecodeError for what no reader would accept. */
export function encodeValue(value) {
  const writer = new Writer();
  writer.value(value, 0);
  const bytes = writer.bytes();
  checkCount(bytes, writer.values);
  return bytes;
}

class Writer {
  values = 0;
  #buffer = new Uint8Array(256);
  #view = new DataView(this.#buffer.buffer);
  #at = 0;

  bytes() {
    return this.#buffer.slice(0, this.#at);
  }

  value(value, depth) {
    this.values++;
    switch (typeof value) {
      case "string":
        return this.#text(value);
      case "number":
        if (Number.isSafeInteger(value) && !Object.is(value, -0)) return this.#integer(value);
        return this.#float(value);
      case "boolean":
        return this.#byte(value ? 0xc3 : 0xc2);
      case "bigint":
        return this.#big(value);
      case "object":
        return this.#object(value, depth);
      default:
        throw unwritable(value === undefined ? "undefined" : `a ${typeof value}`);
    }
  }

  #object(value, depth) {
    if (value === null) return this.#byte(0xc0);
    if (value instanceof Uint8Array) return this.#binary(value);
    if (value instanceof Float) return this.#float(value.value);
    if (depth === MAX_DEPTH) throw refusal(`nested deeper than ${MAX_DEPTH}`);
    if (Array.isArray(value)) {
      this.#counted(value.length, 0x90, 0xdc);
      for (let at = 0; at < value.length; at++) this.value(value[at], depth + 1); // holes are undefined
      return undefined;
    }
    if (value instanceof Map) return this.#map(value, depth);
    const prototype = Object.getPrototypeOf(value);
    if (prototype !== PLAIN && prototype !== null) {
      throw unwritable(`a ${value.constructor?.name ?? "strange object"}`);
    }
    // As in JSON, a key without a value is left out.
    const keys = Object.keys(value).filter((key) => value[key] !== undefined);
    this.#counted(keys.length, 0x80, 0xde);
    for (const key of keys) {
      this.value(key, depth + 1);
      this.value(value[key], depth + 1);
    }
    return undefined;
  }

  #map(map, depth) {
    this.#counted(map.size, 0x80, 0xde);
    const seen = new Set();
    for (const [key, item] of map) {
      if (typeof key !== "string") {
        const name = keyName(key);
        if (name !== null && seen.has(name)) throw refusal("a map has a key twice");
        seen.add(name);
      }
      this.value(key, depth + 1);
      this.value(item, depth + 1);
    }
  }

  #room(bytes) {
    const needed = this.#at + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, this.#buffer.length * 2));
    larger.set(this.#buffer.subarray(0, this.#at));
    this.#buffer = larger;
    this.#view = new DataView(larger.buffer);
  }

  #byte(byte) {
    this.#room(1);
    this.#buffer[this.#at++] = byte;
  }

  /** A head byte and an unsigned number of 1, 2 or 4 bytes. */
  #head(head, width, number) {
    this.#room(1 + width);
    this.#buffer[this.#at] = head;
    if (width === 1) this.#view.setUint8(this.#at + 1, number);
    else if (width === 2) this.#view.setUint16(this.#at + 1, number);
    else this.#view.setUint32(this.#at + 1, number);
    this.#at += 1 + width;
  }

  /** The head of a container; `long` is followed by its 32-bit form. */
  #counted(count, fix, long) {
    if (count < 16) this.#byte(fix | count);
    else if (count < 0x10000) this.#head(long, 2, count);
    else this.#head(long + 1, 4, count);
  }

  #integer(value) {
    if (value >= 0) {
      if (value < 0x80) this.#byte(value);
      else if (value < 0x100) this.#head(0xcc, 1, value);
      else if (value < 0x10000) this.#head(0xcd, 2, value);
      else if (value < 0x100000000) this.#head(0xce, 4, value);
      else this.#eight(0xcf, BigInt(value));
    } else if (value >= -0x20) this.#byte(value & 0xff);
    else if (value >= -0x80) this.#head(0xd0, 1, value & 0xff);
    else if (value >= -0x8000) this.#head(0xd1, 2, value & 0xffff);
    else if (value >= -0x80000000) this.#head(0xd2, 4, value >>> 0);
    else this.#eight(0xd3, BigInt(value));
  }

  #big(value) {
    if (value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)) {
      return this.#integer(Number(value));
    }
    if (value > U64 || value < I64) throw unwritable("an integer beyond 64 bits");
    return this.#eight(value > 0n ? 0xcf : 0xd3, value);
  }

  #eight(head, value) {
    this.#room(9);
    this.#buffer[this.#at] = head;
    this.#view.setBigUint64(this.#at + 1, BigInt.asUintN(64, value));
    this.#at += 9;
  }

  #float(value) {
    this.#room(9);
    this.#buffer[this.#at] = 0xcb;
    if (Number.isNaN(value)) this.#view.setBigUint64(this.#at + 1, 0x7ff8000000000000n); // one NaN for all
    else this.#view.setFloat64(this.#at + 1, value);
    this.#at += 9;
  }

  #text(value) {
    if (!wellFormed(value)) throw unwritable("half of a surrogate pair");
    const bytes = Buffer.from(value, "utf8");
    if (bytes.length < 32) this.#byte(0xa0 | bytes.length);
    else this.#sized(bytes.length, 0xd9);
    this.#append(bytes);
  }

  #binary(bytes) {
    this.#sized(bytes.length, 0xc4);
    this.#append(bytes);
  }

  #sized(length, head) {
    if (length < 0x100) this.#head(head, 1, length);
    else if (length < 0x10000) this.#head(head + 1, 2, length);
    else this.#head(head + 2, 4, length);
  }

  #append(bytes) {
    this.#room(bytes.length);
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }
}

function wellFormed(text) {
  return typeof text.isWellFormed === "function" ? text.isWellFormed() : !/\p{Surrogate}/u.test(text);
}

// --- reading ------------------------------------------------------------------------------------------

/** Read one value; throws BodyDecodeError for depth, extension types, bytes that follow, and lies. */
export function decodeValue(data, { exact = false } = {}) {
  const reader = new Reader(data);
  const value = reader.value(0, exact);
  reader.end();
  return value;
}

/** Reads values one after another; `envelope.js` asks it for the parts of a body. */
export class Reader {
  #bytes;
  #view;
  #at = 0;
  #values = 0;

  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Nothing may follow, and it must not have been too many values. */
  end() {
    if (this.#at !== this.#bytes.length) throw refusal("bytes follow the value");
    checkCount(this.#bytes, this.#values);
  }

  /** The number of pairs of the map that begins here, or -1 when it is something else. */
  map() {
    const head = this.#byte();
    this.#values++;
    if (head >= 0x80 && head <= 0x8f) return head & 0x0f;
    if (head === 0xde || head === 0xdf) return this.#number(head === 0xde ? 2 : 4);
    return -1;
  }

  /** The value that begins here, inside of `depth` containers. */
  value(depth, exact) {
    const head = this.#byte();
    this.#values++;
    if (head < 0x80) return head;
    if (head >= 0xe0) return head - 0x100;
    if (head < 0x90) return this.#map(head & 0x0f, depth, exact);
    if (head < 0xa0) return this.#array(head & 0x0f, depth, exact);
    if (head < 0xc0) return this.#text(head & 0x1f);
    switch (head) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
        return this.#take(this.#number(1)).slice();
      case 0xc5:
        return this.#take(this.#number(2)).slice();
      case 0xc6:
        return this.#take(this.#number(4)).slice();
      case 0xca:
        return float(this.#view.getFloat32(this.#skip(4)), exact);
      case 0xcb:
        return float(this.#view.getFloat64(this.#skip(8)), exact);
      case 0xcc:
        return this.#number(1);
      case 0xcd:
        return this.#number(2);
      case 0xce:
        return this.#number(4);
      case 0xcf:
        return small(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0:
        return this.#view.getInt8(this.#skip(1));
      case 0xd1:
        return this.#view.getInt16(this.#skip(2));
      case 0xd2:
        return this.#view.getInt32(this.#skip(4));
      case 0xd3:
        return small(this.#view.getBigInt64(this.#skip(8)));
      case 0xd9:
        return this.#text(this.#number(1));
      case 0xda:
        return this.#text(this.#number(2));
      case 0xdb:
        return this.#text(this.#number(4));
      case 0xdc:
        return this.#array(this.#number(2), depth, exact);
      case 0xdd:
        return this.#array(this.#number(4), depth, exact);
      case 0xde:
        return this.#map(this.#number(2), depth, exact);
      case 0xdf:
        return this.#map(this.#number(4), depth, exact);
      default:
        throw refusal("extension types and 0xc1 are not allowed");
    }
  }

  #array(count, depth, exact) {
    this.#enter(count, depth);
    const items = [];
    for (let left = count; left > 0; left--) items.push(this.value(depth + 1, exact));
    return items;
  }

  #map(count, depth, exact) {
    this.#enter(2 * count, depth);
    if (exact) return this.#mapped(new Map(), count, depth, true);
    const object = {};
    for (let left = count; left > 0; left--) {
      const key = this.#key(depth, false);
      if (typeof key !== "string") {
        const map = new Map(Object.entries(object));
        map.set(Number.isNaN(key) ? new Float(NaN) : key, this.value(depth + 1, false));
        return this.#mapped(map, left - 1, depth, false);
      }
      const item = this.value(depth + 1, false);
      if (key === "__proto__") define(object, key, item);
      else object[key] = item;
    }
    return object;
  }

  /** `count` more pairs into a Map. */
  #mapped(map, count, depth, exact) {
    const named = new Map();
    for (const key of map.keys()) if (typeof key !== "string") named.set(keyName(key), key);
    named.delete(null); // a NaN equals no key, not even another one
    for (let left = count; left > 0; left--) {
      let key = this.#key(depth, exact);
      if (typeof key !== "string") {
        const name = keyName(key);
        if (name === null) key = new Float(NaN); // an object of its own: a Map takes all NaNs for one
        else if (named.has(name)) key = named.get(name);
        else named.set(name, key);
      }
      map.set(key, this.value(depth + 1, exact));
    }
    return map;
  }

  #key(depth, exact) {
    const head = this.#bytes[this.#at];
    if ((head >= 0x80 && head < 0xa0) || (head >= 0xdc && head <= 0xdf)) {
      throw refusal("a map or an array as a key");
    }
    return this.value(depth + 1, exact);
  }

  /** Step into a container; every item has at least a byte, so a count beyond them is a lie. */
  #enter(items, depth) {
    if (depth === MAX_DEPTH) throw refusal(`nested deeper than ${MAX_DEPTH}`);
    if (items > this.#bytes.length - this.#at) throw cutOff();
  }

  #byte() {
    if (this.#at >= this.#bytes.length) throw cutOff();
    return this.#bytes[this.#at++];
  }

  #skip(width) {
    const at = this.#at;
    if (width > this.#bytes.length - at) throw cutOff();
    this.#at = at + width;
    return at;
  }

  #take(length) {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  #number(width) {
    const at = this.#skip(width);
    if (width === 1) return this.#bytes[at];
    return width === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #text(length) {
    const bytes = this.#take(length);
    if (length < 32) {
      let text = "";
      for (const byte of bytes) {
        if (byte >= 0x80) return decoded(bytes);
        text += String.fromCharCode(byte);
      }
      return text;
    }
    return decoded(bytes);
  }
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decoded(bytes) {
  try {
    return UTF8.decode(bytes);
  } catch (cause) {
    throw refusal("a text is not UTF-8", cause);
  }
}

function float(value, exact) {
  return exact ? new Float(value) : value;
}

function small(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** An own property, whatever its name: assigning to `__proto__` would change what the object inherits. */
function define(object, key, value) {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

/** A name for a key that is no text, the same for equal keys (1, 1.0 and true are equal); null for NaN. */
function keyName(key) {
  const value = key instanceof Float ? key.value : typeof key === "boolean" ? Number(key) : key;
  if (value === null) return "nil";
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString("latin1")}`;
  if (typeof value === "bigint") return `number ${value}`;
  if (typeof value !== "number") throw refusal("a map or an array as a key");
  if (Number.isNaN(value)) return null;
  return `number ${Number.isInteger(value) ? BigInt(value) : value}`;
}

/** What `exact` reading gave, as the other reading gives it. */
export function simplified(value) {
  if (value instanceof Float) return value.value;
  if (Array.isArray(value)) return value.map(simplified);
  if (!(value instanceof Map)) return value;
  const keys = [...value.keys()];
  if (keys.every((key) => typeof key === "string")) {
    const object = {};
    for (const [key, item] of value) define(object, key, simplified(item));
    return object;
  }
  const nan = (key) => key instanceof Float && Number.isNaN(key.value);
  return new Map([...value].map(([key, item]) => [nan(key) ? key : simplified(key), simplified(item)]));
}

/**
 * The bound on values holds where more than 64 bytes could open a container, or one could be an extension
 * type: the same rule, over the same bytes, in every implementation.
 */
function checkCount(bytes, values) {
  if (values <= MAX_VALUES) return;
  let containers = 0;
  for (const byte of bytes) {
    if ((byte >= 0x80 && byte < 0xa0) || (byte >= 0xdc && byte <= 0xdf)) containers++;
    else if (byte === 0xc1 || (byte >= 0xc7 && byte <= 0xc9) || (byte >= 0xd4 && byte <= 0xd8)) {
      containers = MAX_DEPTH + 1;
    }
    if (containers > MAX_DEPTH) throw refusal(`more than ${MAX_VALUES} values`);
  }
}

/** The error for what is no legal body. */
export function refusal(why, cause) {
  return new BodyDecodeError(`not a legal body: ${why}`, { cause });
}

function cutOff() {
  return refusal("the value is cut off");
}

function unwritable(what) {
  return new BodyDecodeError(`not MessagePack: ${what}`, { hint: "use JSON values and Uint8Arrays" });
}
