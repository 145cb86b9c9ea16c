/** What notes and mail say on a topic, with what is new since the last time it was asked. */
import { Fail, Result, handler, tool } from "runloop";
import type { Found, Host } from "runloop";
import { outline, page } from "./markdown";

/** What the agent remembers of a topic. */
type Memory = { shown: string[]; asked_ms: number };

const MOST = 8;
const REMEMBERED = 200;

export const handle = handler((task, host) => {
  const topic = (task.port("topic", "") || task.param("topic", "")).trim();
  if (topic === "") throw new Fail("topic_digest.topic", "there is no topic to look for");

  const key = `topic:${topic.toLowerCase()}`;
  const { value, version } = host.memoryGet<Memory>(key);
  const shown = new Set(value?.shown ?? []);
  const items = search(host, topic).map(({ id, kind, title, snippet }) => ({
    title,
    kind,
    snippet: snippet.replace(/\s+/g, " ").trim(),
    new: !shown.has(`${kind}:${id}`),
    ref: `${kind}:${id}`,
  }));

  const now = new Date();
  const all = [...items.map(({ ref }) => ref), ...shown];
  const remembered: Memory = { shown: [...new Set(all)].slice(0, REMEMBERED), asked_ms: now.getTime() };
  host.memoryPut(key, remembered, { expectedVersion: version });

  const digest = host.putArtifact("digest.md", page(topic, now.toISOString().slice(0, 10), items), {
    mediaType: "text/markdown; charset=utf-8",
  });
  const out = {
    topic,
    items: items.map(({ ref: _, ...item }) => item),
    fresh: items.filter((item) => item.new).length,
    asked_before: value === null ? null : new Date(value.asked_ms).toISOString(),
  };
  return Result.of({ out }, [digest]);
});

/** Best matches first; none where the operator lets the agent read nothing. */
function search(host: Host, topic: string): Found[] {
  try {
    return host.kbSearch(topic, { k: MOST, kinds: ["note", "mail"] });
  } catch (error) {
    host.progress(`the knowledge base stays closed: ${(error as Error).message}`);
    return [];
  }
}

tool<{ text: string }>(
  "digest.outline",
  {
    description: "The headings of a Markdown text, with their levels.",
    input: {
      type: "object",
      properties: { text: { type: "string" } },
      required: ["text"],
      additionalProperties: false,
    },
    result: { type: "array", items: { type: "object" } },
  },
  ({ text }) => outline(text),
);
