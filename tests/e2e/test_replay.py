"""`rlp replay`, end to end: what is identical, what was changed and where, and that nothing gets out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pog.chain import Row
from runloop.events import (
    ArtifactCreated,
    Event,
    HostcallDelivered,
    MessageSent,
    NodeFinished,
    NodeScheduled,
    Payload,
    RunStarted,
    TimerSet,
)
from tests.e2e.forging import Change, forged, opened, rotten
from tests.home import Home, wait_until


@pytest.fixture(scope="module")
def told(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a whole compose_email in it, and its daemon; every test leaves the ledger as it was."""
    path = tmp_path_factory.mktemp("r")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    with Home(path) as home:
        home.play().check(5)
        (waiting,) = home.rlp("approvals", "--json").check().ndjson
        home.rlp("approve", str(waiting["approval"])).check()
        wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
        yield home


def run_of(home: Home) -> str:
    (started,) = home.events("run.started")
    return str(started.run)


def replayed(home: Home) -> dict[str, Any]:
    report: dict[str, Any] = home.rlp("replay", run_of(home), "--json").check(6).json
    assert not report["identical"]
    return report


def first(home: Home, kind: type[Payload], node: str | None = None) -> Event:
    return next(
        event
        for event in home.events(kind.kind)
        if event.run is not None and (node is None or getattr(event.payload, "node", None) == node)
    )


@pytest.mark.requirement("I5.replay.1")
def test_a_replay_makes_every_hash_and_message_again_and_says_so(told: Home) -> None:
    report = told.rlp("replay", run_of(told), "--json").check().json
    events = [event for event in told.events() if event.run is not None]
    assert report["identical"]
    assert report["coverage"]["recorded"] == report["hashes"] == len(events)
    assert report["coverage"]["not_covered"] == 0
    assert report["messages"] == len([event for event in events if event.kind == "message.sent"]) == 10
    shown = told.rlp("replay", run_of(told)).check().out
    assert f"compared 5 attempts, 10 messages, {len(events)} event hashes, 1 run" in shown


@pytest.mark.requirement("I5.replay.2")
@pytest.mark.parametrize("column", [name for name in Row._fields if name not in ("id", "run")])
def test_a_flipped_bit_is_located_by_event_and_column(told: Home, column: str) -> None:
    event = first(told, HostcallDelivered, "draft").id
    with rotten(told, event, column):
        found = replayed(told)["divergence"]
        shown = told.rlp("replay", run_of(told)).check(6).out
    assert (found["code"], found["event"], found["column"]) == ("replay.result", event, column)
    assert found["expected"] != found["actual"]
    assert f"event {event}, column {column}" in shown
    assert found["expected"] in shown
    assert found["actual"] in shown


def _set(**fields: Any) -> Change:
    return lambda payload: payload.update(fields)


ZEROS = "0" * 64

FORGERIES: dict[str, tuple[type[Payload], str | None, Change | None, str, str]] = {
    "an answer is not there": (
        HostcallDelivered, "contacts", None, "replay.missing", "node contacts attempt 1 call",
    ),
    "the engine's word is not there": (
        NodeScheduled, "draft", None, "replay.missing", "engine: timer.set node:draft",
    ),
    "a frame is not there": (
        MessageSent, "draft", None, "replay.missing", "node draft attempt 1",
    ),
    "a call has other arguments": (
        HostcallDelivered, "contacts", _set(args_digest=ZEROS), "replay.arguments",
        "node contacts attempt 1 call 0",
    ),
    "another call was made": (
        HostcallDelivered, "contacts", _set(op="kb.read"), "replay.arguments",
        "node contacts attempt 1 call 0",
    ),
    "an attempt had another input": (
        NodeScheduled, "draft", _set(input_digest=ZEROS), "replay.arguments",
        "engine: node.scheduled draft attempt 1",
    ),
    "the run had another parameter": (
        RunStarted, None, _set(params={"recipient": "mary", "topic": "Q4 plan", "tone": "friendly"}),
        "replay.arguments", "engine: node.scheduled contacts attempt 1",
    ),
    "a guest burnt more": (
        HostcallDelivered, "contacts", lambda payload: payload.update(fuel=payload["fuel"] + 1),
        "replay.result", "node contacts attempt 1 call 0",
    ),
    "a frame had another body": (
        MessageSent, "draft", _set(body_digest=ZEROS), "replay.result", "node draft attempt 1",
    ),
    "a frame went to somebody else": (
        MessageSent, "draft", _set(receiver="agent:mailer"), "replay.result", "node draft attempt 1",
    ),
    "an attempt burnt more": (
        NodeFinished, "review", lambda payload: payload.update(fuel=payload["fuel"] + 1), "replay.result",
        "node review attempt 1",
    ),
    "a timer was set to another time": (
        TimerSet, None, lambda payload: payload.update(after_ms=payload["after_ms"] + 1), "replay.result",
        "engine: timer.set",
    ),
    "an artifact is another": (
        ArtifactCreated, "draft", _set(size=1), "replay.result", "artifact draft.out.json",
    ),
}  # fmt: skip


