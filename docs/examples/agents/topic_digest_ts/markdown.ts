/** The little Markdown that a digest needs. Pure. */

export type Item = { title: string; kind: string; snippet: string; new: boolean };

/** One page: a heading and a line for every item, new ones first. */
export function page(topic: string, day: string, items: readonly Item[]): string {
  const sorted = [...items].sort((one, other) => Number(other.new) - Number(one.new));
  const lines = sorted.map(
    ({ title, kind, snippet, new: fresh }) => `- ${fresh ? "**new** " : ""}${escaped(title)} (${kind}): ${escaped(snippet)}`,
  );
  return [`# ${escaped(topic)}, ${day}`, "", ...(lines.length > 0 ? lines : ["Nothing found."]), ""].join("\n");
}

/** Headings with their levels; what stands in fenced code is none. */
export function outline(text: string): { level: number; title: string }[] {
  let fenced = false;
  const found: { level: number; title: string }[] = [];
  for (const line of text.split(/\r?\n/)) {
    if (/^\s*(```|~~~)/.test(line)) fenced = !fenced;
    const heading = fenced ? null : /^(#{1,6})\s+(.*?)\s*#*\s*$/.exec(line);
    if (heading?.[1] !== undefined && heading[2] !== undefined) {
      found.push({ level: heading[1].length, title: heading[2] });
    }
  }
  return found;
}

function escaped(text: string): string {
  return text.replace(/[\\`*_<>[\]]/g, "\\$&");
}
