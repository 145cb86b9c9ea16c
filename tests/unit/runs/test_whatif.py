"""Runs driven again in memory: golden histories, graphs of any shape, verdicts judged again."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openings.definition import Edge, Node, Opening, Retry
from openings.demands import AttemptOutcome, Reexecute
from openings.expressions import Ref
from openings.testing import Play, pin
from openings.testing import started as run_started
from runloop.caps.policy import Policy, parse_policy
from runloop.digest import blob_digest, canonical, digest
from runloop.events import (
    ActionDecided,
    ActionRequested,
    Event,
    HostcallDelivered,
    NodeFinished,
    NodeScheduled,
    Provenance,
    RunCancelRequested,
)
from runloopd.broker.asks import CapabilityError
from runloopd.broker.calls import Answer, Caller, HostCall
from runloopd.broker.hindsight import World, judge
from runloopd.runs.answers import AllServed
from runloopd.runs.whatif.answering import Asked, Heard, Ruling, SimulatedAnswerer
from runloopd.runs.whatif.simulator import Played, Simulator, ends
from runloopd.runs.whatif.tape import Tape
from runloopd.runs.whatif.used import needs, policy_of
from tests.histories.test_histories import HISTORIES, history
from tests.unit.runs.test_forks import CHAIN, Stage, graph, graphs, one_search, reached

# --- the engine, the clock and the people of real histories ---------------------------------------


class _Nothing:
    def concerns(self, tape: Tape, node: str) -> bool:
        return False

    async def rule(self, asked: Asked) -> Ruling | None:
        return None


class _NoSource:
    """Source of a record without bytes."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    rows = children = prepare = None


class _AsRecorded(Simulator):
    """Guests that do what they did; everything else is the product's."""

    def __init__(self, tapes: Mapping[str, Tape]) -> None:
        async def tape(run: str) -> Tape | None:
            return tapes.get(run)

        super().__init__(cast(Any, _NoSource()), cast(Any, None), tape)
        self._tapes = tapes

    async def execute(
        self, demand: Reexecute, answerer: SimulatedAnswerer, allowance: Any, *, remember: bool
    ) -> tuple[AttemptOutcome, Heard]:
        tape = self._tapes[demand.run]
        ended = tape.answers.ended(demand.node, demand.attempt)
        heard = Heard(events=list(tape.answers.calls(demand.node, demand.attempt)))
        if not isinstance(ended, NodeFinished):
            return AttemptOutcome(), heard
        return AttemptOutcome(
            ok=ended.status == "succeeded",
            output=ended.output,
            output_digest=ended.output_digest,
            error=ended.error,
        ), heard


def _no_blob(name: str) -> bytes:
    raise AssertionError(name)


def _tapes(events: list[Event]) -> dict[str, Tape]:
    runs: dict[str, list[Event]] = {}
    for event in events:
        runs.setdefault(event.run or "", []).append(event)
    return {run: Tape(of, _no_blob) for run, of in runs.items()}


@pytest.mark.requirement("I5.whatif.1")
@pytest.mark.parametrize("path", HISTORIES, ids=[path.stem for path in HISTORIES])
async def test_a_golden_history_driven_again_ends_as_it_did(path: Path) -> None:
    tapes = _tapes(history(path))
    tape = next(iter(tapes.values()))
    played = await _AsRecorded(tapes).play(tape, _Nothing())
    _same(tape, played)


def _same(tape: Tape, played: Played) -> None:
    assert tape.finished is not None
    assert played.stops == []
    assert played.nodes == ends(tape.state())
    assert played.outcome == tape.finished.outcome
    assert played.output_digest == tape.finished.output_digest
    assert played.error == tape.finished.error


def _told(opening: Opening, script: Callable[[Play], None]) -> Tape:
    """A record that was made by hand, to its end."""
    play = Play(opening)
    play.settle()
    script(play)
    play.settle()
    return Tape(play.events, _no_blob)


def _one(**more: Any) -> Opening:
    return Opening(name="one", nodes=(Node(id="n0", use="agent:a", **more),))


