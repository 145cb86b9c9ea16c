"""Which sandbox holds programs: what the configuration says, and never another one instead.

Knows: the word for each. Does not know: any of them. One that cannot be made here says so at every program
(``tool.sandbox``); there is no second choice, because a weaker wall would be believed to be the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runloop.config import Security
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.container import Container
from runloopd.cgroups import Groups, GroupsRefused

__all__ = ["chosen_sandbox"]


def chosen_sandbox(
    security: Security, ours: Iterable[Path], door: Path, groups: Groups | None = None
) -> Bubblewrap | Container:
    """The sandbox. ``ours``: what no program sees; ``door``: a folder of the daemon's own; ``groups``: where
    programs are put. An engine makes groups of its own for its containers, and not below their run's:
    :class:`GroupsRefused` for whoever insists on those."""
    if security.sandbox == "container":
        if security.control_groups == "required":
            raise GroupsRefused(
                'security.control_groups is "required", and programs in containers are in no group of a run',
                hint='security.sandbox = "bubblewrap", or security.control_groups = "auto"',
            )
        return Container(ours, door=door, image=security.sandbox_image, engine=security.sandbox_engine)
    return Bubblewrap(ours, groups)
