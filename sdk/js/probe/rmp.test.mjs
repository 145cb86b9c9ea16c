/**
 * What the vectors cannot say: how values look in JavaScript, and what a session does over several
 * connections.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import * as rmp from "../rmp/index.js";

const turn = (value, options) => rmp.decodeValue(rmp.encodeValue(value), options);

test("integers are numbers as far as these are exact, then bigints", () => {
  const edges = [2 ** 53 - 1, -(2 ** 53 - 1), 2n ** 53n, -(2n ** 53n), 2n ** 64n - 1n, -(2n ** 63n)];
  assert.deepEqual(turn(edges), edges);
  assert.equal(turn(5n), 5);
  assert.throws(() => turn(2n ** 64n), rmp.BodyDecodeError);
  assert.throws(() => turn(-(2n ** 63n) - 1n), rmp.BodyDecodeError);
});

test("a whole float stays one when it is asked for", () => {
  assert.deepEqual(turn(new rmp.Float(1), { exact: true }), new rmp.Float(1));
  assert.equal(turn(new rmp.Float(1)), 1);
  assert.ok(Object.is(turn(-0), -0));
});

test("a key named __proto__ is a key, and changes nothing else", () => {
  const parts = [Uint8Array.of(0x81, 0xa9), Buffer.from("__proto__"), Uint8Array.of(0x81, 0xa1, 0x78, 1)];
  const evil = rmp.decodeValue(Buffer.concat(parts));
  assert.deepEqual(Object.keys(evil), ["__proto__"]);
  assert.equal(Object.getPrototypeOf(evil), Object.prototype);
  assert.equal(evil.x, undefined);
  assert.equal({}.x, undefined);
});

test("maps with other keys than texts are Maps, and of equal keys the last value counts", () => {
  assert.deepEqual(rmp.decodeValue(Uint8Array.of(0x82, 0xa1, 0x61, 1, 5, 2)), new Map([["a", 1], [5, 2]]));
  assert.deepEqual(rmp.decodeValue(Uint8Array.of(0x82, 1, 7, 0xc3, 8)), new Map([[1, 8]]));
  assert.deepEqual(rmp.decodeValue(Uint8Array.of(0x82, 0xa1, 0x61, 7, 0xa1, 0x61, 8)), { a: 8 });
});

test("what MessagePack cannot say is refused, a missing member is left out", () => {
  assert.deepEqual(turn({ a: undefined, b: 1 }), { b: 1 });
  const odd = [undefined, [undefined], () => 1, Symbol("x"), new Date(0), "\ud800", new Map([[[], 1]])];
  for (const value of odd) {
    assert.throws(() => turn(value), rmp.BodyDecodeError);
  }
  const loop = [];
  loop.push(loop);
  assert.throws(() => turn(loop), rmp.BodyDecodeError);
});

test("a refusal of the daemon keeps family, code and hint, and nothing it sends breaks the client", () => {
  const error = rmp.fromWire({ family: "refused", code: "bus.refused", message: "no", hint: "ask" });
  assert.ok(error instanceof rmp.RefusedError);
  assert.deepEqual([error.name, error.code, error.hint], ["RefusedError", "bus.refused", "ask"]);
  for (const odd of [null, 5, [], {}, { family: "constructor", message: 1, code: [] }, new Map()]) {
    assert.equal(rmp.fromWire(odd).message, "unknown error");
  }
});

// --- a session, fed by hand ---------------------------------------------------------------------------

/** A session, and a daemon of a few lines that reads what it writes. */
function pair(options = {}) {
  const read = new rmp.FrameReader();
  const told = [];
  const answers = [];
  const deliveries = [];
  const taken = [];
  let count = 0n;
  const session = new rmp.Session(
    { nowMs: () => 1_000, ...options },
    {
      write: (bytes) => read.feed(bytes).forEach((frame) => told.push([frame, rmp.openFrame(frame)])),
      onReady: () => {},
      onAnswer: (id, error) => answers.push([id, error?.code ?? null]),
      onDelivery: (delivery) => deliveries.push(delivery),
      onTaken: (name, error) => taken.push([name, error.code]),
    },
  );
  const say = (type, payload, meta = {}) => {
    count += 1n;
    session.feed(rmp.encodeMessage(type, payload, { msgId: count, nowMs: 1_000, meta }));
  };
  const answer = (id, more = { ok: true }) =>
    say("toolresult.ctrl.response.v1", { id, ...more }, { topic: session.replyTopic });
  const greet = (name) => {
    say("observation.runtime.hello.v1", { session: name, nonce: new Uint8Array(32) });
    answer("hello", { ok: true, result: { principal: "operator", session: name } });
  };
  return { session, told, answers, deliveries, taken, say, answer, greet };
}