def _pair() -> Opening:
    edge = Edge(source=Ref("n0", ("out",)), node="n1", port="in")
    return Opening(name="two", nodes=tuple(Node(id=n, use="agent:a") for n in ("n0", "n1")), edges=(edge,))


async def test_an_end_that_came_before_a_late_clock_is_no_timeout() -> None:
    def late(play: Play) -> None:
        play.now_ms += 1_500
        play.succeed("n0", out=1)
        play.settle()
        play.succeed("n1", out=1)

    tape = _told(replace(_pair(), policy=replace(_pair().policy, timeout_ms=1_000)), late)
    assert [node.state for node in ends(tape.state()).values()] == ["succeeded", "succeeded"]
    _same(tape, await _AsRecorded({tape.run: tape}).play(tape, _Nothing()))


async def test_a_person_who_said_no_has_said_it_again() -> None:
    def denied(play: Play) -> None:
        play.say(ASKED, DENIED, REFUSED)
        play.fail("n0", retryable=True)

    tape = _told(_one(retry=Retry(max_attempts=2, initial_ms=0)), denied)
    assert ends(tape.state())["n0"].attempts == 1
    _same(tape, await _AsRecorded({tape.run: tape}).play(tape, _Nothing()))


async def test_what_ended_while_the_run_was_being_cancelled_keeps_its_moment() -> None:
    def cancelled(play: Play) -> None:
        play.now_ms += 50
        play.say(RunCancelRequested(principal="operator:1", reason="enough"))
        play.now_ms += 10
        play.succeed("n0", out=1)

    tape = _told(_pair(), cancelled)
    assert [node.state for node in ends(tape.state()).values()] == ["succeeded", "cancelled"]
    _same(tape, await _AsRecorded({tape.run: tape}).play(tape, _Nothing()))


ASKED = ActionRequested(
    approval="a1", node="n0", attempt=1, call=0, op="mail.send", effect="send", key="k", args_digest="d",
    action={}, action_digest="x", content_blob="c", content_type="t", expires_ms=2**50,
)  # fmt: skip
DENIED = ActionDecided(approval="a1", node="n0", decision="denied", principal="operator:1", action_digest="x")
REFUSED = HostcallDelivered(
    node="n0", attempt=1, call=0, op="mail.send", effect="send", args_digest="d", args_blob="d", ok=False,
    result_digest="r", result_blob="r", request_bytes=1, response_bytes=1, fuel=1,
)  # fmt: skip


# --- graphs of any shape --------------------------------------------------------------------------


class _Guests(Simulator):
    """The guests of a stage: pure functions of input and answers."""

    def __init__(self, stage: Stage) -> None:
        async def tape(run: str) -> Tape | None:
            return None

        super().__init__(cast(Any, _NoSource()), cast(Any, None), tape)
        self._stage = stage
        self.executed = 0

    async def execute(
        self, demand: Reexecute, answerer: SimulatedAnswerer, allowance: Any, *, remember: bool
    ) -> tuple[AttemptOutcome, Heard]:
        self.executed += 1
        stage, this = self._stage, cast(NodeScheduled, demand.scheduled.payload)
        given: dict[str, Any] = msgspec.json.decode(self._overlay.made[this.input_blob])
        said: list[Any] = []
        try:
            for index, (op, args) in enumerate(stage.calls(this.node, given)):
                call = HostCall(
                    index=index,
                    op=op,
                    args=args,
                    args_digest=blob_digest(canonical(args)),
                    fuel=10 * (index + 1),
                    request_bytes=1,
                )
                said.append((await answerer.answer(call)).value)
        except AllServed:
            return AttemptOutcome(calls=len(said)), answerer.heard
        value = "the same" if this.node in stage.blunt else digest([given, said])
        output = {"ports": {"out": [value]}, "artifacts": []}
        return (
            AttemptOutcome(ok=True, output=output, output_digest=digest(output), fuel=100, calls=len(said)),
            answerer.heard,
        )


