"""Runs that a host call started: another agent does something for the one that asked, and is waited for.

As with nested runs nothing is a choice: the id is drawn from the call, what is started is stated together
with the first mark of the call, and how it ended is in the ledger. So a daemon that dies anywhere comes to
the same run and the same answer.

Knows: how the wish of a guest becomes an opening of one node, and what the run may hold and spend. Does not
know: which rights may be passed on (``broker.delegate_ops``), how runs inside others are counted, waited for
and stopped (``children``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from openings import child, engine
from openings.definition import Opening
from pog.reader import Reader
from runloop.config import shipped
from runloop.errors import NotFoundError, UsageError
from runloop.events import AgentPin, RunFinished, RunParent, RunStarted
from runloop.ids import delegated_run_id
from runloopd.broker.delegate_ops import DELEGATED, Delegation, Ended
from runloopd.runs.children import Children

__all__ = ["Delegations", "Judged"]

TIMED_OUT = "run.timeout"
"""How a run fails that took too long (``openings.outcome``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """An opening as it would run."""

    opening: Opening
    params: dict[str, Any]
    pins: dict[str, AgentPin]
    limits: dict[str, Any]
    dev: list[str]
    """Agents that nobody but this home vouches for."""


class Delegations:
    """Starts delegated runs and waits for them: the gate's :class:`DelegatePort`."""

    def __init__(
        self,
        *,
        children: Children,
        reader: Reader,
        judge: Callable[[str, str, Mapping[str, Any]], Awaitable[Judged]],
        outputs: Callable[[str], Sequence[str]],
        engine_versions: Callable[[], dict[str, Any]],
    ) -> None:
        """``judge(source, name, params)``: the opening of a text, judged as a submitted one is, its agents
        prepared. ``outputs(use)``: the output ports of an agent. Both raise for what may not be run."""
        self._children = children
        self._reader = reader
        self._judge = judge
        self._outputs = outputs
        self._engine_versions = engine_versions

    async def delegated(self, wish: Delegation) -> Ended:
        """See the protocol."""
        run = delegated_run_id(wish.run, wish.node, wish.attempt, wish.call)
        await self._children.begin(run, wish, lambda: self._made(wish))
        ended = await self._children.ended(run)
        finished = cast(RunFinished, ended.payload)
        if finished.outcome != "succeeded":
            late = finished.error is not None and finished.error.code == TIMED_OUT
            return Ended(run=run, event=ended.id, answer=None, error=finished.error, timed_out=late)
        state = engine.fold(self._reader.events(run=run))
        return Ended(run=run, event=ended.id, answer=child.answer(run, state))

    async def _made(self, wish: Delegation) -> RunStarted:
        first = next(self._reader.events(run=wish.run, limit=1))
        around = cast(RunStarted, first.payload)
        name, source = self._source(wish)
        judged = await self._judge(source, name, wish.params)
        root = around.parent.root if around.parent is not None else wish.run
        return RunStarted(
            opening=judged.opening.name,
            definition=judged.opening.to_json(),
            definition_digest=judged.opening.digest,
            params=judged.params,
            agents=judged.pins,
            engine=self._engine_versions(),
            policy=_policy(judged.limits, around, wish),
            principal=around.principal,
            origin=_origin(around.origin, judged.dev),
            parent=RunParent(run=wish.run, node=wish.node, attempt=wish.attempt, root=root),
        )

    def _source(self, wish: Delegation) -> tuple[str, str]:
        """Name and text of the opening that a wish stands for: one node, or a shipped one."""
        kind, _, name = wish.use.partition(":")
        if kind == "agent":
            return _of_one_node(wish.use, wish.params, self._outputs(wish.use))
        place = shipped("openings") / f"{name}.yaml"
        if not name.replace("_", "a").isalnum() or not place.is_file():
            raise NotFoundError(
                f"there is no shipped opening {name[:80]!r}",
                hint="'rlp list' shows them",
                code="opening.absent",
            )
        return name, place.read_text()


def _of_one_node(use: str, params: Iterable[str], outputs: Iterable[str]) -> tuple[str, str]:
    """An opening that gives its parameters to one agent and saves what that gives."""
    params = list(params)
    for param in params:
        if not param.isidentifier() or param != param.lower():
            raise UsageError(
                f"agent.delegate: a parameter cannot be called {param[:80]!r}",
                hint="use lower-case letters, digits and underscores",
                code="op.args",
            )
    name = f"delegate_{use.partition(':')[2].partition('@')[0]}"[:64]
    made = {
        "version": 0,
        "name": name,
        "params": {param: {"type": "any", "required": False} for param in params},
        "nodes": [{"id": "task", "use": use, "with": {each: f"{{{{params.{each}}}}}" for each in params}}],
        "artifacts": {"save": [f"task.{port}" for port in outputs]},
    }
    return name, orjson.dumps(made).decode()  # JSON is YAML


def _origin(around: Mapping[str, Any], dev: Iterable[str]) -> dict[str, Any]:
    origin = {**around, "via": "agent", "source_path": None}
    named = sorted({*origin.get("dev", ()), *dev})
    return {**origin, "dev": named} if named else origin


def _policy(limits: Mapping[str, Any], around: RunStarted, wish: Delegation) -> dict[str, Any]:
    """Its own limits, those of the run around it, and what was asked for: the least of each."""
    policy = dict(limits)
    for name, asked in (("budget_micro_usd", wish.micro_usd), ("budget_tokens", wish.tokens)):
        found = [limit for limit in (policy.get(name), around.policy.get(name), asked) if limit is not None]
        policy[name] = min(found, default=None)
    own = policy.get("timeout_ms")
    policy["timeout_ms"] = wish.timeout_ms if own is None else min(own, wish.timeout_ms)
    policy["quotas"] = {**policy.get("quotas", {}), **around.policy.get("quotas", {})}
    policy[DELEGATED] = {
        "call": wish.call,
        "args_digest": wish.args_digest,
        "caps": wish.bound.to_json(),
    }
    return policy
