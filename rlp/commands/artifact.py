"""``rlp artifact``: the files a run produced, and the bytes of one."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from rlp.session import Session
from runloop.errors import FailedError, NotFoundError, UsageError
from runloop.exits import Exit
from runloop.spelling import did_you_mean

__all__ = ["artifact"]


def artifact(session: Session, *, run: str, name: str | None, output: str | None) -> Exit:
    """List the artifacts of a run, or give one: to a file, to a pipe byte for byte, on a terminal escaped."""
    found = [_row(event) for event in session.events(run) if event["kind"] == "artifact.created"]
    if name is None:
        if output is not None:
            raise UsageError("--output takes one artifact", hint=f"name it: rlp artifact {run} NAME -o FILE")
        session.console.rows(
            found, ("name", "node", "media_type", "size", "blob"), empty="the run has produced no files"
        )
        return Exit.OK
    newest = {row["name"]: row for row in found}
    if name not in newest:
        raise NotFoundError(
            f"the run {run} has no artifact {name!r}",
            hint=did_you_mean(name, newest, f"it has: {', '.join(newest) or 'none'}"),
            code="artifact.absent",
        )
    data = base64.b64decode(session.ask("blob.get", digest=newest[name]["blob"])["base64"])
    _give(session, data, newest[name], output)
    return Exit.OK


def _row(event: dict[str, Any]) -> dict[str, Any]:
    payload = event["payload"]
    return {key: payload[key] for key in ("name", "node", "media_type", "size", "blob")}


def _give(session: Session, data: bytes, row: dict[str, Any], output: str | None) -> None:
    if output is not None:
        _write(Path(output), data)
        session.console.say(f"rlp: {len(data)} bytes in {output}")
    elif session.json:
        session.console.json({**row, "base64": base64.b64encode(data).decode()})
    elif session.console.out.isatty():
        # An agent wrote it: on a terminal its control codes are shown, not obeyed.
        session.console.text(data.decode("utf-8", "backslashreplace"))
    else:
        session.console.out.flush()
        session.console.out.buffer.write(data)
        session.console.out.buffer.flush()


def _write(path: Path, data: bytes) -> None:
    """A new file; what is there already is somebody's."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise UsageError(
            f"{path} is there already", hint="name another file", code="artifact.exists"
        ) from error
    except OSError as error:
        raise FailedError(f"{path} cannot be written: {error.strerror}", code="artifact.write") from error
    with os.fdopen(opened, "wb") as file:
        file.write(data)
