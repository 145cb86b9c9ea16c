"""Other names under which a directory of the host can be reached: bind mounts, second mounts of a disk.

Knows: ``/proc/self/mountinfo``. Does not know: whose directory it is, or what is done about a second name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Mounted", "aliases", "read_mounts"]

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the table of mounts."""

    device: str
    root: PurePosixPath
    """What of the file system is mounted."""
    point: PurePosixPath
    """Where."""


def read_mounts(text: str | None = None) -> tuple[Mounted, ...]:
    """The table of mounts of this process."""
    lines = (Path("/proc/self/mountinfo").read_text() if text is None else text).splitlines()
    found = (line.split(" ") for line in lines)
    return tuple(
        Mounted(row[2], PurePosixPath(_plain(row[3])), PurePosixPath(_plain(row[4])))
        for row in found
        if len(row) > 5 and row[3].startswith("/")
    )


def aliases(path: Path, mounts: Iterable[Mounted]) -> tuple[Path, ...]:
    """Every absolute path that leads to ``path`` (resolved), itself first."""
    table = tuple(mounts)
    wanted = PurePosixPath(path)
    # The last one of equal depth covers those before it.
    holder = max(
        (mount for mount in table if wanted.is_relative_to(mount.point)),
        key=lambda mount: len(mount.point.parts),
        default=None,
    )
    found = [path]
    if holder is not None:
        within = holder.root / wanted.relative_to(holder.point)
        for mount in table:
            if mount.device != holder.device:
                continue
            if within.is_relative_to(mount.root):
                found.append(Path(mount.point / within.relative_to(mount.root)))
            elif mount.root.is_relative_to(within):
                found.append(Path(mount.point))
    return tuple(dict.fromkeys(found))


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
