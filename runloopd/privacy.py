"""What the process that holds keys does about itself, before anything else: nobody looks into it.

Knows: that the first environment of a process stays readable in ``/proc``, that a core file holds everything,
that another process of the same user may attach (attacks.md K1, K5). Does not know: what the keys are for.

Root reads everything, and somebody who may become the user by other ways reads the user's files.
"""

from __future__ import annotations

import ctypes
import re
import resource
from collections.abc import Collection, MutableMapping
from contextlib import suppress
from pathlib import Path

__all__ = ["guard_process", "take_keys"]

_PR_SET_DUMPABLE = 4
_KEYISH = re.compile(
    r"(^|_)(KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASS|PAT|CREDENTIALS?)(_|$)", re.IGNORECASE
)
_NO_KEYS = ("RUNLOOP", "XDG_")
"""Our own settings name keys and hold none."""
_PLACES = frozenset({"CREDENTIALS_DIRECTORY", "GOOGLE_APPLICATION_CREDENTIALS"})


def guard_process() -> None:
    """No core file, nobody attaches, and ``/proc`` shows memory and environment to root alone."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Beside the limit: a core that is piped to a collector has no size limit, an undumpable process has none.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def take_keys(environ: MutableMapping[str, str], named: Collection[str] = ()) -> dict[str, str]:
    """Take what may be a key out of the environment; the environment as it was.

    Taken are the variables ``named`` and those whose name says so (``…_API_KEY``, ``…_TOKEN``). Nothing
    inherits them afterwards, and they are wiped from the memory that ``/proc/self/environ`` shows.
    """
    before = dict(environ)
    taken = [name for name in before if name in named or _looks_like_a_key(name)]
    for name in taken:
        del environ[name]
    with suppress(OSError, ValueError, IndexError):  # without /proc there is nobody to show it to
        _wipe({f"{name}={before[name]}".encode("utf-8", "surrogateescape") for name in taken})
    return before


def _looks_like_a_key(name: str) -> bool:
    return bool(_KEYISH.search(name)) and not name.startswith(_NO_KEYS) and name not in _PLACES


def _wipe(entries: Collection[bytes]) -> None:
    """Blank these entries of the block of strings the process was started with."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start and env_end, the 50th and 51st of all
    if not entries or end <= start:
        return
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(start)
        block = memory.read(end - start)
        at = 0
        for entry in block.split(b"\0"):
            if entry in entries:
                memory.seek(start + at)
                memory.write(b"\0" * len(entry))
            at += len(entry) + 1
