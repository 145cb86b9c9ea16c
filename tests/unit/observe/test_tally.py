"""What counts as what an agent has done: a fold of facts, each of which is somebody's or nobody's."""

from __future__ import annotations

from typing import Any

from runloop.events import (
    AgentPin,
    Event,
    GuestError,
    HostcallDelivered,
    ModelCalled,
    NodeFinished,
    Payload,
    Provenance,
    RunFinished,
    RunStarted,
)
from runloopd.observe.tally import Counts, Tally

RUN = "0b7c3f52-8a55-4c1e-9f6e-2d6f1f0a7b11"
HEX = "ab" * 32


class Book:
    """Events as the ledger would number them, told to a tally."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.count = 0

    def event(self, payload: Payload, agent: str | None = "writer", run: str | None = RUN) -> Event:
        self.count += 1
        return Event(
            id=self.count,
            kind=payload.kind,
            ts_ms=self.count,
            run=run,
            scope="run",
            actor="daemon",
            payload=payload,
            provenance=Provenance(agent=agent),
            prev_hash=b"",
            hash=b"",
        )

    def tell(self, *payloads: Payload, **whose: Any) -> Counts:
        self.tally.fold([self.event(payload, **whose) for payload in payloads])
        return self.tally.of("writer")


def started(**agents: str) -> RunStarted:
    pins = {
        node: AgentPin(
            name=name,
            version="1.0.0",
            variant="default",
            bundle_digest=HEX,
            component_digest=HEX,
            language="python",
        )
        for node, name in agents.items()
    }
    return RunStarted(
        opening="o", definition={}, definition_digest=HEX, params={}, agents=pins, engine={}, policy={},
        principal="p", origin={},
    )  # fmt: skip


def model(source: str = "asked", cost: int = 7) -> ModelCalled:
    return ModelCalled(
        node="n", attempt=1, call=0, provider="p", model="m", generated=True, request_digest=HEX,
        answer_digest=HEX, input_tokens=100, output_tokens=20, estimated=False, reserved_micro_usd=0,
        cost_micro_usd=cost, price_version="1", finish="stop", source=source,
    )  # fmt: skip


def answered(ok: bool) -> HostcallDelivered:
    return HostcallDelivered(
        node="n", attempt=1, call=0, op="time.now", effect="pure", args_digest=HEX, args_blob=HEX, ok=ok,
        result_digest=HEX, result_blob=HEX, request_bytes=1, response_bytes=1, fuel=1,
    )  # fmt: skip


def test_calls_refusals_tokens_money_and_hits_are_the_agents_who_made_them() -> None:
    counts = Book().tell(answered(True), answered(False), model(), model("cache", 0), model("cassette", 0))
    assert (counts.calls, counts.refused) == (2, 1)
    assert (counts.model_calls, counts.hits, counts.micro_usd) == (3, 2, 7)
    assert (counts.input_tokens, counts.output_tokens) == (300, 60)


def test_an_attempt_that_did_not_succeed_is_an_error_and_its_work_counts() -> None:
    bad = GuestError(code="guest.killed", message="m")
    counts = Book().tell(
        NodeFinished(node="n", attempt=1, status="succeeded", output={}, output_digest=HEX, fuel=30),
        NodeFinished(node="n", attempt=1, status="failed", error=bad, fuel=5),
    )
    assert (counts.ended, counts.failed, counts.fuel) == (2, 1, 35)


def test_what_the_engine_states_is_of_the_agent_that_is_pinned_to_the_node_or_its_items() -> None:
    book = Book()
    book.tell(started(n="writer"), agent=None)
    late = GuestError(code="node.timeout", message="m", retryable=True)
    counts = book.tell(
        NodeFinished(node="n", attempt=1, status="timed_out", error=late),
        NodeFinished(node="n[3]", attempt=1, status="timed_out", error=late),
        agent=None,
    )
    assert (counts.ended, counts.failed) == (2, 2)


def test_what_another_opening_serves_and_what_is_no_agents_is_nobodys() -> None:
    book = Book()
    book.tell(started(n="writer"), agent=None)
    book.tell(NodeFinished(node="nested", attempt=1, status="succeeded"), agent=None)
    book.tell(model(), agent=None, run=None)
    assert list(book.tally) == []


def test_a_look_whether_a_model_answers_is_nobodys_use() -> None:
    assert Book().tell(model("check")) == Counts()


def test_runs_of_before_are_known_and_not_counted_again_and_those_over_are_forgotten() -> None:
    book = Book()
    finished = NodeFinished(node="n", attempt=1, status="succeeded", fuel=9)
    book.tally.restore([book.event(started(n="writer"), None), book.event(finished)])
    assert book.tally.of("writer") == Counts()
    over = RunFinished(outcome="succeeded", clause=None, outputs={}, output_digest=HEX)
    assert book.tell(finished, agent=None).ended == 1
    assert book.tell(over, finished, agent=None).ended == 1
