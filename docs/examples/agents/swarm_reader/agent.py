"""Reads its share of a source tree and tells what it finds, file by file, while it reads on."""

from __future__ import annotations

import base64
import io
import re
import tokenize
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host

FINDINGS = "talk/findings"
TODO = re.compile(r"#\s*TODO\((rename|remove|type)\):\s*(.*?)\s*$")
OTHER = re.compile(r"#\s*TODO\b")
MAX_BYTES = 1_048_576
MAX_FILES = 400
MAX_PATH = 160


@handler
def handle(task: Task, host: Host) -> Result:
    """``with.tree``, port ``shard`` ``{shard, of}`` -> one message a file; what it did on port ``read``.

    At most ``with.window`` files with something to do are unanswered at a time: the reader is never further
    ahead of the others than that.
    """
    shard = task.port("shard")
    index, of = int(shard["shard"]), int(shard["of"])
    if not 0 <= index < of <= 64:
        raise Fail("swarm.shard", f"there is no share {index} of {of}")
    tree, window = str(task.param("tree")).rstrip("/"), max(1, int(task.param("window", 2)))
    answers, waiting = host.subscribe(), set()
    files = sources(host, tree)[index::of]
    told = skipped = 0
    for path in files:
        found = host.call("fs.read", {"path": f"{tree}/{path}", "length": MAX_BYTES})
        finding = {"shard": index, "of": of, "path": path, "digest": found["digest"], **look(found)}
        finding["changed"] = remember(host, path, found["digest"])
        said = host.publish(FINDINGS, finding)
        skipped += bool(finding["skipped"])
        if finding["todos"]:
            told += len(finding["todos"])
            waiting.add(said["message"])
        while len(waiting) >= window and (answer := host.hear(answers)) is not None:
            waiting.discard(answer["in_reply_to"])
    host.publish(FINDINGS, {"shard": index, "of": of, "end": True, "files": len(files)})
    return Result.of(read={"files": len(files), "todos": told, "skipped": skipped})


def sources(host: Host, tree: str) -> list[str]:
    """Every Python file below, by its path from the tree. Hidden folders and links are left alone."""
    found, folders = [], [""]
    while folders:
        folder = folders.pop()
        after = ""
        while True:
            page = host.call("fs.list", {"path": f"{tree}/{folder}".rstrip("/"), "after": after})
            for entry in page["entries"]:
                path = f"{folder}/{entry['name']}".lstrip("/")
                if entry["name"].startswith(".") or len(path) > MAX_PATH or not path.isprintable():
                    continue
                if entry["kind"] == "dir":
                    folders.append(path)
                elif entry["kind"] == "file" and path.endswith(".py"):
                    found.append(path)
            if len(found) > MAX_FILES:
                raise Fail("swarm.size", f"there are more than {MAX_FILES} Python files below {tree}")
            if not page["truncated"]:
                break
            after = page["entries"][-1]["name"]
    return sorted(found)


def look(found: dict[str, Any]) -> dict[str, Any]:
    """``{todos: [{line, kind, text}], other, names, skipped}``; ``skipped`` says why there is nothing."""
    nothing: dict[str, Any] = {"todos": [], "other": 0, "names": [], "skipped": ""}
    raw = base64.b64decode(found["base64"]) if found.get("base64") is not None else found["text"].encode()
    if not found["eof"]:
        return {**nothing, "skipped": f"more than {MAX_BYTES} bytes"}
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(raw.decode(), newline="").readline))
    except (UnicodeDecodeError, SyntaxError, tokenize.TokenError) as error:
        return {**nothing, "skipped": f"no Python of this version: {type(error).__name__}"}
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    todos = [
        {"line": token.start[0], "kind": match[1], "text": match[2]}
        for token in comments
        if (match := TODO.match(token.string))
    ]
    names = sorted({token.string for token in tokens if token.type == tokenize.NAME})
    other = sum(bool(OTHER.match(token.string)) for token in comments) - len(todos)
    return {"todos": todos, "other": other, "names": names, "skipped": ""}


def remember(host: Host, path: str, digest: str) -> bool:
    """Whether this agent has not seen the file like this before; its own memory, nobody else's."""
    seen, _ = host.memory_get(f"seen/{path}")
    if seen == digest:
        return False
    host.memory_put(f"seen/{path}", digest)
    return True