class _Deny:
    """The first call of some nodes is denied."""

    def __init__(self, nodes: frozenset[str]) -> None:
        self._nodes = nodes

    def concerns(self, tape: Tape, node: str) -> bool:
        return True

    async def rule(self, asked: Asked) -> Ruling | None:
        if asked.node not in self._nodes or asked.call.index:
            return None
        return Ruling(answer=Answer(ok=False, value={"code": "cap.denied"}), effect="none")


@pytest.mark.requirement("I5.whatif.1", "I5.whatif.2")
@settings(max_examples=30, deadline=None)
@given(graphs(), st.data())
def test_a_run_driven_again_is_the_run_it_was_and_a_denial_changes_its_cone_alone(
    made: tuple[Opening, frozenset[str], frozenset[str]], data: st.DataObject
) -> None:
    opening, blunt, _ = made
    names = [node.id for node in opening.nodes]
    denied = frozenset(data.draw(st.sets(st.sampled_from(names), max_size=2)))

    async def play(folder: Path) -> None:
        stage = Stage(folder, opening, blunt=blunt)
        # What a node asks for is the same whatever it gets: all it could ask is on record.
        stage.calls = _constant
        try:
            run = await stage.run(run_started(opening, {"p": 1}))
            tape = Tape(list(stage.reader.events(run=run)), stage.reader.blob)
            before = len(list(stage.reader.events()))
            _same(tape, await _Guests(stage).play(tape, _Nothing()))

            first = await _Guests(stage).play(tape, _Deny(denied))
            again = await _Guests(stage).play(tape, _Deny(denied))
            assert first == again
            recorded = ends(tape.state())
            differing = {name for name in names if first.nodes[name] != recorded[name]}
            assert first.stops == []
            told = {name for name in denied if name not in blunt}
            cone = reached(opening, blunt, denied)
            assert differing == {name for name in cone if name not in blunt} | told
            assert len(list(stage.reader.events())) == before
        finally:
            await stage.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


async def test_what_the_record_does_not_know_stops_the_node_and_what_hangs_on_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, CHAIN)
    stage.calls = one_search  # it asks about its input: another input is another question
    try:
        run = await stage.run(run_started(CHAIN, {"p": 1}))
        tape = Tape(list(stage.reader.events(run=run)), stage.reader.blob)
        played = await _Guests(stage).play(tape, _Deny(frozenset({"n0"})))
    finally:
        await stage.close()
    (stop,) = played.stops
    assert (stop.node, stop.op, stop.kind) == ("n1", "kb.search", "unrecorded")
    assert played.outcome is None
    assert played.nodes["n2"].state == "pending"


async def test_an_attempt_that_the_machine_ended_ends_so_again_and_its_retry_too(tmp_path: Path) -> None:
    retry = Retry(max_attempts=2, initial_ms=0)
    opening = replace(CHAIN, nodes=tuple(replace(node, retry=retry) for node in CHAIN.nodes))
    stage = Stage(tmp_path, opening)
    stage.crashes = lambda run, this: (this.node, this.attempt) == ("n1", 1)
    try:
        run = await stage.run(run_started(opening, {"p": 1}))
        tape = Tape(list(stage.reader.events(run=run)), stage.reader.blob)
        played = await _Guests(stage).play(tape, _Nothing())
    finally:
        await stage.close()
    assert ends(tape.state())["n1"].attempts == 2
    _same(tape, played)


def _constant(node: str, given: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("kb.search", {"query": node}), ("time.now", {})]


async def test_what_came_of_a_call_that_is_not_made_is_not_believed(tmp_path: Path) -> None:
    opening = graph([], 2, frozenset())  # two nodes without an edge: what one wrote the other read
    stage = Stage(tmp_path, opening, blunt=frozenset({"n0"}))
    stage.calls = _constant
    try:
        run = await stage.run(run_started(opening, {"p": 1}))
        events = list(stage.reader.events(run=run))
        wrote = next(e for e in events if _is_call(e, "n0", 0))
        events = [
            msgspec.structs.replace(
                e, provenance=Provenance(causes=(wrote.id,), node="n1", attempt=1, call=0)
            )
            if _is_call(e, "n1", 0)
            else _with(e, Provenance(node="n0", attempt=1, call=0))
            if e is wrote
            else e
            for e in events
        ]
        tape = Tape(events, stage.reader.blob)
        _same(tape, await _Guests(stage).play(tape, _Nothing()))
        played = await _Guests(stage).play(tape, _Deny(frozenset({"n0"})))
    finally:
        await stage.close()
    (stop,) = played.stops
    assert (stop.node, stop.call, stop.kind) == ("n1", 0, "cause")
    assert played.outcome is None


