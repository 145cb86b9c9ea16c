"""Control methods of standing grants: what a person allowed for good, listed and taken back in one place.

Knows: the shapes of the methods. Does not know: what a grant covers (``authority.standing``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runloopd.authority.approvals import Approvals
from runloopd.authority.standing import Standing
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import MAX_PAGE, Params, Row

__all__ = ["rows"]


class ListGrants(Params, frozen=True, kw_only=True):
    agent: str | None = None


class Give(Params, frozen=True, kw_only=True):
    approval: str
    action_digest: str
    """Of what the person was shown."""
    confirm: str = ""
    """What the person typed out."""


class Revoke(Params, frozen=True, kw_only=True):
    grant: str
    reason: str = ""


def rows(standing: Standing, approvals: Approvals) -> Sequence[Row]:
    """``grants.list``, ``grants.give`` and ``grants.revoke``."""

    async def listed(_: Principal, params: ListGrants) -> Any:
        return {"grants": [grant.to_json() for grant in standing.list(params.agent)[:MAX_PAGE]]}

    async def give(principal: Principal, params: Give) -> Any:
        approval = approvals.find(params.approval)
        return (await standing.give(principal, approval, params.action_digest, params.confirm)).to_json()

    async def revoke(principal: Principal, params: Revoke) -> Any:
        return (await standing.revoke(principal, params.grant, params.reason)).to_json()

    return [
        ("grants.list", ListGrants, listed, True),
        ("grants.give", Give, give, True),
        ("grants.revoke", Revoke, revoke, True),
    ]
