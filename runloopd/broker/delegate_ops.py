"""``agent.delegate``: another agent or an opening does something, with no more rights than who asks.

Knows: which rights may be passed on, and what the caller hears of the end. Does not know: how the run is
started, found again after a crash and stopped (``runloopd.runs.delegation``, behind :class:`DelegatePort`).

What is asked for by name and is not the caller's own is refused, never narrowed in silence: an agent that
needs more than its parent has is a mistake, or an attack (attacks.md P8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from runloop.caps.policy import CapsError, Policy, Verdict, effective, everything
from runloop.clock import Clock
from runloop.errors import FailedError, RefusedError, UsageError
from runloop.events import Draft, GuestError, RunStarted
from runloop.ops import AgentDelegate
from runloopd.broker.asks import Ask, CapabilityError, Done, require
from runloopd.broker.effects import admitted, bounded

__all__ = ["DELEGATED", "DelegateOps", "DelegatePort", "Delegation", "Ended", "bound_of", "judge"]

DELEGATED = "delegated"
"""Key of ``run.started.policy``: ``{call, args_digest, caps}`` of a run that a host call started."""

MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1_000, 86_400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegation:
    """What is to be done, by whom, within which bounds."""

    run: str
    node: str
    attempt: int
    call: int
    args_digest: str
    use: str
    params: dict[str, Any]
    bound: Policy
    """The most the run may hold."""
    micro_usd: int | None
    tokens: int | None
    timeout_ms: int
    mark: Draft
    """First mark of the call, stated together with the run."""
    args_blob: bytes
    check: Callable[[], object]
    """Asked right before it is stated; raises when the caller may do nothing any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How the run ended."""

    run: str
    event: int
    """Ledger id of its ``run.finished``."""
    answer: dict[str, Any] | None
    """``{run, ports}``; None when it did not succeed."""
    error: GuestError | None = None
    timed_out: bool = False


class DelegatePort(Protocol):
    """Starts a delegated run, or finds the one that was started, and waits for its end."""

    async def delegated(self, wish: Delegation) -> Ended:
        """Raises for what may not be started. Cancelled: the run goes on until its caller is over."""
        ...


class DelegateOps:
    """``agent.delegate``."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self.port: DelegatePort | None = None
        """Set by the composition root: runs are built on top of the gate."""

    async def delegate(self, ask: Ask) -> Done:
        """``{run, ports}`` once the run has succeeded."""
        args = cast(AgentDelegate, ask.args)
        bound = judge(ask)
        if self.port is None:
            raise RefusedError("nothing can be delegated here", code="delegate.absent")
        wish = Delegation(
            run=ask.caller.run,
            node=ask.caller.node,
            attempt=ask.caller.attempt,
            call=ask.call.index,
            args_digest=ask.args_digest,
            use=args.use,
            params=args.params,
            bound=bound,
            micro_usd=args.budget_micro_usd,
            tokens=args.budget_tokens,
            timeout_ms=args.timeout_ms,
            mark=admitted(ask),
            args_blob=ask.args_blob,
            check=ask.check,
        )
        ended = await bounded(self.port.delegated(wish), self._clock, due_ms=None, abandoned=ask.abandoned)
        if ended.answer is None:
            return Done.failed(_failure(args, ended), causes=(ended.event,))
        return Done(value=ended.answer, causes=(ended.event,), label=f"agent:{args.use.partition(':')[2]}")


def bound_of(started: RunStarted) -> Policy | None:
    """The most a delegated run may hold; None for any other."""
    said = started.policy.get(DELEGATED)
    return Policy.from_json(said["caps"]) if isinstance(said, dict) else None


def judge(ask: Ask) -> Policy:
    """The rights that would be passed on; raises for what may not be asked for."""
    args = cast(AgentDelegate, ask.args)
    _judge(ask, args)
    return _bound(ask, args)


def _judge(ask: Ask, args: AgentDelegate) -> None:
    kind, _, name = args.use.partition(":")
    if kind not in ("agent", "opening") or not name:
        raise UsageError(
            f"agent.delegate: use is {args.use[:80]!r}",
            hint="write agent:NAME or opening:NAME",
            code="op.args",
        )
    if not MIN_TIMEOUT_MS <= args.timeout_ms <= MAX_TIMEOUT_MS:
        raise UsageError(
            f"agent.delegate: timeout_ms is {args.timeout_ms}, not {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS}",
            code="op.args",
        )
    for limit in (args.budget_micro_usd, args.budget_tokens):
        if limit is not None and limit < 0:
            raise UsageError("agent.delegate: a budget is not negative", code="op.args")
    require(ask, "spawn", name.partition("@")[0] if kind == "agent" else args.use)


def _bound(ask: Ask, args: AgentDelegate) -> Policy:
    """The rights that are passed on: those asked for, each held by the caller, or all the caller has."""
    if args.caps is None:
        return ask.grants
    try:
        asked = Policy.from_json(args.caps)
    except CapsError as error:
        raise UsageError(f"agent.delegate: caps: {error.message}", hint=error.hint, code="op.args") from error
    for name, value in asked.grants.items():
        if not ask.grants.reaches(name, value):
            raise CapabilityError(
                Verdict(
                    allowed=False,
                    capability=name,
                    target=args.use,
                    reason=f"{ask.agent} cannot pass {name} on to {args.use}: it does not hold all of it",
                    how_to_obtain="ask for what the caller holds, or have the operator grant it more",
                )
            )
    # Narrowed as well: an entry that is held for some paths and methods only is passed on for those only.
    return effective(everything(), asked, None, ask.grants).policy


def _failure(args: AgentDelegate, ended: Ended) -> FailedError:
    why = ended.error.message if ended.error is not None else "it was ended"
    code = "delegate.timed_out" if ended.timed_out else "delegate.failed"
    said = f" ({ended.error.code})" if ended.error is not None else ""
    return FailedError(f"{args.use} did not do it: {why}{said}", hint=f"rlp trace {ended.run[:8]}", code=code)
