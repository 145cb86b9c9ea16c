"""``notify.send``: a line for the person at this machine, and for nobody else.

Knows: how the desktop and whoever follows the run are told, and how often. Does not know: who reads it. What
an agent says is text: no markup, no control characters, no sound of its own choice.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from runloop.clock import Clock
from runloopd.broker.ports import Delta
from runloopd.broker.toolbox import ToolContext, ToolError
from runloopd.broker.tools.family import Family, HostTool, array, text

__all__ = ["Desktop", "notify_tools"]

PER_MINUTE = 6
_KEPT = ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR")
_WAIT_S = 5.0


class Desktop:
    """The desktop of the user who runs the daemon; there may be none."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        given = os.environ if environ is None else environ
        self._env = {name: given[name] for name in _KEPT if name in given}

    async def show(self, title: str, body: str) -> bool:
        """Whether it was shown. Never raises."""
        program = shutil.which("notify-send", path="/usr/bin:/usr/local/bin")
        if program is None or "DBUS_SESSION_BUS_ADDRESS" not in self._env:
            return False
        words = ("--app-name=Runloop", "--urgency=normal", "--", title, _unmarked(body))
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *words,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            return False
        try:
            async with asyncio.timeout(_WAIT_S):
                return await process.wait() == 0
        except TimeoutError:
            process.kill()
            await process.wait()
            return False


def notify_tools(on_delta: Callable[[Delta], None], clock: Clock, desktop: Desktop) -> Family:
    """The family ``notify``. ``on_delta`` reaches whoever follows the run."""
    sent: dict[str, deque[int]] = {}

    async def send(args: dict[str, Any], context: ToolContext) -> Any:
        now = clock.now_ms()
        for agent in [agent for agent, times in sent.items() if times[-1] <= now - 60_000]:
            del sent[agent]
        lately = sent.setdefault(context.agent, deque())
        while lately and lately[0] <= now - 60_000:
            lately.popleft()
        if len(lately) >= PER_MINUTE:
            raise ToolError(
                f"notify.send: more than {PER_MINUTE} notes in a minute",
                hint="say it once",
                code="tool.failed",
                retryable=True,
            )
        lately.append(now)
        title = _line(f"{context.agent}: {args['title']}")
        body = _line(args.get("text", ""))
        shown = ["terminal"]
        said = f"{title}: {body}" if body else title
        on_delta(Delta(run=context.run, node=context.node, kind="log", text=said, fields={"notify": True}))
        if await desktop.show(title, body):
            shown.append("desktop")
        return {"shown": shown}

    return Family(
        (
            HostTool(
                name="notify.send",
                about="Show a short note to the person at this machine.",
                takes={
                    "title": text("A few words.", 120, least=1),
                    "text": text("A line or two.", 500, default=""),
                },
                gives={"shown": array("Where.", {"type": "string", "enum": ["desktop", "terminal"]}, 2)},
                effect="write",
                run=send,
            ),
        )
    )


def _line(value: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in value).split())


def _unmarked(body: str) -> str:
    """Desktops read markup in the text of a note."""
    return body.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
