"""Control groups: a share of the machine for each run, and one blow that ends all that belongs together."""

from __future__ import annotations

from runloopd.cgroups.group import Bounds, Used
from runloopd.cgroups.kernel import NotDelegated
from runloopd.cgroups.tree import Groups, GroupsRefused, Member, divided, undivided

__all__ = ["Bounds", "Groups", "GroupsRefused", "Member", "NotDelegated", "Used", "divided", "undivided"]
