"""Carries out plans on files it may only read, and writes the differences into its own workspace."""

from __future__ import annotations

import base64
from typing import Any

from edits import carry_out, unified

from runloop.agent import Fail, Result, Task, handler
from runloop.collab import Room, serve
from runloop.host import Host, HostRefused

SPACE = "shared:swarm"
MAX_BYTES = 1_048_576


@handler
def handle(task: Task, host: Host) -> Result:
    """Every request until nobody is left to speak -> a diff for each file in ``with.workspace``."""
    tree, workspace = str(task.param("tree")).rstrip("/"), str(task.param("workspace")).rstrip("/")
    patches: list[dict[str, Any]] = []

    def carry(job: dict[str, str]) -> dict[str, Any]:
        plan, _ = host.memory_get(job["plan"], namespace=SPACE)
        try:
            result = patch(host, tree, workspace, plan)
        except HostRefused as refused:  # this file's trouble; the next one may do
            raise Fail(refused.code, f"{plan['path']}: {refused.message}") from refused
        host.memory_put(job["result"], result, namespace=SPACE)
        if result["diff"]:
            patches.append({"path": plan["path"], "diff": result["diff"], "digest": result["digest"]})
        return {"result": job["result"], "patched": bool(result["diff"])}

    serve(Room.enter(task, host), carry, acts=["request"])
    return Result.of(patches=patches)


def patch(host: Host, tree: str, workspace: str, plan: dict[str, Any]) -> dict[str, Any]:
    """``{diff, digest, done, refused}`` of one file; one that changed since it was read is left alone."""
    path = plan["path"]
    found = host.call("fs.read", {"path": f"{tree}/{path}", "length": MAX_BYTES})
    if found["digest"] != plan["digest"] or not found["eof"]:
        why = "the file has changed since it was read"
        refused = [{"line": todo["line"], "kind": todo["kind"], "why": why} for todo in plan["todos"]]
        return {"diff": "", "digest": "", "done": [], "refused": refused}
    raw = base64.b64decode(found["base64"]) if found.get("base64") is not None else found["text"].encode()
    before = raw.decode()
    after, done, refused = carry_out(before, plan["todos"])
    diff, digest = "", ""
    if after != before:
        diff = path.replace("%", "%25").replace("/", "%2F") + ".diff"
        digest = host.fs_write(f"{workspace}/{diff}", unified(path, before, after))
    return {"diff": diff, "digest": digest, "done": done, "refused": refused}
