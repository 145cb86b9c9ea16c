"""One marked block in a shell's start-up file: put in, found, taken out again byte for byte.

Knows: the two marks, and what must be remembered to leave no trace (whether the file was there, whether its
last line had an end). Does not know: what stands in the block, or which shell reads it. Works on bytes: a
start-up file need not be text in any encoding.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from runloop.errors import ConflictError, RefusedError

__all__ = ["block_of", "put", "take"]

_BEGIN = b"# >>> runloop shell >>>"
_END = b"# <<< runloop shell <<<"
_JOINED = b" (the line before had no end)"
_MADE = b" (rlp made this file)"
_BLOCK = re.compile(
    rb"^" + re.escape(_BEGIN) + rb"((?: \([a-z ]+\))*)\n(.*?)^" + re.escape(_END) + rb"(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_MAX_BYTES = 4_000_000


def block_of(file: Path) -> bytes | None:
    """What stands between the marks; None where there are none. Raises :class:`ConflictError` for damage."""
    found = _found(file, _read(file))
    return None if found is None else found.group(2)


def put(file: Path, lines: bytes) -> bool:
    """Put the block at the end of the file, or in the place of the one there; False when nothing changed."""
    before = _read(file)
    content = before or b""
    found = _found(file, content)
    if found is None:
        notes = _MADE if before is None else b""
        joint = b"\n" if content and not content.endswith(b"\n") else b""
        notes += _JOINED if joint else b""
        after = content + joint + _BEGIN + notes + b"\n" + lines + _END + b"\n"
    else:
        after = content[: found.start(2)] + lines + content[found.end(2) :]
    if after == before:
        return False
    _write(file, after)
    return True


def take(file: Path) -> bool:
    """Take the block out and leave the file as it was before; False when there is none."""
    content = _read(file)
    found = _found(file, content)
    if content is None or found is None:
        return False
    before, after = content[: found.start()], content[found.end() :]
    if _JOINED in found.group(1) and before.endswith(b"\n"):
        before = before[:-1]
        after = b"\n" + after if after else after
    if _MADE in found.group(1) and not before and not after:
        _real(file).unlink()
    else:
        _write(file, before + after)
    return True


def _found(file: Path, content: bytes | None) -> re.Match[bytes] | None:
    if content is None:
        return None
    found = _BLOCK.search(content)
    marks = content.count(_BEGIN), content.count(_END)
    if marks == (0, 0):
        return None
    if found is None or marks != (1, 1):
        raise ConflictError(
            f"the marks of Runloop in {file} are damaged or doubled",
            hint=f"open {file} and delete what stands between '{_BEGIN.decode()}' and '{_END.decode()}'",
            code="shell.damaged",
        )
    return found


def _real(file: Path) -> Path:
    """Where a link leads: many keep their start-up files in a repository and link to them."""
    return Path(os.path.realpath(file))


def _read(file: Path) -> bytes | None:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise RefusedError(
                f"{file} is too large for a start-up file", hint="look at it", code="shell.file"
            )
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(
            f"{file} cannot be read: {error.strerror}", hint="it must be a file of yours", code="shell.file"
        ) from error


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all, with the rights the file had."""
    real = _real(file)
    fresh: str | None = None
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        number, fresh = tempfile.mkstemp(dir=real.parent, prefix=".runloop-")
        with os.fdopen(number, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(fresh, real.stat().st_mode & 0o7777 if real.exists() else 0o644)  # noqa: PTH101
        os.replace(fresh, real)  # noqa: PTH105
    except OSError as error:
        if fresh is not None:
            Path(fresh).unlink(missing_ok=True)
        raise RefusedError(
            f"{file} cannot be written: {error.strerror}; it is as it was",
            hint="check the rights of the file and of its folder",
            code="shell.file",
        ) from error
