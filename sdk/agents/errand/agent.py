"""Calls one tool for whoever is outside, and hands on its answer."""

from __future__ import annotations

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    """``with.tool`` and ``with.args`` -> what the tool answered, on port ``out``."""
    try:
        answered = host.call("tool.call", {"tool": str(task.param("tool")), "args": task.param("args")})
    except HostRefused as refused:
        raise Fail(refused.code, str(refused)) from refused
    return Result.of(out=answered["result"])
