"""An agent's folder as its author keeps it: which files are source, and what is never looked at.

Knows: hidden files, leftovers of tools and tests, bounds. Does not know: what any file means. Unlike
``bundle.digest.read_bundle``, which takes a folder whole or not at all, this leaves out what an author has
lying about (``.git``, a virtual environment, build output), and refuses links among what is left.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from runloop.authoring.toolchains import OpUse
from runloop.errors import NotFoundError, RefusedError
from runloop.ops import OPS

__all__ = ["MAX_SOURCE_BYTES", "SourceError", "modules_of", "op_literals", "read_source"]

MAX_SOURCE_BYTES = 32 * 1024 * 1024
MAX_SOURCE_FILES = 2_000
MAX_DEPTH = 12

_PRODUCTS = (".rlb",)
"""What ``rlp agent build`` leaves beside the source."""


class SourceError(RefusedError):
    """The folder holds something that is no source: a link, a device, far too much."""

    code: ClassVar[str] = "agent.source_files"


def read_source(folder: Path, leftovers: Collection[str] = ()) -> dict[str, bytes]:
    """Every source file of an agent: path with ``/`` -> bytes, sorted by UTF-8.

    Left out: names that begin with a dot, directories called like one of ``leftovers`` or ``__pycache__``,
    finished bundles. Raises :class:`NotFoundError` for no folder, :class:`SourceError`.
    """
    skipped = {*leftovers, "__pycache__"}
    files: dict[str, bytes] = {}
    try:
        _read(folder, "", 0, skipped, files)
    except NotADirectoryError as error:
        raise NotFoundError(f"{folder} is not a folder", code="agent.folder") from error
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no agent in {folder}",
            hint="'rlp agent scaffold NAME --lang python' makes one",
            code="agent.folder",
        ) from error
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}") from error
    return dict(sorted(files.items(), key=lambda item: item[0].encode(errors="surrogateescape")))


def _read(folder: Path, prefix: str, depth: int, skipped: set[str], files: dict[str, bytes]) -> None:
    if depth > MAX_DEPTH:
        raise SourceError(f"{prefix!r} lies deeper than {MAX_DEPTH} folders", hint="move it up")
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = prefix + entry.name
        if entry.name.startswith(".") or path.endswith(_PRODUCTS):
            continue
        facts = entry.stat(follow_symlinks=False)
        mode = facts.st_mode
        if stat.S_ISDIR(mode):
            if entry.name not in skipped:
                _read(folder / entry.name, path + "/", depth + 1, skipped, files)
        elif stat.S_ISREG(mode):
            # Its size first: a file of a stranger may be larger than the memory.
            size = sum(map(len, files.values())) + facts.st_size
            if len(files) >= MAX_SOURCE_FILES or size > MAX_SOURCE_BYTES:
                raise SourceError(
                    f"{folder} holds more than {MAX_SOURCE_FILES} files or {MAX_SOURCE_BYTES} bytes",
                    hint="keep what is no source in a folder whose name begins with a dot",
                )
            files[path] = (folder / entry.name).read_bytes()
        else:
            raise SourceError(
                f"{path} is a link or a special file",
                hint="replace it by a copy, or keep it in a folder whose name begins with a dot",
            )


def modules_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """Dotted module name -> path of every Python file that belongs to the agent itself; its tests do not."""
    return {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in files
        if path.endswith(".py") and not path.startswith("tests/")
    }


_QUOTED = re.compile(r"""["']([a-z]+\.[a-z_]+|progress)["']""")


def op_literals(
    folder: Path,
    suffixes: Collection[str],
    leftovers: Collection[str] = (),
    names: Mapping[str, str] | None = None,
) -> list[OpUse]:
    """Host calls named in text files with one of ``suffixes``.

    Found are op names in quotes, and each key of ``names`` (such as ``"kb_search("``) for the op it stands
    for. Comments are not told apart: an op named there counts.
    """
    found: list[OpUse] = []
    for path, data in read_source(folder, leftovers).items():
        if not path.endswith(tuple(suffixes)) or path.startswith("tests/"):
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            ops = [op for op in _QUOTED.findall(line) if op in OPS]
            ops += [op for name, op in (names or {}).items() if name in line]
            found += [OpUse(op=op, file=path, line=number) for op in dict.fromkeys(ops)]
    return found
