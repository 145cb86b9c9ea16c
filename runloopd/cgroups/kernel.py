"""Where this process stands in the tree of control groups, and whether that part of it is ours to divide.

Knows: ``/proc/self/cgroup``, ``/proc/self/mountinfo``, version 2 of control groups, the mark that systemd
puts on a group it has handed over (``Delegate=``). Does not know: what the groups are for (:mod:`.tree`).

A group is ours when whoever runs the service manager gave it away: its files belong to us, or, for root, whom
every file belongs to, the mark says so. And we must be alone in it: what else lives there was not given away.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTROLLERS", "Delegated", "NotDelegated", "delegated", "mount_point", "own_group"]

CONTROLLERS = ("cpu", "memory", "pids")
"""Those that bounds are written for. Not ``io``: its weights hold for few schedulers of disks."""
_MARKS = ("user.delegate", "trusted.delegate")
"""Names of systemd's mark: since version 252, and before."""


class NotDelegated(Exception):
    """There is no part of the tree that is ours; the text says why, as 'rlp doctor' shows it."""


@dataclass(frozen=True, slots=True)
class Delegated:
    """A group that is ours, with this process alone in it."""

    path: Path
    controllers: tuple[str, ...]
    """Of :data:`CONTROLLERS`, those that were handed over with it."""


def delegated(proc: Path = Path("/proc/self")) -> Delegated:
    """The group we may divide. Changes nothing. Raises :class:`NotDelegated`."""
    try:
        name = own_group((proc / "cgroup").read_text())
        mount = mount_point((proc / "mountinfo").read_text(), name)
    except OSError as error:
        raise NotDelegated(f"/proc does not tell: {error.strerror}") from error
    if name is None or mount is None:
        raise NotDelegated("this machine has no control groups of version 2")
    try:
        return _ours(mount)
    except OSError as error:
        raise NotDelegated(f"control groups cannot be read: {error.strerror}") from error


def _ours(path: Path) -> Delegated:
    if not os.access(path, os.W_OK) or not os.access(path / "cgroup.procs", os.W_OK):
        raise NotDelegated("its control group was not handed over to the daemon (Delegate= in its unit)")
    if os.geteuid() == 0 and not _marked(path):
        raise NotDelegated("root may write every control group, and nobody handed this one over")
    inside = (path / "cgroup.procs").read_text().split()
    if inside != [str(os.getpid())]:
        raise NotDelegated(f"{len(inside)} processes share its control group")
    handed = (path / "cgroup.controllers").read_text().split()
    return Delegated(path, tuple(one for one in CONTROLLERS if one in handed))


def _marked(path: Path) -> bool:
    for name in _MARKS:
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            continue
    return False


def own_group(text: str) -> str | None:
    """The name of a group of version 2 in ``/proc/<pid>/cgroup``; None where there is none."""
    for line in text.splitlines():
        hierarchy, controllers, name = [*line.split(":", 2), "", "", ""][:3]
        if hierarchy == "0" and not controllers and name.startswith("/"):
            return name.removesuffix(" (deleted)")
    return None


def mount_point(text: str, name: str | None) -> Path | None:
    """Where the group ``name`` lies in the file system, by ``/proc/<pid>/mountinfo``; None: nowhere."""
    if name is None or ".." in name.split("/"):
        return None  # a group above what this namespace shows
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or kind[:1] != ["cgroup2"]:
            continue
        root, place = (_plain(field) for field in fields[3:5])
        root = root.rstrip("/")
        if name == root or name.startswith(root + "/"):
            return Path(place, name[len(root) :].lstrip("/"))
    return None


def _plain(field: str) -> str:
    """A field of mountinfo: blanks and the like are written as three octal digits."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, character)
    return field
