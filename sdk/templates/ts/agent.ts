/**
 * Finds what a text asks of its reader: things to do, questions, and by when.
 *
 * `handle` serves the nodes of an opening; the tool can be called by others. Both run in the sandbox: no files,
 * no network, no clock, but what `host` offers and `policy.caps` grants. Host calls answer at once: no await.
 */
import { Fail, Result, handler, tool } from "runloop";

const TODO = /^\s*(?:[-*]\s+)?(?:\[ \]|todo:?|please,?)\s+(.+)$/i;
const DATE = /\b\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])\b/;

/** One thing that a text asks for. */
type Request = { kind: "todo" | "question"; line: number; text: string; due: string | null };

/** What a text asks of its reader, in the order it asks. */
export function requests(text: string, limit = 100): Request[] {
  const found: Request[] = [];
  text.split(/\r?\n/).forEach((line, at) => {
    const todo = TODO.exec(line);
    const due = DATE.exec(line)?.[0] ?? null;
    if (todo?.[1] !== undefined) {
      found.push({ kind: "todo", line: at + 1, text: todo[1].trim(), due });
    } else if (line.trimEnd().endsWith("?")) {
      found.push({ kind: "question", line: at + 1, text: line.trim(), due });
    }
  });
  return found.slice(0, limit);
}

tool<{ text: string; limit?: number }>(
  "__NAME__.requests",
  {
    description: "What a text asks of its reader, in the order it asks.",
    input: {
      type: "object",
      properties: {
        text: { type: "string" },
        limit: { type: "integer", minimum: 0, description: "at most this many" },
      },
      required: ["text"],
      additionalProperties: false,
    },
    result: { type: "array", items: { type: "object" } },
  },
  ({ text, limit }) => requests(text, limit),
);

/** The text on port `text`, or under `with`, -> what it asks for on port `out`. */
export const handle = handler((task, host) => {
  const text = task.port<string>("text", "") || task.param<string>("text", "");
  if (text.trim() === "") throw new Fail("__NAME__.empty", "there is no text to read");
  const found = requests(text);
  host.log(`found ${found.length} requests`, "info", { lines: text.split("\n").length });
  const dates = found.flatMap(({ due }) => (due === null ? [] : [due])).sort();
  return Result.of({
    out: {
      todos: found.filter(({ kind }) => kind === "todo").map(({ text: what }) => what),
      questions: found.filter(({ kind }) => kind === "question").map(({ text: what }) => what),
      next_due: dates[0] ?? null,
    },
  });
});
