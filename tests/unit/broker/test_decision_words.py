"""A field that is named like a decision decides nothing, wherever a guest or a foreign server writes it (P9).

Made from the table of ops, the parameters of the control methods and the types of foreign documents, at every
depth: what is added to one of them is covered by itself.
"""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

import runloopd.gateway
from runloop.bundle.json_schema import read_schema
from runloop.bundle.manifest import ManifestError, parse_manifest
from runloop.bundle.tools import ToolsError, parse_tools
from runloop.caps.policy import CapsError, parse_policy
from runloop.errors import UsageError
from runloop.ops import OPS, decode_args
from runloop.testing import ManualClock
from runloopd.broker.mcp.definitions import accepting, read_listing
from runloopd.broker.mcp.results import called
from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.broker.toolbox import Offer
from runloopd.gateway.methods import Params
from tests.bundles import MANIFEST
from tests.decisions import WORDS, Place, fields_of, filled, places, poison

from .world import RUN, World, ask, contact, mail, until

OPEN = {
    name: [found.place for found in places(inspect.type_info(op.args)) if not found.closed]
    for name, op in OPS.items()
}
"""Op -> where its arguments hold anything."""


# --- host calls -----------------------------------------------------------------------------------


@pytest.mark.requirement("P9")
@pytest.mark.parametrize("op", sorted(OPS))
def test_no_argument_of_a_host_call_is_named_like_a_decision(op: str) -> None:
    assert fields_of(inspect.type_info(OPS[op].args)) & WORDS.keys() == set()


@pytest.mark.requirement("P9")
@pytest.mark.parametrize("op", sorted(OPS))
def test_an_argument_that_is_added_at_any_depth_is_refused(op: str) -> None:
    kind = inspect.type_info(OPS[op].args)
    whole = filled(kind)
    decode_args(op, whole)
    closed = [found.place for found in places(kind) if found.closed]
    assert () in closed
    for place in closed:
        for word, value in WORDS.items():
            with pytest.raises(UsageError, match="unknown field"):
                decode_args(op, poison(whole, place, {word: value}))