def _with(event: Event, provenance: Provenance) -> Event:
    return msgspec.structs.replace(event, provenance=provenance)


def _is_call(event: Event, node: str, call: int) -> bool:
    payload = event.payload
    return isinstance(payload, HostcallDelivered) and (payload.node, payload.call) == (node, call)


async def test_no_clock_ends_what_stopped_for_want_of_an_answer(tmp_path: Path) -> None:
    opening = replace(
        CHAIN,
        nodes=tuple(replace(node, timeout_ms=1_000) for node in CHAIN.nodes),
        policy=replace(CHAIN.policy, timeout_ms=60_000),
    )
    stage = Stage(tmp_path, opening)
    stage.calls = one_search
    try:
        run = await stage.run(run_started(opening, {"p": 1}))
        tape = Tape(list(stage.reader.events(run=run)), stage.reader.blob)
        _same(tape, await _Guests(stage).play(tape, _Nothing()))
        played = await _Guests(stage).play(tape, _Deny(frozenset({"n0"})))
    finally:
        await stage.close()
    assert [stop.node for stop in played.stops] == ["n1"]
    assert played.nodes["n1"].state == "running"
    assert played.outcome is None


# --- verdicts -------------------------------------------------------------------------------------

OPS = frozenset(
    {"time.now", "http.fetch", "mail.send", "kb.search", "kb.query", "model.complete", "fs.read", "msg.reply"}
)
ALL = parse_policy('[capabilities]\nkb_read = true\n"kb_read.contacts_raw" = true\n')


def _caller() -> Caller:
    return Caller(run="r", node="n", attempt=1, pin=pin("a"), token=b"", token_id="", ops=OPS, scheduled_id=1)


async def _verdict(caps: str, op: str, args: dict[str, Any], world: World | None) -> str:
    policy = parse_policy(f"[capabilities]\n{caps}\n")
    call = HostCall(index=0, op=op, args=args, args_digest="", fuel=1, request_bytes=1)
    judged = await judge(_caller(), policy, call, world)
    assert (judged.kind == "denied") == isinstance(judged.error, CapabilityError)
    return judged.kind


FETCH = {"url": "https://a.example/x?secret=1"}
PAGE = World(ok=True, value={"status": 200}, hops=["GET https://a.example/x", "GET https://b.example/y"])
INSIDE = Policy(parse_policy('[capabilities]\nnet = ["a.example", "b.example", "10.0.0.5"]\n').grants)
HITS = {"items": [{"kind": "note", "id": "1"}]}


