"""One page of Markdown from what arrives. Lays out; adds nothing."""

from __future__ import annotations

from typing import Any

from runloop.agent import Result, Task, handler
from runloop.host import Host

PARTS = ("first", "second", "third")


@handler
def handle(task: Task, host: Host) -> Result:
    """Ports ``first``, ``second``, ``third`` -> the page on port ``page``."""
    lines = [f"# {line(task.param('title', 'Report'))}"]
    for part in PARTS:
        if not task.all(part):
            continue
        values: list[Any] = []
        for value in task.all(part):
            values += value if isinstance(value, list) else [value]
        lines += ["", f"## {line(task.param(part, part.capitalize()))}", ""]
        sort = str(task.param("sort", "") or "")
        if sort:
            values.sort(key=lambda item: str(item.get(sort, "")) if isinstance(item, dict) else "")
        lines += [entry for value in values for entry in entries(value)] or ["Nothing."]
    page = "\n".join(lines) + "\n"
    host.put_artifact(str(task.param("name", "report.md")), page)
    return Result.of(page=page)


def entries(value: Any) -> list[str]:
    """List items of one value; of another page, all of it but its heading."""
    if isinstance(value, str) and value.startswith("# "):
        return [text.replace("## ", "### ", 1) for text in value.splitlines()[2:]]
    return thing(value) if isinstance(value, dict) else [f"- {line(value)}"]


def thing(value: dict[str, Any]) -> list[str]:
    """A digest with its sentences, a bundle of facts, a verdict, or whatever has a title or a name."""
    if "sentences" in value:
        made = [f"- **{line(value.get('title'))}**: {line(' '.join(map(str, value['sentences'])))}"]
        return made + [f"  - open: {line(text)}" for text in value.get("open", [])]
    if "facts" in value:
        return [f"- {line(fact.get('text'))} [{line(fact.get('title'))}]" for fact in value["facts"]]
    if "line" in value:
        return [f"- {line(value['line'])}"]
    words = [value.get("when"), value.get("name") or value.get("title"), value.get("email"), value.get("org")]
    return ["- " + line(" ".join(str(word) for word in words if word))]


def line(value: Any) -> str:
    return " ".join(str(value if value is not None else "").split())
