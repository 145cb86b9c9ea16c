/**
 * Topics: `/`-separated addresses, checked before they are sent.
 *
 * A pattern may end in a `*` segment, which stands for anything strictly below; `*` alone for everything. Who
 * may publish or read a topic is the daemon's matter.
 */

import { UsageError } from "./errors.js";

export const CTRL = "rlp/ctrl";
export const ACTION_REQUEST = "rlp/actions/request";
export const ACTION_DECISION = "rlp/actions/decision";
export const DROPS = "rlp/sys/drops";
export const METRICS = "rlp/sys/metrics";
/** Characters of a topic or pattern. */
export const MAX_TOPIC = 255;

const TOPIC = /^[A-Za-z0-9_.:#@+-]+(?:\/[A-Za-z0-9_.:#@+-]+)*$/;

/** `text` if it is a topic; throws UsageError otherwise. */
export function topic(text) {
  if (typeof text !== "string" || text.length > MAX_TOPIC || !TOPIC.test(text)) {
    throw new UsageError(`${JSON.stringify(String(text).slice(0, 80))} is not a topic`, {
      hint: `segments of letters, digits and _.:#@+- joined by '/', at most ${MAX_TOPIC} characters`,
      code: "topic",
    });
  }
  return text;
}

/** `text` if it is a topic, `*`, or a topic and `/*`; throws UsageError otherwise. */
export function pattern(text) {
  if (text === "*") return text;
  topic(typeof text === "string" && text.endsWith("/*") ? text.slice(0, -2) : text);
  return text;
}

/** Whether a checked pattern covers a checked topic. */
export function matches(pattern, topic) {
  if (!pattern.endsWith("*")) return pattern === topic;
  const prefix = pattern.slice(0, -1);
  return topic.length > prefix.length && topic.startsWith(prefix);
}

/** Where the committed events and the progress of a run appear; `run` is the trace id as UUID text. */
export function runEvents(run) {
  return topic(`rlp/runs/${run}/events`);
}

/** The private mailbox of an agent. */
export function agent(name) {
  return topic(`agent/${name}`);
}

/** The private reply topic of one socket session. */
export function clientReply(session) {
  return topic(`rlp/clients/${session}/reply`);
}