@pytest.mark.parametrize(
    ("caps", "op", "args", "world", "kind"),
    [
        pytest.param("", "time.now", {}, World(ok=True, value={"now_ms": 1}), "denied", id="flag"),
        pytest.param('fs_ro = ["/a"]', "fs.list", {"path": "/a"}, None, "denied", id="undeclared"),
        pytest.param('net = ["a.example", "b.example"]', "http.fetch", FETCH, PAGE, "allowed", id="net"),
        pytest.param('net = ["a.example"]', "http.fetch", FETCH, PAGE, "denied", id="redirect"),
        pytest.param('net = [{hosts=["a.example","b.example"], paths=["/x"]}]', "http.fetch", FETCH, PAGE,
                     "denied", id="path"),
        pytest.param("", "http.fetch", FETCH, None, "denied", id="unrecorded"),
        pytest.param('net = ["a.example", "b.example"]', "http.fetch", FETCH,
                     World(ok=True, value={}, hops=PAGE.hops, grants=INSIDE), "open", id="address"),
        pytest.param('mail = ["x@a.org"]', "mail.send",
                     {"to": ["x@a.org"], "bcc": ["y@a.org"], "subject": "", "body": ""},
                     World(ok=True, value={}), "denied", id="bcc"),
        pytest.param('model = ["openai:*"]', "model.complete",
                     {"messages": [{"role": "user", "content": ""}]},
                     World(ok=True, value={"provider": "rules", "model": "t"}), "open", id="model"),
        pytest.param('kb_read = ["contacts"]', "kb.search", {"query": "q"},
                     World(ok=True, value=HITS, grants=ALL), "open", id="search"),
        pytest.param('kb_read = ["notes"]\n"kb_read.contacts_raw" = true', "kb.search", {"query": "q"},
                     World(ok=True, value=HITS, grants=ALL), "allowed", id="search-narrowed"),
        pytest.param('kb_read = ["notes"]', "kb.search", {"query": "x@a.org", "kinds": ["note"]},
                     World(ok=True, value=HITS, grants=ALL), "open", id="masked"),
        pytest.param('kb_read = ["notes"]\n"kb_read.contacts_raw" = true', "kb.query",
                     {"sql": "select * from contacts"}, World(ok=True, value={}, grants=ALL), "open",
                     id="query"),
        pytest.param('fs_ro = ["/a/b"]', "fs.read", {"path": "/a/bc"}, World(ok=True, value={}), "denied",
                     id="fs"),
        pytest.param('talk = ["talk/x"]', "msg.reply",
                     {"message": "msg_0", "act": "inform", "content": 1},
                     World(ok=True, value={}, to="node/other"), "denied", id="reply"),
    ],
)  # fmt: skip
@pytest.mark.requirement("I5.whatif.2")
async def test_a_recorded_call_is_judged_again_with_the_targets_on_record(
    caps: str, op: str, args: dict[str, Any], world: World | None, kind: str
) -> None:
    assert await _verdict(caps, op, args, world) == kind


USES: tuple[tuple[str, dict[str, Any], World], ...] = (
    ("http.fetch", FETCH, PAGE),
    ("http.fetch", {"url": "http://[::1]:8080/a%2fb"},
     World(ok=True, value={}, hops=["GET http://[::1]:8080/a%2fb"])),
    ("fs.read", {"path": "/srv/in/a.txt"}, World(ok=True, value={})),
    ("mail.send", {"to": ["A@b.org"], "subject": "", "body": ""}, World(ok=True, value={})),
    ("model.complete", {"messages": []}, World(ok=True, value={"provider": "p", "model": "m"})),
)  # fmt: skip
WIDE = parse_policy(
    '[capabilities]\nnet = ["*.example", {hosts=["[::1]"], allow_http=true}]\n'
    'fs_ro = ["/srv"]\nmail = true\nmodel = true\ntime = true\n'
)


@pytest.mark.requirement("I5.whatif.3")
async def test_what_was_used_is_written_down_exactly_and_lets_in_exactly_that() -> None:
    uses = [use for op, args, world in USES for use in needs(op, args, world, ())]
    least = policy_of(uses, WIDE)
    assert least.to_json() == {
        "fs_ro": ["/srv/in"],
        "net": [
            {"hosts": ["[::1]:8080"], "methods": ["GET"], "allow_http": True},
            {"hosts": ["a.example:443"], "methods": ["GET"], "paths": ["/x"]},
            {"hosts": ["b.example:443"], "methods": ["GET"], "paths": ["/y"]},
        ],
        "model": ["p:m"],
        "mail": ["a@b.org"],
    }
    for op, args, world in USES[:4]:
        assert await _verdict(least.to_toml().partition("\n")[2], op, args, world) == "allowed"


@pytest.mark.requirement("I5.whatif.3")
def test_what_is_not_granted_at_present_is_never_written_down() -> None:
    uses = [use for op, args, world in USES for use in needs(op, args, world, ())]
    none = parse_policy('[capabilities]\nnet = ["other.example"]\n')
    assert policy_of(uses, none).empty
