"""What programs outside are let do, in small: allowances, names, results, places, the allow-list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlp.serving.http import listener
from rlp.serving.limits import Allowance
from rlp.serving.outcome import Rest, artifact_uri
from runloop.errors import UsageError
from runloopd.authority.faces import checked_client, checked_item


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_allowance_is_used_up_and_fills_again_for_each_name_alone() -> None:
    clock = Clock()
    allowance = Allowance(per_s=2, burst=3, now=clock)
    assert [allowance.take("a") for _ in range(4)] == [True, True, True, False]
    assert allowance.take("b")
    clock.now += 0.5
    assert [allowance.take("a") for _ in range(2)] == [True, False]
    clock.now += 3_600
    assert [allowance.take("a") for _ in range(4)] == [True, True, True, False]
    clock.now -= 10  # a clock that goes back gives nothing away
    assert not allowance.take("a")


@pytest.mark.parametrize(
    "place",
    ["0.0.0.0:0", "[::]:0", "192.0.2.1:1", "example.org:80", "127.0.0.1", "127.0.0.1:70000", ":x", ""],
)
def test_nothing_listens_where_another_machine_could_reach_it(place: str) -> None:
    with pytest.raises(UsageError):
        listener(place).close()


def test_it_listens_on_loopback() -> None:
    door = listener("127.0.0.1:0")
    assert door.getsockname()[0] == "127.0.0.1"
    with pytest.raises(UsageError):
        listener(f"127.0.0.1:{door.getsockname()[1]}")
    door.close()


@given(st.text(max_size=80))
def test_whatever_is_no_item_or_client_is_refused(text: str) -> None:
    for check in (checked_item, checked_client):
        try:
            assert check(text) == text
        except UsageError:
            continue
        assert text.isascii() and text.isprintable() and " " not in text and "/" not in text


def event(kind: str, run: str = "r1", **payload: Any) -> dict[str, Any]:
    return {"kind": kind, "run": run, "payload": payload}


def definition(save: list[list[str]]) -> dict[str, Any]:
    nodes = [{"id": "a"}, {"id": "b"}]
    return {"nodes": nodes, "edges": [{"from": ["a", "out"], "to": ["b", "in"]}], "artifacts": {"save": save}}


@pytest.mark.parametrize(
    ("save", "told"), [([], ["b.out"]), ([["a", "out"]], ["a.out"])], ids=["last", "saved"]
)
def test_of_an_openings_nodes_only_the_result_is_told(save: list[list[str]], told: list[str]) -> None:
    rest = Rest("r1")
    rest.take(event("run.started", definition=definition(save), principal="mcp:x"))
    for node in ("a", "b"):
        rest.take(event("node.finished", node=node, status="succeeded", output={"ports": {"out": [node]}}))
    rest.take(event("run.finished", outcome="succeeded", error=None))
    assert list(rest.told()["outputs"]) == told


def test_a_run_waits_for_what_waits_inside_it_and_no_longer() -> None:
    rest = Rest("r1")
    rest.take(event("run.started", definition=definition([]), principal="mcp:x"))
    rest.take(event("action.requested", "inner", approval="ap_1", action={"summary": "send it"}))
    assert rest.waits and rest.told()["state"] == "waiting"
    rest.take(event("run.finished", "inner", outcome="failed", error=None))
    assert not rest.waits and rest.told()["state"] == "running"


def test_a_large_result_is_not_told_and_a_name_stays_one_part_of_an_address() -> None:
    rest = Rest("r1")
    rest.take(event("run.started", definition=definition([]), principal="mcp:x"))
    ports = {"out": ["x" * 300_000]}
    rest.take(event("node.finished", node="b", status="succeeded", output={"ports": ports}))
    rest.take(event("run.finished", outcome="succeeded", error=None))
    assert list(rest.told()["outputs"]) == ["left_out"]
    assert artifact_uri("r", "../x/y?z").count("/") == 5
