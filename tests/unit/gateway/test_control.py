"""What a client may ask for in numbers, and which thread reads the ledger for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from runloop.errors import UsageError
from runloop.rmp.frame import MAX_BODY
from runloop.testing import ManualClock
from runloopd.bus.bus import Bus
from runloopd.bus.principal import Principal
from runloopd.gateway.control import Control

OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)


class Ledger:
    """The reader's place; remembers what was asked, and from which thread."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    def _note(self, *call: Any) -> None:
        self.asked.append(call)
        self.threads.add(threading.get_ident())

    def runs(self, limit: int) -> list[dict[str, Any]]:
        self._note("runs", limit)
        return []

    def find_run(self, prefix: str) -> str:
        self._note("find_run", prefix)
        return prefix

    def events(
        self, *, run: str | None = None, after: int = 0, kinds: Any = None, limit: int | None = None
    ) -> Iterator[Any]:
        self._note("events", after, limit)
        return iter(())

    def blob(self, digest: str) -> bytes:
        self._note("blob", digest)
        return b""


class Knows:
    """The knowledge's place."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def query(self, sql: str, params: Any, limit: int, *, raw: bool) -> dict[str, Any]:
        self.asked.append(limit)
        return {}

    async def search(self, query: str, k: int, kinds: Any, *, raw: bool) -> list[Any]:
        self.asked.append(k)
        return []


class Quiet:
    """Runs and approvals, of which there are none."""

    def active(self) -> list[str]:
        return []

    def list(self, **_: Any) -> list[Any]:
        return []

    async def show(self, run: str) -> dict[str, Any]:
        return {"run": run}

    async def replay(self, run: str) -> dict[str, Any]:
        return {"run": run}

    async def cancel(self, *_: Any) -> None:
        return None


class Desk:
    def __init__(self) -> None:
        self.ledger, self.knows = Ledger(), Knows()
        clock, quiet = ManualClock(), Quiet()
        parts: dict[str, Any] = {
            "bus": Bus(clock), "journal": None, "reader": self.ledger, "runs": quiet, "approvals": quiet,
            "knowledge": self.knows, "policies": None, "quarantine": None, "clock": clock, "status": dict,
            "stop": lambda drain: None,
        }  # fmt: skip
        self.control = Control(**parts)

    async def call(self, method: str, **params: Any) -> Any:
        return await self.control._call(OPERATOR, method, params)


@pytest.fixture
async def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize(("asked", "got"), [(-1, 1), (0, 1), (50, 50), (1_001, 1_000), (10**30, 1_000)])
async def test_the_number_of_runs_is_brought_into_bounds(desk: Desk, asked: int, got: int) -> None:
    await desk.call("run.list", limit=asked)
    assert desk.ledger.asked == [("runs", got)]


@pytest.mark.parametrize("after", [-1, 2**53, 2**63, 10**30])
async def test_a_place_in_the_ledger_that_cannot_be_is_refused(desk: Desk, after: int) -> None:
    with pytest.raises(UsageError, match=r"run\.events"):
        await desk.call("run.events", run="r", after=after)
    assert desk.ledger.asked == []


async def test_places_and_counts_within_bounds_reach_the_ledger(desk: Desk) -> None:
    await desk.call("run.events", run="r", after=2**53 - 1, limit=10**30)
    assert desk.ledger.asked[-1] == ("events", 2**53 - 1, 5_000)


@pytest.mark.parametrize(("asked", "hits", "rows"), [(-(10**30), 1, 1), (7, 7, 7), (10**30, 100, 10_000)])
async def test_searches_and_queries_return_a_sane_number(
    desk: Desk, asked: int, hits: int, rows: int
) -> None:
    await desk.call("kb.search", query="q", k=asked)
    await desk.call("kb.query", sql="SELECT 1", limit=asked)
    assert desk.knows.asked == [hits, rows]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("run.list", {}),
        ("run.show", {"run": "r"}),
        ("run.events", {"run": "r"}),
        ("run.cancel", {"run": "r"}),
        ("run.replay", {"run": "r"}),
        ("blob.get", {"digest": "d"}),
        ("approvals.list", {"all": True}),
    ],
)
async def test_the_event_loop_never_waits_for_the_ledger(
    desk: Desk, method: str, params: dict[str, Any]
) -> None:
    await desk.call(method, **params)
    assert desk.ledger.asked
    assert threading.get_ident() not in desk.ledger.threads


async def test_an_answer_that_fits_no_frame_is_told_and_not_kept_silent(desk: Desk) -> None:
    async def huge(*_: Any, **__: Any) -> dict[str, Any]:
        return {"rows": ["x" * MAX_BODY]}

    desk.knows.query = huge  # type: ignore[method-assign]
    answers: list[Any] = []
    bus, reply_to = desk.control._bus, "rlp/clients/s1/reply"
    bus.subscribe(reply_to, lambda delivery: answers.append(delivery.payload))
    asked = {"id": "q", "method": "kb.query", "params": {"sql": "SELECT 1"}}
    bus.send(OPERATOR, "rlp/ctrl", "intent.ctrl.request.v1", asked, meta={"reply_to": reply_to})
    await desk.control.close()
    (answer,) = answers
    assert (answer["id"], answer["ok"], answer["error"]["code"]) == ("q", False, "control.answer_size")
