"""The folders of an agent as a program sees them: what is granted, no more.

Knows: ``fs_ro`` and ``fs_rw``. Does not know: how a folder is opened and bound (``tools.enclosure``).
"""

from __future__ import annotations

from collections.abc import Iterable

from runloop.caps.grants import covers_path
from runloop.caps.policy import Policy
from runloopd.broker.tools.sandbox import Mount

__all__ = ["mounts_of", "narrowed", "shown_folders"]


def mounts_of(grants: Policy, *, writable: bool = True) -> tuple[Mount, ...]:
    """Every granted folder under its own name; ``writable`` False: none of them can be written."""
    rw = _roots(grants, "fs_rw")
    ro = [root for root in _roots(grants, "fs_ro") if root not in rw]
    return (
        *(Mount(path=root) for root in ro),
        *(Mount(path=root, writable=writable) for root in rw),
    )


def shown_folders(mounts: Iterable[Mount]) -> list[dict[str, object]]:
    """As a person reads them: ``[{path, writable}]``."""
    return [{"path": mount.path, "writable": mount.writable} for mount in mounts]


def narrowed(grants: Policy, folder: str, *, writable: bool) -> Mount | None:
    """One folder as a grant covers it; None: no grant does."""
    if any(covers_path(root, folder) for root in _roots(grants, "fs_rw")):
        return Mount(path=folder, writable=writable)
    if not writable and any(covers_path(root, folder) for root in _roots(grants, "fs_ro")):
        return Mount(path=folder)
    return None


def _roots(grants: Policy, capability: str) -> list[str]:
    value = grants.value(capability)
    return ["/"] if value is True else [str(root) for root in value or ()]
