"""How a run ends when nothing is left to do: its outcome, the clause that held, its outputs, its error.

Knows: what counts as success, and what ends a run whatever its nodes did. Does not know: when that is asked
(``engine``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from openings.commands import FinishRun
from openings.expressions import evaluate
from openings.state import NodeRun, NodeState, RunState
from runloop.digest import digest
from runloop.events import GuestError

__all__ = ["FORK_DIVERGED", "finish", "why_ending"]

FORK_DIVERGED = "fork.divergence"
"""Code of the failure that ends a fork as failed, whatever else became of it."""


def finish(state: RunState) -> FinishRun:
    """The command that ends a run of which nothing is open any more."""
    outputs = {
        f"{node.id}.{port}": digest(list(values))
        for node in _declared(state)
        if node.state is NodeState.SUCCEEDED
        for port, values in node.ports.items()
    }
    outcome, clause, error = _outcome(state)
    return FinishRun(
        outcome=outcome, clause=clause, outputs=outputs, output_digest=digest(outputs), error=error
    )


def why_ending(state: RunState) -> str:
    """Why a run is brought to its end before all of it was done."""
    return state.cancel if state.cancel is not None else f"the run took longer than {state.timeout_ms} ms"


def _outcome(
    state: RunState,
) -> tuple[Literal["succeeded", "failed", "cancelled"], str | None, GuestError | None]:
    if state.lineage != state.run and (state.cancel or "").startswith(f"{FORK_DIVERGED}: "):
        message = str(state.cancel).removeprefix(f"{FORK_DIVERGED}: ")
        return "failed", None, GuestError(code=FORK_DIVERGED, message=message)
    if any(node.state is NodeState.CANCELLED for node in _declared(state)):
        if state.cancel is not None:
            return "cancelled", None, GuestError(code="run.cancelled", message=state.cancel)
        return "failed", None, GuestError(code="run.timeout", message=why_ending(state))
    held, clause, reason = _success(state)
    failed = _first_failure(state)
    if held:
        return "succeeded", clause, failed
    return "failed", None, failed or GuestError(code="run.unsuccessful", message=reason)


def _success(state: RunState) -> tuple[bool, str | None, str]:
    """Whether the run succeeded, the clause that says so, and otherwise why not."""
    assert state.opening is not None
    success = state.opening.success
    if success is None or not success.clauses:
        return _first_failure(state) is None, None, "a node failed"
    judged = [(clause, evaluate(clause, state.lookup)) for clause in success.clauses]
    reasons = "; ".join(judgement.reason for _, judgement in judged if not judgement)
    if success.mode == "all_of":
        return not reasons, " and ".join(str(clause) for clause in success.clauses), reasons
    held = next((str(clause) for clause, judgement in judged if judgement), None)
    return held is not None, held, reasons


def _first_failure(state: RunState) -> GuestError | None:
    for node in _declared(state):
        if node.state is NodeState.FAILED and node.error is not None:
            return GuestError(
                code=node.error.code,
                message=f"{node.id}: {node.error.message}",
                retryable=node.error.retryable,
            )
    return None


def _declared(state: RunState) -> Iterator[NodeRun]:
    """The declared nodes, in their order."""
    assert state.opening is not None
    return (state.nodes[node.id] for node in state.opening.nodes)
