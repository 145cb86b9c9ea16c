/**
 * A program that speaks to a daemon as it is told on stdin, one command and one answer per line; for tests.
 */

import { createInterface } from "node:readline";

import * as rmp from "../rmp/index.js";

let client = null;
let last = null;
const taken = [];
const takers = [];
const streams = new Map();

const COMMANDS = {
  async connect([path, credential]) {
    client = await rmp.connect({
      path,
      credential: credential === "-" ? null : new Uint8Array(Buffer.from(credential, "hex")),
      about: { capabilities: ["talk"] },
    });
    return client.principal;
  },
  principal: () => client.principal,
  async subscribe([pattern]) {
    collect(pattern, await client.subscribe(pattern));
  },
  async unsubscribe([pattern]) {
    await streams.get(pattern).close();
  },
  async consume([name, pattern]) {
    collect(name, await client.consume(name, pattern));
  },
  async leave([name]) {
    await streams.get(name).close();
  },
  async publish([topic, text]) {
    return (await client.publish(topic, "observation.generic.v1", { text })).receivers;
  },
  async durable([topic, text]) {
    return (await client.publish(topic, "observation.generic.v1", { text }, { durable: true })).seq;
  },
  async call([method]) {
    return Object.keys(await client.call(method)).sort().join(",");
  },
  async announce([capability]) {
    await client.announce({ capabilities: [capability] });
  },
  async find([capability]) {
    return (await client.call("directory.find", { capability })).entries.length;
  },
  async decide() {
    const decision = { v: 1, approval: "a", action_digest: "b", decision: "approve", note: "" };
    return client.request(rmp.topics.ACTION_DECISION, "toolresult.action.decision.v1", decision);
  },
  async ping() {
    return (await client.ping()) > 0 ? "pong" : "silence";
  },
  async next([ms]) {
    const next = await nextDelivery(Number(ms));
    if (next === null) return "none";
    if (next instanceof Error) throw next;
    last = next;
    const kept = last.seq > 0 ? "recorded" : "passing";
    return [last.topic, last.payload.text, last.consumer || "-", kept].join(" ");
  },
  ack() {
    streams.get(last.consumer).ack(last);
  },
};

function collect(name, stream) {
  streams.set(name, stream);
  (async () => {
    for await (const delivery of stream) hand(delivery);
  })().catch(hand);
}

function hand(delivery) {
  const taker = takers.shift();
  if (taker === undefined) taken.push(delivery);
  else taker(delivery);
}

function nextDelivery(ms) {
  if (taken.length > 0) return taken.shift();
  return new Promise((resolve) => {
    const timer = setTimeout(() => taker(null), ms);
    const taker = (delivery) => {
      clearTimeout(timer);
      const place = takers.indexOf(taker);
      if (place >= 0) takers.splice(place, 1);
      resolve(delivery);
    };
    takers.push(taker);
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(" ");
  let answer;
  try {
    answer = `ok ${(await COMMANDS[command](words)) ?? ""}`.trim();
  } catch (error) {
    if (!(error instanceof rmp.RunloopError)) throw error;
    answer = `error ${error.family} ${error.code}`;
  }
  process.stdout.write(`${answer}\n`);
}
client?.close();