ANYTHING = {"type": "object"}
HONEST: dict[str, Any] = {
    "kb.query": {"sql": "SELECT ? AS one", "params": [1]},
    "kb.propose": contact("c1"),
    "memory.put": {"key": "k", "value": {"x": 1}},
    "model.complete": ask(
        "hello",
        json_schema={"type": "object"},
        facts={"x": {"y": 1}},
        tools=[{"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}}],
    ),
    "msg.publish": {"to": "talk/all", "content": {"x": 1}},
    "msg.request": {"to": "talk/all", "content": {"x": 1}, "timeout_ms": 10},
    "tool.call": {"tool": "mcp.far.send", "args": {"text": "x", "deep": [{"x": 1}]}},
}
"""Arguments with which a call does something; of other ops :func:`filled` makes them."""


def honest(op: str) -> Any:
    return HONEST.get(op) or filled(inspect.type_info(OPS[op].args))


def below(value: Any, at: Place = ()) -> list[Place]:
    """Every place in a value where a field can be put."""
    if isinstance(value, dict):
        return [at, *(found for key, one in value.items() for found in below(one, (*at, key)))]
    if isinstance(value, list):
        return [found for place, one in enumerate(value) for found in below(one, (*at, place))]
    return []


def cases() -> list[tuple[str, Place]]:
    found = []
    for op, open_places in OPEN.items():
        roots = {place[0] for place in open_places}
        inside = [place for place in below(honest(op)) if place and place[0] in roots]
        found += [(op, place) for place in (inside or open_places)]
    return found


def wide() -> Offer:
    """A tool of a foreign server that takes whatever it is given, and asks first."""
    made = offer("mcp.far.send", source="mcp", effect="send")
    return replace(made, input_schema=ANYTHING, accepts=read_schema(ANYTHING, []))


@dataclass(frozen=True)
class Played:
    """One call, and what came of it."""

    facts: set[Any]
    """Who stated what under which label until the call had ended or waited for somebody."""
    heard: tuple[Any, ...]
    refused: bool


async def played(home: Path, op: str, args: Any) -> Played:
    home.mkdir()
    world = World(home, ManualClock())
    world.sources = [source := ScriptedTools([wide()])]
    await (await world.start()).run()
    call = world.begin(await world.caller(), op, args)
    asked = ("action.requested", "promise.created", "message.sent")
    await until(lambda: call.done() or any(map(world.payloads, asked)))
    assert world.standing.list() == [] and world.payloads("action.decided") == []
    assert (world.mail.dispatched, source.calls) == ([], []), "it was done, and nobody was asked"
    refused = call.done() and not call.result().ok
    tree = world.gate._record.run(RUN)
    assert tree is not None
    heard = (tree.tree.floor, tree.tree.private, *sorted(tree.tree.origins))
    before = [(e.kind, e.actor, e.provenance.label, e.provenance.agent) for e in world.events()]
    states = [("approval", one.state, one.op, one.action["kind"]) for one in world.approvals.list(all=True)]
    # What comes after it is asked about as ever.
    sending = world.begin(await world.caller(node="after"), "mail.send", mail())
    await until(lambda: sending.done() or any(one.op == "mail.send" for one in world.approvals.list()))
    assert not sending.done() and world.mail.dispatched == []
    await world.stop()
    return Played({*before, *states}, heard, refused)


REFUSED = {("cap.audit", "daemon", None, "writer"), ("hostcall.delivered", "daemon", None, "writer")}
"""The host's own words on a call that it did not carry out."""


@pytest.mark.requirement("P9")
@pytest.mark.parametrize(("op", "place"), cases(), ids=lambda one: one if isinstance(one, str) else None)
async def test_json_that_a_guest_may_fill_decides_nothing_at_any_depth(
    tmp_path: Path, op: str, place: Place
) -> None:
    before = await played(tmp_path / "honest", op, honest(op))
    after = await played(tmp_path / "poisoned", op, poison(honest(op), place, WORDS))
    assert after.facts - before.facts <= (REFUSED if after.refused else set())
    assert after.refused or after.heard == before.heard


# --- control methods ------------------------------------------------------------------------------


@cache
def rows() -> dict[str, tuple[str, bool]]:
    """Method -> the type of its parameters, and whether it takes the operator; read from the tables."""
    found: dict[str, tuple[str, bool]] = {}
    for module in pkgutil.iter_modules(runloopd.gateway.__path__):
        source = Path(runloopd.gateway.__path__[0], f"{module.name}.py").read_text()
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Tuple([ast.Constant(str(name)), ast.Name(kind), _, ast.Constant(bool(operator))]):
                    found[name] = (f"{module.name}.{kind}", operator)
    return found


def params(name: str) -> type[Params]:
    module, _, kind = rows()[name][0].partition(".")
    return getattr(importlib.import_module(f"runloopd.gateway.{module}"), kind)  # type: ignore[no-any-return]


@pytest.mark.requirement("P9", "C4")
def test_what_is_named_like_a_decision_is_only_taken_from_the_operator() -> None:
    assert len(rows()) > 80, "the tables of methods are read"
    named = {
        (name, word)
        for name, (_, operator) in rows().items()
        for word in fields_of(inspect.type_info(params(name))) & WORDS.keys()
        if not operator
    }
    assert named == set()


@pytest.mark.requirement("P9")
@pytest.mark.parametrize("method", sorted(rows()))
def test_a_parameter_that_is_added_to_a_control_method_is_refused(method: str) -> None:
    kind = inspect.type_info(params(method))
    whole = filled(kind)
    for place in [found.place for found in places(kind) if found.closed]:
        for word, value in WORDS.items():
            made = poison(whole, place, {word: value})
            if word in fields_of(kind):
                continue
            with pytest.raises(msgspec.ValidationError, match="unknown field"):
                msgspec.convert(made, params(method))


# --- foreign documents ----------------------------------------------------------------------------

LISTED: dict[str, Any] = {
    "name": "t",
    "description": "d",
    "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}},
    "annotations": {"readOnlyHint": False},
}
RESULT: dict[str, Any] = {
    "content": [
        {"type": "text", "text": "x"},
        {"type": "resource", "resource": {"uri": "u", "text": "y"}},
        {"type": "resource_link", "uri": "u", "name": "n"},
    ],
    "structuredContent": {"a": {"b": 1}},
}


@pytest.mark.requirement("P9")
@pytest.mark.parametrize("place", below(LISTED), ids=str)
def test_a_foreign_definition_that_decides_is_another_definition_and_no_more(place: Place) -> None:
    given = (LISTED, poison(LISTED, place, WORDS))
    (before,), (after,) = (read_listing([one]).tools.values() for one in given)
    assert after.digest != before.digest, "so a person looks at it"
    assert (after.tool, after.description) == (before.tool, before.description)
    schemas = [accepting(one.input_schema)[0] for one in (before, after)]
    if place != ("inputSchema", "properties"):  # there they are names of arguments
        assert schemas[0] == schemas[1]


@pytest.mark.requirement("P9")
@pytest.mark.parametrize("place", below(RESULT), ids=str)
def test_a_foreign_result_that_decides_is_data_where_it_may_be_and_else_left_out(place: Place) -> None:
    before, after = called("s", "t", RESULT), called("s", "t", poison(RESULT, place, WORDS))
    assert after.keys() == before.keys() == {"content", "structured"}
    if place[:1] != ("structuredContent",) and place[-1:] != ("resource",):
        assert after == before


TOOL: dict[str, Any] = {
    "id": "t",
    "description": "d",
    "kind": "http",
    "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
    "http": {"method": "GET", "url": "https://a.example/"},
}


@pytest.mark.requirement("P9")
def test_a_bundle_that_decides_is_refused() -> None:
    with pytest.raises(ToolsError, match="approved"):
        parse_tools(json.dumps({"tools": [{**TOOL, "approved": True}]}))
    text = MANIFEST.format(
        name="a", version="1.0.0", variant="", description="d", language="python", entrypoint="agent:handle",
        ops="", min_runloop="",
    )  # fmt: skip
    tables = ["", '[ports.in.text]\ntype = "string"\n', "[limits]\n"]
    for word, value in WORDS.items():
        line = f"{word} = {json.dumps(value) if not isinstance(value, dict) else '{}'}\n"
        with pytest.raises(ToolsError):
            parse_tools(json.dumps({"tools": [], word: value}))
        with pytest.raises(ToolsError):
            parse_tools(json.dumps({"tools": [{**TOOL, word: value}]}))
        with pytest.raises(CapsError):
            parse_policy(f"[capabilities]\n{line}")
        for table in tables:
            made = line + text if not table else text.replace(table, "") + table + line
            with pytest.raises(ManifestError, match=word):
                parse_manifest(made)
