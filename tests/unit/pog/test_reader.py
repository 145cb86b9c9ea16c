"""Reading the ledger."""

from __future__ import annotations

import sqlite3

import pytest

from pog.errors import LedgerCorruptError
from pog.reader import Reader
from runloop.digest import blob_digest
from runloop.errors import ConflictError, NotFoundError, UsageError

from . import facts
from .conftest import Store


def _history(store: Store) -> Reader:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.contact(), label="import:vcard")])
        ledger.append([facts.draft(facts.run_started(), run=facts.RUN)])
        ledger.append([facts.draft(facts.scheduled(), 2, run=facts.RUN, node="draft")], [b"{}"])
        ledger.append([facts.draft(facts.run_started(opening="other"), run=facts.OTHER)])
        ledger.append([facts.draft(facts.run_finished(), 2, run=facts.RUN)])
    return store.reader()


def test_events_come_back_as_they_were_stated(store: Store) -> None:
    with store.ledger() as ledger:
        stated = ledger.append(
            [
                facts.draft(facts.run_started(), 1, run=facts.RUN, label="user"),
                *[facts.draft(facts.note())] * 600,
            ]
        )
    assert list(store.reader().events()) == stated


def test_events_are_chosen_by_run_kind_place_and_number(store: Store) -> None:
    reader = _history(store)

    def ids(**which: object) -> list[int]:
        return [event.id for event in reader.events(**which)]  # type: ignore[arg-type]

    assert ids() == [1, 2, 3, 4, 5]
    assert ids(run=facts.RUN) == [2, 3, 5]
    assert ids(run=facts.RUN, after=2) == [3, 5]
    assert ids(kinds={"run.started"}) == [2, 4]
    assert ids(kinds={"run.started"}, after=2) == [4]
    assert ids(run=facts.RUN, kinds={"run.started", "run.finished"}) == [2, 5]
    assert ids(limit=2) == [1, 2]
    assert ids(limit=0) == []
    assert reader.event(3).payload == facts.scheduled()
    assert reader.event(3).provenance.causes == (2,)


def test_what_is_not_there_is_said(store: Store) -> None:
    reader = _history(store)
    for absent in (0, -1, 6, 2**70):
        with pytest.raises(NotFoundError):
            reader.event(absent)
    with pytest.raises(NotFoundError):
        reader.blob("0" * 64)
    for wrong in ("", "xyz", "A" * 64, "0" * 63):
        with pytest.raises(UsageError):
            reader.blob(wrong)
    with pytest.raises(NotFoundError, match="no ledger"):
        Reader(store.folder / "nothing.db")


def test_a_run_is_found_by_a_prefix_that_means_only_it(store: Store) -> None:
    reader = _history(store)
    assert reader.find_run(facts.RUN) == facts.RUN
    assert reader.find_run(facts.RUN.upper()) == facts.RUN
    with pytest.raises(ConflictError) as several:
        reader.find_run("0b7c")
    assert set(several.value.data["runs"]) == {facts.RUN, facts.OTHER}
    for absent in ("ffff", "%", "0b7c_", "*"):
        with pytest.raises(NotFoundError):
            reader.find_run(absent)
    with pytest.raises(UsageError):
        reader.find_run("  ")


def test_unfinished_runs_are_those_without_an_end(store: Store) -> None:
    reader = _history(store)
    assert reader.unfinished_runs() == [facts.OTHER]
    newest, oldest = reader.runs()
    assert (newest["run"], newest["state"], newest["opening"]) == (facts.OTHER, "running", "other")
    assert (oldest["outcome"], oldest["prompt"], oldest["finished_event"]) == ("succeeded", "mail john", 5)
    assert len(reader.runs(1)) == 1


def test_reading_goes_on_beside_a_writer(store: Store) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())])
    reader = store.reader()
    assert reader.head_id() == 1
    ledger.append([facts.draft(facts.note())])
    assert reader.head_id() == 2


def test_a_row_that_holds_no_event_is_named(store: Store) -> None:
    _history(store).close()
    connection = sqlite3.connect(store.events_db)
    connection.execute("UPDATE events SET kind = 'unheard.of' WHERE id = 4")
    connection.execute("UPDATE events SET payload = '{' WHERE id = 5")
    connection.execute("UPDATE events SET version = 9 WHERE id = 1")
    connection.commit()
    connection.close()
    reader = store.reader()
    for event_id in (1, 4, 5):
        with pytest.raises(LedgerCorruptError, match=f"event {event_id}"):
            reader.event(event_id)


def test_bytes_that_were_changed_are_not_handed_out(store: Store) -> None:
    _history(store).close()
    connection = sqlite3.connect(store.events_db)
    connection.execute("UPDATE blobs SET data = x'00'")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerCorruptError):
        store.reader().blob(blob_digest(b"{}"))


def test_a_query_over_a_broken_file_is_a_corrupt_ledger(store: Store) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.note(text="x" * 3000))] * 50)
    data = bytearray(store.events_db.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    store.events_db.write_bytes(data)
    with pytest.raises(LedgerCorruptError):
        list(store.reader().events())
