"""Whether a guest may make a host call: the one check of it, for the gate, a rehearsal and a what-if.

Knows: that an op must be declared by the manifest and granted at all, and that a targeted op names its target
itself, in its own check. Does not know: tokens, runs, quotas, what an op does. Pure.
"""

from __future__ import annotations

from runloop.caps.policy import Policy, Verdict
from runloop.ops import Op
from runloopd.broker.asks import CapabilityError

__all__ = ["authorise", "undeclared"]


def authorise(agent: str, declared: frozenset[str], op: Op, grants: Policy) -> Verdict | None:
    """The verdict on an op as such; None where there is nothing to be said about it before its own check.

    Raises :class:`CapabilityError`.
    """
    if op.name not in declared:
        raise CapabilityError(undeclared(agent, op.name))
    if op.capability is None or op.targeted:
        return None
    verdict = grants.allows(op.capability, agent=agent)
    if not verdict.allowed:
        raise CapabilityError(verdict)
    return verdict


def undeclared(agent: str, op: str) -> Verdict:
    """The refusal of a call that the manifest does not declare."""
    return Verdict(
        allowed=False,
        capability="ops",
        target=op,
        reason=f"the manifest of {agent} does not declare {op}",
        how_to_obtain=f"the author adds {op!r} to 'ops' in its manifest.toml",
    )