test("a consumer that another session took ends with the reason and is not taken back", () => {
  const { session, told, taken, say, answer, greet, deliveries } = pair();
  greet("one");
  answer(session.consume("c", "durable/*"));
  const wire = { family: "conflict", code: "bus.consumer_taken", data: { consumer: "c" } };
  say("error.report.v1", { wire }, { topic: session.replyTopic });
  say("error.report.v1", { wire }, { topic: session.replyTopic });
  assert.deepEqual(taken, [["c", "bus.consumer_taken"]]);
  say("observation.generic.v1", 1, { topic: "durable/a", consumer: "c", seq: 3 });
  assert.deepEqual(deliveries, []);
  session.disconnected();
  told.length = 0;
  greet("two");
  assert.deepEqual(told.filter(([, { payload }]) => payload.action === "subscribe"), []);
});

test("after a loss a durable publish is sent again under its own id, a plain one is not", () => {
  const { session, told, answer, answers, greet } = pair();
  greet("one");
  const kept = session.publish("durable/a", "observation.generic.v1", 1, { durable: true });
  const plain = session.publish("demo/a", "observation.generic.v1", 2);
  session.disconnected();
  assert.deepEqual([session.repeats(kept), session.repeats(plain)], [true, false]);
  told.length = 0;
  greet("two");
  const again = told.filter(([frame]) => frame.schemaId === 1);
  assert.deepEqual(again.map(([frame, { payload }]) => [String(frame.msgId), payload]), [[kept, 1]]);
  answer(kept, { ok: false, error: { family: "unreachable", code: "bus.closing", message: "bye" } });
  assert.deepEqual([session.repeats(kept), answers.length], [true, 0], "the next daemon is asked");
  answer(kept);
  assert.equal(session.repeats(kept), false);
  assert.deepEqual(answers, [[kept, null]]);
});

test("a consumer goes on behind what the program has had", () => {
  const { session, told, deliveries, say, answer, greet } = pair();
  const payloads = () => told.map(([, { payload }]) => payload);
  const acks = () => payloads().filter((one) => one?.action === "ack").map((one) => one.seq);
  const deliver = (seq) => say("observation.generic.v1", seq, { topic: "durable/a", consumer: "c", seq });
  greet("one");
  answer(session.consume("c", "durable/*"));
  deliver(3);
  deliver(5);
  session.ack("c", 3);
  assert.deepEqual(acks(), [3]);
  session.disconnected();
  session.ack("c", 5);
  told.length = 0;
  greet("two");
  const [resumed] = told.filter(([, { payload }]) => payload?.action === "subscribe");
  assert.deepEqual([resumed[1].payload.durable, resumed[1].payload.after], ["c", 5]);
  assert.deepEqual(acks(), []);
  deliver(5);
  deliver(7);
  assert.deepEqual(acks(), [5], "it came again and is done with already");
  assert.deepEqual(deliveries.map((one) => one.seq), [3, 5, 7]);
  say("observation.generic.v1", 9, { topic: "durable/a", consumer: "unknown", seq: 9 });
  assert.equal(deliveries.length, 3, "a consumer that was given up gets nothing");
});

test("a subscription that is refused after a loss ends the session", () => {
  const { session, told, answer, greet } = pair();
  greet("one");
  answer(session.subscribe("demo/*"));
  session.disconnected();
  told.length = 0;
  greet("two");
  const [, { payload }] = told.find(([, envelope]) => envelope.payload?.action === "subscribe");
  const refusal = { ok: false, error: { family: "refused", code: "bus.refused", message: "no" } };
  assert.throws(() => answer(payload.id, refusal), rmp.RefusedError);
});

test("an answer on somebody else's topic is a delivery and answers nothing", () => {
  const { session, say, answers, deliveries, greet } = pair();
  greet("one");
  const id = session.ping();
  say("toolresult.ctrl.response.v1", { id, ok: true }, { topic: "demo/forged" });
  assert.deepEqual([answers.length, deliveries.length], [0, 1]);
});