@pytest.mark.requirement("I5.replay.3", "L8")
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_record_whose_hashes_all_fit_is_told_by_the_re_execution(told: Home, forgery: str) -> None:
    kind, node, change, code, where = FORGERIES[forgery]
    with forged(told, first(told, kind, node).id, change):
        report = replayed(told)
    assert report["hashes"] == report["coverage"]["recorded"], "the hashes alone would not have told"
    assert report["divergence"]["code"] == code
    assert report["divergence"]["where"].startswith(where)


def test_an_answer_with_other_bytes_than_its_digest_is_located(told: Home) -> None:
    event = first(told, HostcallDelivered, "context")
    assert isinstance(event.payload, HostcallDelivered)
    with opened(told) as ledger:
        with ledger:
            name = bytes.fromhex(event.payload.result_blob)
            ledger.execute("UPDATE blobs SET data = ? WHERE hash = ?", (b"{}", name))
        found = replayed(told)["divergence"]
    assert (found["code"], found["event"]) == ("replay.result", event.id)
    assert found["where"] == "node context attempt 1 call 0"


def test_an_answer_that_is_kept_no_more_is_not_covered(told: Home) -> None:
    event = first(told, HostcallDelivered, "context")
    assert isinstance(event.payload, HostcallDelivered)
    with opened(told) as ledger:
        with ledger:
            ledger.execute("DELETE FROM blobs WHERE hash = ?", (bytes.fromhex(event.payload.result_blob),))
        report = replayed(told)
    assert report["divergence"] is None
    assert report["coverage"]["not_covered"] > 0
    assert report["gaps"][0].startswith("node context attempt 1: no bytes are stored")


@pytest.mark.requirement("I5.replay.4")
def test_a_run_of_an_engine_this_build_does_not_know_is_never_identical_and_never_blamed(told: Home) -> None:
    started = first(told, RunStarted)
    for engine in ({"logic": 2}, {"logic": 1, "flags": ["a_later_way"]}):

        def newer(payload: dict[str, Any], engine: dict[str, Any] = engine) -> None:
            payload["engine"] = {**payload["engine"], **engine}

        with forged(told, started.id, newer):
            report = replayed(told)
        assert report["divergence"] is None
        assert report["coverage"]["not_covered"] > 0
        assert report["attempts"] == 5, "its guests are executed all the same"


AGENT = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    {body}
"""
BODIES = {
    "asks": "host.call('random.bytes', {'n': 4}); return Result.of(out=1)",
    "asks_more": "host.call('random.bytes', {'n': 8}); return Result.of(out=1)",
    "tells": "return Result.of(out=1)",
    "tells_else": "return Result.of(out=2)",
}
CHANGED = {
    "replay.arguments": ("asks", "asks_more"),
    "replay.missing": ("tells", "asks"),
    "replay.result": ("tells", "tells_else"),
}


def unsigned(home: Home, name: str, body: str) -> None:
    manifest = (
        f'name = "{name}"\nversion = "0.1.0"\nlanguage = "python"\nentrypoint = "agent:handle"\n'
        'description = "Says one thing."\nops = ["random.bytes"]\n\n[ports.out.out]\ntype = "any"\n'
    )
    home.write_agent(name, manifest, AGENT.replace("{body}", body), "random = true\n")


@pytest.mark.requirement("I5.replay.3")
def test_an_agent_that_was_changed_under_the_name_of_the_recorded_one_is_told_in_three_ways(
    home: Home,
) -> None:
    for name, body in BODIES.items():
        unsigned(home, name, body)
        (home.path / f"{name}.yaml").write_text(
            f"version: 0\nname: {name}\nnodes:\n  - {{id: say, use: 'agent:{name}'}}\n"
        )
        home.rlp("run", str(home.path / f"{name}.yaml"), "--no-input").check()
    starts = {e.payload.opening: e for e in home.events("run.started") if isinstance(e.payload, RunStarted)}
    for code, (recorded, changed) in CHANGED.items():
        genuine, other = starts[recorded], starts[changed].payload
        assert isinstance(other, RunStarted)
        home.rlp("replay", str(genuine.run)).check()
        bundle = other.agents["say"].bundle_digest

        def change(payload: dict[str, Any], name: str = changed, bundle: str = bundle) -> None:
            payload["agents"]["say"] |= {"name": name, "bundle_digest": bundle}

        with forged(home, genuine.id, change):
            done = home.rlp("replay", str(genuine.run), "--json").check(6)
        assert done.json["divergence"]["code"] == code
        assert done.json["divergence"]["where"].startswith("node say attempt 1")
