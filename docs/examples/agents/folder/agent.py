"""Reads the texts of one directory."""

from __future__ import annotations

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host

SUFFIXES = (".md", ".txt")


@handler
def handle(task: Task, host: Host) -> Result:
    """``with.path`` -> its texts on port ``items``, last name first: dated names are newest first."""
    path, limit = str(task.param("path")).rstrip("/"), task.param("limit", 20)
    if not isinstance(limit, int) or not 1 <= limit <= 100:
        raise Fail("folder.input", f"'limit' cannot be {limit!r}; use 1 to 100")
    names = [
        str(entry["name"])
        for entry in host.fs_list(path)
        if entry.get("kind") == "file" and str(entry["name"]).endswith(SUFFIXES)
    ]
    items = []
    for name in sorted(names, reverse=True)[:limit]:
        text = host.fs_read(f"{path}/{name}").decode("utf-8", "replace")
        items.append({"title": name.rsplit(".", 1)[0], "text": text, "when": ""})
    return Result.of(items=items)
