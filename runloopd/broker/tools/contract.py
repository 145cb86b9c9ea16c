"""What every source of tools promises, as a check that anybody can run: the kit for authors of tools.

Knows: the promises of :class:`runloopd.broker.toolbox.ToolSource` that can be seen from outside, and what a
bundle's ``tools.json`` must be for its samples to work. Does not know: any tool, or a test framework: a
broken promise is an :class:`AssertionError` that names the tool and the promise.

    async def test_my_tools_keep_the_contract():
        await check_source(MySource(), [Sample(tool="mine.look", args={"at": "x"})])
        check_bundle(Path("tools.json").read_bytes(), [Sample(tool="look", args={}, result={"n": 1})])
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runloop.bundle.json_schema import read_schema
from runloop.bundle.tools import parse_tools
from runloop.caps.policy import Policy, everything
from runloop.digest import canonical
from runloop.errors import RunloopError
from runloopd.broker.tool_results import MAX_RESULT_BYTES
from runloopd.broker.toolbox import Offer, ToolContext, ToolError, ToolResult, ToolSource

__all__ = ["Sample", "calling", "check_bundle", "check_source"]

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}(\.[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}){1,3}\Z")
MAX_DESCRIPTION = 4_096
CANCEL_S = 10.0
ANSWER_S = 60.0


def calling(grants: Policy | None = None, **more: Any) -> ToolContext:
    """A context as the gate gives it; by default with every right."""
    given: dict[str, Any] = {
        "agent": "tester",
        "run": "0b7c7a0e-5a0f-4a3c-9d6e-0123456789ab",
        "node": "test",
        "key": "k" * 64,
        "deadline_ms": 4_102_444_800_000,
        "grants": everything() if grants is None else grants,
    }
    return ToolContext(**{**given, **more})


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A call that works."""

    tool: str
    args: dict[str, Any]
    result: Any = None
    """Of a bundle's tool: what it gives."""
    context: ToolContext = field(default_factory=calling)
    needs_rights: bool = False
    """True: with no rights at all it is refused, and nothing happens."""
    waits: bool = False
    """True: it goes on until it is cancelled, and then ends at once."""


async def check_source(source: ToolSource, samples: Sequence[Sample]) -> None:
    """Hold a source to its promises; every tool it offers should have a sample.

    Raises :class:`AssertionError` that says which promise of which tool is broken.
    """
    offers = {offer.name: offer for offer in source.offers()}
    assert len(offers) == len(source.offers()), "two offers have one name"
    assert {offer.name: offer.definition for offer in source.offers()} == {
        name: offer.definition for name, offer in offers.items()
    }, "asked twice, it offers something else"
    withheld = dict(source.withheld())
    assert not withheld.keys() & offers.keys(), "a tool is offered and withheld"
    assert all(why.strip() for why in withheld.values()), "a tool is withheld without a reason"
    for offer in offers.values():
        _check_offer(offer)
    for sample in samples:
        assert sample.tool in offers, f"{sample.tool} has a sample and is not offered"
        await _check_sample(source, offers[sample.tool], sample)


def _check_offer(offer: Offer) -> None:
    name = offer.name
    assert NAME.match(name), f"{name!r} is no qualified name"
    assert 0 < len(offer.description) <= MAX_DESCRIPTION, f"{name} has no description, or a very long one"
    assert offer.description.isprintable() or offer.source == "mcp", f"{name}: control characters"
    assert offer.effect in ("pure", "read", "write", "send"), f"{name} has the effect {offer.effect!r}"
    assert offer.confirm or offer.effect != "send", f"{name} sends, and asks nobody"
    assert offer.input_schema.get("type") == "object", f"{name} takes no object"
    findings: list[str] = []
    read_schema(offer.input_schema, findings)
    read_schema(offer.result_schema, findings)
    assert not findings, f"{name}: its schemas cannot be used: {findings}"
    known = offer.input_schema.get("properties", {})
    assert set(offer.resource) <= set(known), f"{name} names resources it does not take"
    if offer.source == "host":
        assert offer.input_schema.get("additionalProperties") is False, f"{name} takes what it does not know"
        assert offer.accepts.misfit({"surprise": 1}) is not None, f"{name} takes anything"


async def _check_sample(source: ToolSource, offer: Offer, sample: Sample) -> None:
    name = offer.name
    assert offer.accepts.misfit(sample.args) is None, f"{name}: {offer.accepts.misfit(sample.args)}"
    told = replace(sample.context, args=sample.args)
    if sample.needs_rights:
        await _refused(source, offer, sample, replace(told, grants=Policy(), key="r" * 64))
    if sample.waits:
        await _cancelled(source, offer, sample, told)
    else:
        source.permit(offer, sample.args, told)
        async with asyncio.timeout(ANSWER_S):
            result = await source.call(offer, sample.args, told)
        _check_result(offer, result)
    outcome = await source.reconcile(offer, replace(told, key="n" * 64))
    assert outcome in ("done", "absent", "unknown"), f"{name}: {outcome!r} is no outcome"


async def _refused(source: ToolSource, offer: Offer, sample: Sample, told: ToolContext) -> None:
    try:
        async with asyncio.timeout(ANSWER_S):
            await source.call(offer, sample.args, told)
    except RunloopError as error:
        assert not isinstance(error, ToolError) or error.outcome == "absent", f"{offer.name}: it began"
        return
    raise AssertionError(f"{offer.name} did it for somebody without any right")


async def _cancelled(source: ToolSource, offer: Offer, sample: Sample, told: ToolContext) -> None:
    task = asyncio.ensure_future(source.call(offer, sample.args, told))
    done, _ = await asyncio.wait([task], timeout=0.5)
    assert not done, f"{offer.name} did not wait"
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=CANCEL_S)
    assert done, f"{offer.name} goes on after it was cancelled"
    with contextlib.suppress(asyncio.CancelledError, RunloopError):
        await task


def _check_result(offer: Offer, result: ToolResult) -> None:
    assert isinstance(result, ToolResult), f"{offer.name} gave no ToolResult"
    text = canonical(result.value)
    assert len(text) <= MAX_RESULT_BYTES, f"{offer.name} gave {len(text)} bytes"
    if offer.returns is not None:
        why = offer.returns.misfit(result.value)
        assert why is None, f"{offer.name}: its result does not fit its schema: {why}"
    assert result.label is None or ":" in result.label or result.label.isalpha(), f"{offer.name}: its label"


def check_bundle(tools_json: bytes, samples: Sequence[Sample]) -> None:
    """Hold a bundle's ``tools.json`` to what it says: each sample's arguments and result fit their schemas.

    Raises :class:`AssertionError`; what cannot be read at all raises families of :mod:`runloop.errors`.
    """
    tools = {tool.id: tool for tool in parse_tools(tools_json)}
    for sample in samples:
        assert sample.tool in tools, f"{sample.tool} has a sample and is not in tools.json"
        tool = tools[sample.tool]
        why = tool.accepts.misfit(sample.args)
        assert why is None, f"{sample.tool}: the arguments do not fit: {why}"
        why = tool.returns.misfit(sample.result)
        assert why is None, f"{sample.tool}: the result does not fit: {why}"
        assert tool.accepts.misfit("no object") is not None, f"{sample.tool} takes what is no object"
