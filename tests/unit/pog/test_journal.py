"""The daemon's pen: groups, order, listeners, views, and failure."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pog.anchor import read_anchor
from pog.errors import LedgerWriteError, ViewsError
from pog.ledger import Ledger
from pog.maintain import verify
from pog.materializer import Materializer
from runloop.errors import UsageError
from runloop.events import Event
from runloopd.journal import Journal

from . import facts
from .conftest import Store


@pytest.fixture
async def journal(store: Store) -> AsyncIterator[Journal]:
    made = Journal(store.ledger(), store.materializer(), store.clock)
    yield made
    await made.close()


def transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the transactions from here on."""
    sizes: list[int] = []
    commit = Ledger.commit

    def counted(self: Ledger, prepared: list[object], blobs: object = ()) -> list[Event]:
        sizes.append(len(prepared))
        return commit(self, prepared, blobs)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "commit", counted)
    return sizes


async def test_what_arrives_together_is_committed_together_and_in_order(
    store: Store, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = transactions(store, monkeypatch)
    answers = await asyncio.gather(
        *(
            journal.append(facts.draft(facts.note(f"d{number}")), facts.draft(facts.contact()))
            for number in range(40)
        )
    )
    assert [event.id for events in answers for event in events] == list(range(1, 81))
    assert [events[0].payload.document for events in answers] == [f"d{number}" for number in range(40)]  # type: ignore[attr-defined]
    assert sizes == [80]


async def test_a_group_is_bounded_and_an_append_is_never_divided(
    store: Store, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = transactions(store, monkeypatch)
    one = facts.draft(facts.contact())
    await asyncio.gather(journal.append(*[one] * 600), *(journal.append(*[one] * 200) for _ in range(4)))
    assert sizes == [600, 400, 400]


async def test_an_event_is_durable_when_append_returns(store: Store, journal: Journal) -> None:
    (event,) = await journal.append(facts.draft(facts.artifact()), blobs=[b"report"])
    reader = store.reader()
    assert reader.event(event.id) == event
    assert reader.blob(event.payload.blob) == b"report"  # type: ignore[attr-defined]
    assert journal.head_id == event.id


async def test_listeners_hear_every_commit_in_order_before_append_returns(journal: Journal) -> None:
    heard: list[int] = []
    stop = journal.listen(lambda events: heard.extend(event.id for event in events))

    async def state(number: int) -> None:
        events = await journal.append(facts.draft(facts.note(f"d{number}")))
        assert events[-1].id in heard

    for _ in range(3):
        await asyncio.gather(*(state(number) for number in range(10)))
    assert heard == list(range(1, 31))
    stop()
    stop()
    await journal.append(facts.draft(facts.note()))
    assert len(heard) == 30


async def test_a_listener_may_state_facts_itself(journal: Journal) -> None:
    tasks: list[asyncio.Task[list[Event]]] = []

    def answer(events: list[Event]) -> None:
        if events[0].kind == "contact.upserted":
            tasks.append(asyncio.ensure_future(journal.append(facts.draft(facts.note()))))

    journal.listen(answer)
    await journal.append(facts.draft(facts.contact()))
    assert [event.id for event in await tasks[0]] == [2]


async def test_a_broken_listener_harms_nobody(journal: Journal) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    heard: list[int] = []

    def broken(_: list[Event]) -> None:
        raise RuntimeError("mine")

    journal.listen(broken)
    journal.listen(lambda events: heard.append(events[-1].id))
    await journal.append(facts.draft(facts.note()))
    assert heard == [1]
    assert "listener" in str(reported[0]["message"])


async def test_a_wrong_draft_fails_alone(journal: Journal) -> None:
    answers = await asyncio.gather(
        journal.append(facts.draft(facts.note())),
        journal.append(facts.draft(facts.contact("c", 5))),  # type: ignore[arg-type]
        journal.append(facts.draft(facts.contact())),
        return_exceptions=True,
    )
    assert isinstance(answers[1], UsageError)
    assert [answer[0].id for answer in (answers[0], answers[2])] == [1, 2]  # type: ignore[index]


async def test_when_the_disk_refuses_every_waiter_hears_it_and_nothing_is_told(
    store: Store, journal: Journal
) -> None:
    heard: list[int] = []
    journal.listen(lambda events: heard.append(events[-1].id))
    ledger = journal._ledger
    ledger._connection.execute("PRAGMA max_page_count = 12")
    big = facts.draft(facts.note(text="x" * 250_000))
    answers = await asyncio.gather(
        journal.append(big), journal.append(facts.draft(facts.contact())), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [LedgerWriteError] * 2
    assert heard == []
    assert store.reader().head_id() == 0

    ledger._connection.execute("PRAGMA max_page_count = 1000000")
    assert [event.id for event in await journal.append(facts.draft(facts.contact()))] == [1]
    assert heard == [1]


async def test_any_failure_of_a_commit_is_a_ledger_write_error(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Event]:
        raise MemoryError("no more")

    monkeypatch.setattr(journal._ledger, "commit", broken)
    with pytest.raises(LedgerWriteError, match="no more") as refused:
        await journal.append(facts.draft(facts.note()))
    assert isinstance(refused.value.__cause__, MemoryError)


async def test_a_cancelled_caller_takes_nothing_back_and_nobody_with_it(
    store: Store, journal: Journal
) -> None:
    leaving = asyncio.ensure_future(journal.append(facts.draft(facts.note("gone"))))
    staying = asyncio.ensure_future(journal.append(facts.draft(facts.note("here"))))
    await asyncio.sleep(0)
    leaving.cancel()
    assert [event.id for event in await staying] == [2]
    assert leaving.cancelled()
    assert store.reader().event(1).payload.document == "gone"  # type: ignore[attr-defined]


async def test_views_can_be_waited_for(store: Store, journal: Journal) -> None:
    (event,) = await journal.append(facts.draft(facts.contact()))
    await asyncio.gather(*(journal.views_at(event.id) for _ in range(5)))
    assert journal.views_cursor == event.id
    assert store.knowledge().read("contact", "c1")["event"] == event.id
    await journal.views_at(event.id)


async def test_views_of_the_future_are_waited_for(journal: Journal) -> None:
    waiting = asyncio.ensure_future(journal.views_at(3))
    for _ in range(3):
        assert not waiting.done()
        await journal.append(facts.draft(facts.note()))
    async with asyncio.timeout(30):
        await waiting


async def test_views_that_cannot_be_written_are_said_to_who_waits_and_recover(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    with monkeypatch.context() as patched:

        def broken(*_: object, **__: object) -> int:
            raise RuntimeError("no views today")

        patched.setattr(Materializer, "catch_up", broken)
        (event,) = await journal.append(facts.draft(facts.note()))
        with pytest.raises(ViewsError, match="no views today"):
            await journal.views_at(event.id)
    assert reported
    await journal.views_at(event.id)


async def test_the_log_is_folded_on_the_way(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr("runloopd.journal._CHECKPOINT_EVERY", 50)
    monkeypatch.setattr(journal._ledger, "checkpoint", lambda: calls.append(1))
    for _ in range(6):
        events = await journal.append(*[facts.draft(facts.contact())] * 20)
        await journal.views_at(events[-1].id)
    await journal.close()
    assert len(calls) == 2


async def test_closing_commits_what_waits_and_refuses_the_rest(store: Store) -> None:
    journal = Journal(store.ledger(), store.materializer(), store.clock)
    waiting = asyncio.ensure_future(journal.append(facts.draft(facts.contact())))
    await asyncio.sleep(0)
    await journal.close()
    await journal.close()
    assert [event.id for event in await waiting] == [1]
    with pytest.raises(LedgerWriteError):
        await journal.append(facts.draft(facts.note()))
    with pytest.raises(ViewsError):
        await journal.views_at(99)
    assert store.knowledge().cursor() == 1


async def test_a_journal_may_go_without_views(store: Store) -> None:
    journal = Journal(store.ledger(), None, store.clock)
    assert await journal.append() == []
    (event,) = await journal.append(facts.draft(facts.contact()))
    await journal.views_at(event.id)
    assert journal.views_cursor == 0
    await journal.close()


def committing_threads(monkeypatch: pytest.MonkeyPatch, go_on: threading.Event | None = None) -> list[str]:
    """Names of the threads that commit, from here on; the journal's own waits for ``go_on``."""
    names: list[str] = []
    commit = Ledger.commit

    def noted(self: Ledger, prepared: list[object], blobs: object = ()) -> list[Event]:
        names.append(threading.current_thread().name)
        if names[-1] == "journal" and go_on is not None:
            assert go_on.wait(30)
        return commit(self, prepared, blobs)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "commit", noted)
    return names


@pytest.mark.requirement("I4.step.3")
async def test_where_a_commit_waits_for_the_disk_the_loop_does_not(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = committing_threads(monkeypatch)
    await journal.append(facts.draft(facts.note()))
    assert names == ["journal"]


async def test_what_does_not_wait_is_committed_where_it_is_unless_it_is_much(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    names = committing_threads(monkeypatch, go_on)
    journal = Journal(store.ledger(synchronous="NORMAL"), store.materializer(), store.clock)
    here = threading.current_thread().name
    await journal.append(facts.draft(facts.note()))
    assert names == [here]
    # What comes while the thread is busy waits behind it: the order is the order of the calls.
    large = asyncio.ensure_future(journal.append(facts.draft(facts.note("large")), blobs=[bytes(300_000)]))
    for _ in range(5):
        await asyncio.sleep(0)
    small = asyncio.ensure_future(journal.append(facts.draft(facts.note("small"))))
    for _ in range(5):
        await asyncio.sleep(0)
    go_on.set()
    answers = await asyncio.gather(large, small)
    assert [events[0].id for events in answers] == [2, 3]
    assert set(names[1:]) == {"journal"}
    await journal.append(facts.draft(facts.note()))
    assert names[-1] == here
    await journal.close()


async def test_a_refused_commit_in_the_loop_is_heard_and_the_next_one_goes_on(store: Store) -> None:
    journal = Journal(store.ledger(synchronous="NORMAL"), None, store.clock)
    heard: list[int] = []
    journal.listen(lambda events: heard.append(events[-1].id))
    journal._ledger._connection.execute("PRAGMA max_page_count = 12")
    with pytest.raises(LedgerWriteError):
        await journal.append(facts.draft(facts.note(text="x" * 250_000)))
    journal._ledger._connection.execute("PRAGMA max_page_count = 1000000")
    assert [event.id for event in await journal.append(facts.draft(facts.contact()))] == [1]
    assert heard == [1]
    await journal.close()


@pytest.mark.requirement("I4.step.3")
@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
async def test_commits_stand_back_for_one_checkpoint_when_the_log_is_long(
    store: Store, monkeypatch: pytest.MonkeyPatch, synchronous: str
) -> None:
    """Beside a writer that never pauses a checkpoint never reaches the log's end, and the log only grows."""
    monkeypatch.setattr("runloopd.journal._CHECKPOINT_COMMITS", 1)
    journal = Journal(store.ledger(synchronous=synchronous), None, store.clock)
    held, go_on = threading.Event(), threading.Event()
    pages = iter([10**6])

    def checkpoint() -> int:
        found = next(pages, 0)
        if not found and not held.is_set():
            held.set()
            assert go_on.wait(30)
        return found

    monkeypatch.setattr(journal._ledger, "checkpoint", checkpoint)
    await journal.append(facts.draft(facts.note("d1")))
    assert await asyncio.to_thread(held.wait, 30)
    waiting = asyncio.ensure_future(journal.append(facts.draft(facts.note("d2"))))
    for _ in range(20):
        await asyncio.sleep(0)
    assert journal.head_id == 1
    go_on.set()
    async with asyncio.timeout(30):
        assert [event.id for event in await waiting] == [2]
    await journal.close()


async def test_the_anchor_follows_the_signed_head(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("runloopd.journal._ANCHOR_AFTER_S", 0)
    written = threading.Event()
    ledger = store.ledger(sign_every=4, anchor=tmp_path / "anchor")
    keep = ledger.keep_anchor

    def noted() -> None:
        keep()
        written.set()

    monkeypatch.setattr(ledger, "keep_anchor", noted)
    journal = Journal(ledger, None, store.clock)
    for _ in range(5):
        await journal.append(facts.draft(facts.note()))
    assert await asyncio.to_thread(written.wait, 30)
    kept = read_anchor(tmp_path / "anchor")
    assert kept is not None
    assert kept.id == 4
    await journal.close()
    kept = read_anchor(tmp_path / "anchor")
    assert kept is not None
    assert kept.id == 5
    assert kept.signed_by(store.public_key)


async def test_views_that_are_far_behind_read_the_ledger(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runloopd.journal._BEHIND", -1)
    monkeypatch.setattr("runloopd.journal._FOLD_AT", 1)
    journal = Journal(store.ledger(), store.materializer(), store.clock)
    for number in range(5):
        (event,) = await journal.append(facts.draft(facts.note(f"d{number}")))
    await journal.views_at(event.id)
    assert journal.views_cursor == 5
    await journal.close()


async def test_views_follow_though_nobody_waits(store: Store, journal: Journal) -> None:
    folded = threading.Event()
    materializer = journal._materializer
    assert materializer is not None
    catch_up = materializer.catch_up

    def noted(**more: object) -> int:
        cursor = catch_up(**more)  # type: ignore[arg-type]
        folded.set()
        return cursor

    materializer.catch_up = noted  # type: ignore[method-assign]
    (event,) = await journal.append(facts.draft(facts.contact()))
    assert await asyncio.to_thread(folded.wait, 30)
    assert journal.views_cursor == event.id


async def test_a_log_with_room_is_read_to_its_last_frame_after_a_crash(
    store: Store, journal: Journal, tmp_path: Path
) -> None:
    await journal.append(facts.draft(facts.note("d1")))
    journal._keeper.submit(lambda: None).result(30)
    assert store.events_db.with_name("events.db-wal").stat().st_size >= 8 * 1024 * 1024
    await journal.append(facts.draft(facts.note("d2")))
    crashed = tmp_path / "crashed"
    shutil.copytree(store.folder, crashed)
    for lock in crashed.glob("*-shm"):
        lock.unlink()
    with Ledger.open(crashed / "events.db", signing_key=store.key) as ledger:
        assert (ledger.head.id, ledger.torn_tail) == (2, False)
    assert verify(crashed / "events.db", public_key=store.public_key).ok
