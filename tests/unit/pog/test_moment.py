"""The views as they were: at an event, at a time, without touching the present ones."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pog.moment import Moment, find, knowledge_at
from runloop.errors import NotFoundError, UsageError

from . import facts
from .conftest import Store


@pytest.fixture
def told(store: Store) -> Store:
    """John is learnt at once, renamed a second later, and Ann comes another second later."""
    with store.ledger() as ledger:
        for contact in (("c1", "John"), ("c1", "Johnny"), ("c2", "Ann")):
            ledger.append([facts.draft(facts.contact(*contact))])
            store.clock.advance(1_000)
    with store.materializer() as views:
        views.catch_up()
    return store


def names(store: Store, moment: Moment) -> list[str]:
    with knowledge_at(store.events_db, moment) as knowledge:
        rows = knowledge.query("SELECT name FROM contacts ORDER BY name", raw=True).rows
    return [row["name"] for row in rows]


@pytest.mark.requirement("I4.keeping.5")
def test_the_views_at_an_event_are_those_right_after_it(told: Store) -> None:
    found = [names(told, find(told.events_db, event=event)) for event in range(4)]
    assert found == [[], ["John"], ["Johnny"], ["Ann", "Johnny"]]


@pytest.mark.requirement("I4.keeping.5")
def test_a_time_means_everything_stated_until_then(told: Store) -> None:
    began = find(told.events_db, event=1).ts_ms
    found = [find(told.events_db, at_ms=began + more).event for more in (-1, 0, 999, 1_000, 10**9)]
    assert found == [0, 1, 1, 2, 3]


def test_where_the_clock_was_put_back_the_later_event_counts(store: Store) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.note())])
        store.clock._now_ms -= 5_000
        ledger.append([facts.draft(facts.note())])
    last = find(store.events_db, event=2)
    assert find(store.events_db, at_ms=last.ts_ms).event == 2


def test_search_and_reading_work_then_as_now(told: Store) -> None:
    with knowledge_at(told.events_db, find(told.events_db, event=1)) as knowledge:
        assert [item["title"] for item in knowledge.search("john")] == ["John"]
        assert knowledge.read("contact", "c1")["name"] == "John"
        assert knowledge.cursor() == 1


def test_looking_back_leaves_nothing_and_changes_nothing(
    told: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    before = told.views_db.read_bytes(), told.events_db.read_bytes()
    with knowledge_at(told.events_db, find(told.events_db, event=1)) as knowledge:
        assert list((tmp_path / "tmp").iterdir()) == []  # it is open, and has no name any more
        assert knowledge.cursor() == 1
    assert (told.views_db.read_bytes(), told.events_db.read_bytes()) == before


def test_a_bad_event_is_held_then_as_it_is_now(store: Store) -> None:
    started = facts.draft(facts.run_started(), run=facts.RUN)
    store.holding(started, started, facts.draft(facts.contact()))
    assert names(store, find(store.events_db, event=3)) == ["John Doe"]


def test_a_moment_that_is_none_is_refused(told: Store) -> None:
    with pytest.raises(NotFoundError) as absent:
        find(told.events_db, event=4)
    assert "newest is 3" in str(absent.value.hint)
    with pytest.raises(UsageError):
        find(told.events_db)
    with pytest.raises(UsageError):
        find(told.events_db, event=1, at_ms=1)
