"""Facts by hand: knowledge, stamped by the host; nothing else, and nothing too large."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pog.ledger import Ledger
from pog.reader import Reader
from runloop.errors import NotFoundError, RefusedError, RunloopError, UsageError
from runloop.events import KINDS
from runloop.testing import ManualClock
from runloopd.broker import statements
from runloopd.broker.statements import Statements
from runloopd.journal import Journal

ANN = {"contact": "ann", "name": "Ann Bell", "emails": ["ann@example.org"]}


@pytest.fixture
async def by_hand(tmp_path: Path) -> AsyncIterator[tuple[Statements, Reader]]:
    clock = ManualClock()
    path = tmp_path / "events.db"
    journal = Journal(Ledger.open(path, clock=clock), None, clock)
    with Reader(path) as reader:
        yield Statements(journal=journal, reader=reader), reader
    await journal.close()


@pytest.mark.requirement("I4.keeping.7")
async def test_the_stamp_is_the_hosts(by_hand: tuple[Statements, Reader]) -> None:
    stated, reader = by_hand
    first = await stated.state("operator:1000", "contact.upserted", ANN, [])
    second = await stated.state("operator:1000", "contact.upserted", ANN, [first, first])
    event = reader.event(second)
    assert (event.actor, event.scope, event.run) == ("operator:1000", "user", None)
    assert (event.provenance.label, event.provenance.causes) == ("user", (first,))
    assert (event.provenance.agent, event.provenance.origin) == (None, None)


@pytest.mark.requirement("I4.keeping.7")
async def test_only_knowledge_can_be_stated_by_hand(by_hand: tuple[Statements, Reader]) -> None:
    stated, reader = by_hand
    for kind in [*sorted(KINDS), "no.such", ""]:
        if kind not in statements.IMPORTABLE:
            with pytest.raises(RefusedError):
                await stated.state("operator:1000", kind, {}, [])
    assert reader.head_id() == 0


@pytest.mark.parametrize(
    ("payload", "causes", "error"),
    [
        ({**ANN, "extra": 1}, [], UsageError),
        ({"contact": "ann"}, [], UsageError),
        ({**ANN, "name": 5}, [], UsageError),
        ({**ANN, "name": "\ud800"}, [], UsageError),
        ({**ANN, "note": "x" * statements.MAX_BYTES}, [], UsageError),
        (ANN, [1], NotFoundError),
        (ANN, [2**62], NotFoundError),
        (ANN, list(range(1, 102)), UsageError),
    ],
)
async def test_what_is_no_such_fact_is_refused_and_nothing_stated(
    by_hand: tuple[Statements, Reader], payload: dict[str, Any], causes: list[int], error: type[RunloopError]
) -> None:
    stated, reader = by_hand
    with pytest.raises(error):
        await stated.state("operator:1000", "contact.upserted", payload, causes)
    assert reader.head_id() == 0
