/**
 * Answers the questions of sdk/conformance/README.md ("The probe") about this package, line by line on stdin.
 */

import { createInterface } from "node:readline";

import * as rmp from "../rmp/index.js";

const TOPIC_CHECKS = { topic: rmp.topics.topic, pattern: rmp.topics.pattern };

const ANSWERS = {
  read([maxBody, now, end, publishers, ...pieces]) {
    const reader = new rmp.FrameReader({ maxBody: Number(maxBody) });
    const seen = new rmp.Seen();
    const from = publishers === "-" ? [] : publishers.split(",");
    const frames = [];
    let error = "-";
    try {
      for (const piece of pieces) {
        for (const frame of reader.feed(bytes(piece))) {
          const envelope = rmp.openFrame(frame, { exact: true });
          frame.checkExpiry(BigInt(now));
          if (!seen.first(from.shift() ?? "a", frame.traceId, frame.msgId, Number(now))) {
            throw new rmp.Duplicate("seen");
          }
          frames.push(described(frame, envelope));
        }
        if (reader.error !== null) throw reader.error;
      }
      if (end === "1") reader.close();
      if (reader.pending > 0) throw new rmp.Incomplete("more");
    } catch (caught) {
      if (!(caught instanceof rmp.WireError)) throw caught;
      error = caught.name;
    }
    return [String(frames.length), error, ...frames].join(" ");
  },

  write([schemaId, createdAtMs, ttlMs, traceId, msgId, type, payload, meta]) {
    return named(() => {
      const body = rmp.encodeEnvelope(value(type), value(payload), value(meta));
      return hex(
        rmp.encodeFrame({
          schemaId: Number(schemaId),
          body,
          createdAtMs: BigInt(createdAtMs),
          ttlMs: BigInt(ttlMs),
          traceId: BigInt(`0x${traceId}`),
          msgId: BigInt(msgId),
        }),
      );
    });
  },

  proof: ([credential, nonce]) => hex(rmp.proof(bytes(credential), bytes(nonce))),
  keyed: ([key, input]) => hex(rmp.keyedHash(bytes(key), bytes(input))),
  registry: () => `${rmp.BUILD} ${[...rmp.TYPES].map(([id, type]) => `${id}=${type}`).join(",")}`,
  names: () => rmp.NAMED_ERRORS.map((error) => `${error.name}=${error.code}`).join(","),
  topic: (words) => checked("topic", words),
  pattern: (words) => checked("pattern", words),
  matches: ([pattern, topic]) => (rmp.topics.matches(text(pattern), text(topic)) ? "yes" : "no"),
};

function described(frame, envelope) {
  const { schemaId, createdAtMs, ttlMs, traceId, msgId } = frame;
  const body = rmp.encodeEnvelope(envelope.type, envelope.payload, envelope.meta);
  return [
    schemaId,
    createdAtMs,
    ttlMs,
    traceId.toString(16).padStart(32, "0"),
    msgId,
    shown(envelope.type),
    shown(envelope.payload),
    shown(envelope.meta),
    hex(rmp.encodeFrame({ schemaId, body, createdAtMs, ttlMs, traceId, msgId })),
  ].join(";");
}

function checked(what, [word]) {
  try {
    return TOPIC_CHECKS[what](text(word)) === text(word) ? "yes" : "changed";
  } catch (error) {
    if (error instanceof rmp.UsageError) return "no";
    throw error;
  }
}

function named(make) {
  try {
    return make();
  } catch (error) {
    if (error instanceof rmp.WireError) return error.name;
    throw error;
  }
}

// --- the notation of values ------------------------------------------------------------------------

function shown(value) {
  if (value === null) return "n";
  if (typeof value === "boolean") return value ? "t" : "f";
  if (typeof value === "number" || typeof value === "bigint") return `i${value}`;
  if (typeof value === "string") return `s${Buffer.from(value).toString("hex")}`;
  if (value instanceof Uint8Array) return `b${Buffer.from(value).toString("hex")}`;
  if (value instanceof rmp.Float) {
    if (Number.isNaN(value.value)) return "dnan";
    const double = Buffer.alloc(8);
    double.writeDoubleBE(value.value);
    return `d${double.toString("hex")}`;
  }
  if (Array.isArray(value)) return `[${value.map(shown).join(",")}]`;
  return `{${[...value].map(([key, item]) => `${shown(key)}=${shown(item)}`).join(",")}}`;
}

function value(text) {
  const parser = { text, at: 0 };
  return parsed(parser);
}

function parsed(parser) {
  const kind = parser.text[parser.at++];
  if (kind === "[" || kind === "{") return kind === "[" ? listed(parser) : mapped(parser);
  const rest = /^[-0-9a-z]*/.exec(parser.text.slice(parser.at))[0];
  parser.at += rest.length;
  switch (kind) {
    case "n":
      return null;
    case "t":
      return true;
    case "f":
      return false;
    case "i":
      return BigInt(rest);
    case "d":
      return new rmp.Float(rest === "nan" ? NaN : Buffer.from(rest, "hex").readDoubleBE());
    case "s":
      return Buffer.from(rest, "hex").toString();
    default:
      return new Uint8Array(Buffer.from(rest, "hex"));
  }
}

function listed(parser) {
  const items = [];
  while (parser.text[parser.at] !== "]") {
    items.push(parsed(parser));
    if (parser.text[parser.at] === ",") parser.at++;
  }
  parser.at++;
  return items;
}

function mapped(parser) {
  const map = new Map();
  while (parser.text[parser.at] !== "}") {
    const key = parsed(parser);
    parser.at++;
    map.set(key, parsed(parser));
    if (parser.text[parser.at] === ",") parser.at++;
  }
  parser.at++;
  return map;
}

function bytes(word) {
  return word === "-" ? new Uint8Array() : new Uint8Array(Buffer.from(word, "hex"));
}

function text(word) {
  return Buffer.from(bytes(word)).toString();
}

function hex(data) {
  return Buffer.from(data).toString("hex");
}

for await (const line of createInterface({ input: process.stdin })) {
  const [question, ...words] = line.split(" ");
  process.stdout.write(`${ANSWERS[question](words)}\n`);
}
