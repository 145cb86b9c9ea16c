"""A line typed at the prompt, handed to ``rlp``: one router, one way to start a run, whoever asks.

A child process of the same interpreter; the line goes through its stdin, because arguments are seen by
everybody on the machine. Knows: how ``rlp`` says what it did. Does not know: where a line is routed, or why.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agtop.ports import Submitted
from runloop.errors import FailedError, RunloopError, UsageError, from_wire

__all__ = ["submit_line"]

PATIENCE_S = 300.0
"""The first submission on a machine waits until the runner is compiled."""
MAX_LINE = 65_536
_ELSEWHERE = {"route.shell": "shell", "route.denied": "denied"}


async def submit_line(line: str, *, home: str | None, argv: list[str] | None = None) -> Submitted:
    """Do with a line what ``rlp "<line>"`` does, up to the start of the run.

    Raises what ``rlp`` would have said; a shell line and a denied one are answers, not errors.
    """
    if not line.strip():
        raise UsageError("there is nothing in the line", hint="say what you want", code="route.empty")
    if len(line) > MAX_LINE:
        raise UsageError(f"the line has more than {MAX_LINE} characters", hint="put a long text into a file")
    command = argv or [sys.executable, "-P", "-m", "rlp"]
    options = ["--json", "--no-input", "--detach", *(("--home", home) if home else ())]
    child = await asyncio.create_subprocess_exec(
        *command,
        *options,
        "--",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await child.communicate(line.encode())
    except TimeoutError as error:
        child.kill()
        await child.wait()
        raise FailedError(
            f"the line was not submitted within {PATIENCE_S:g} s", hint="'rlp daemon status' looks for causes"
        ) from error
    except asyncio.CancelledError:
        child.kill()
        raise
    return _said(out, err)


def _said(out: bytes, err: bytes) -> Submitted:
    """What the child's last line means."""
    last = _last_object(out)
    if "run" in last:
        return Submitted(kind="run", run=str(last["run"]), words=_words(err))
    if isinstance(last.get("error"), dict):
        error = from_wire(last["error"])
        kind = _ELSEWHERE.get(error.named_code)
        if kind is not None:
            return Submitted(kind="shell" if kind == "shell" else "denied", words=error.message)
        raise error
    raise RunloopError(
        f"rlp said nothing that can be read: {_words(err) or 'no word'}", hint='try it in a shell: rlp "..."'
    )


def _last_object(out: bytes) -> dict[str, Any]:
    for line in reversed(out.decode("utf-8", "replace").splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return {}


def _words(err: bytes) -> str:
    lines = [line for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[0].removeprefix("rlp: ") if lines else ""
