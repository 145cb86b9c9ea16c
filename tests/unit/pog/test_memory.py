"""Memory of agents: versions, conflicts, sizes, and the views that hold it for us."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pog.errors import MemoryBehindError, MemoryConflictError
from pog.ledger import Ledger
from pog.materializer import Materializer
from pog.memory import Entry, Memory, Space, Write
from runloop.errors import UsageError
from runloop.events import MemoryForgotten, MemoryUpdated, SourceRetracted

from . import facts
from .conftest import Store

NOTHING = Entry(value=None, version=0, event=None)


class Kept:
    """A ledger, its views and the memory over them, open together as in a daemon."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.open()

    def open(self) -> None:
        self.ledger: Ledger = self.store.ledger(synchronous="NORMAL")
        self.views = Materializer.open(self.store.views_db, self.store.events_db)
        self.views.catch_up()
        self.memory = Memory(self.store.views_db, lambda: self.views.cursor)

    def close(self) -> None:
        self.memory.close()
        self.views.close()
        self.ledger.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def state(self, write: Write | None) -> None:
        assert write is not None
        with write:
            self.memory.apply(self.ledger.append([facts.draft(write.payload)]))

    def put(self, value: object, expected: int | None = None, key: str = "tone") -> None:
        self.state(self.memory.put("agent:writer", key, value, expected))

    def get(self, key: str = "tone") -> tuple[object, int, bool]:
        entry = self.memory.get("agent:writer", key)
        return entry.value, entry.version, entry.exists


@pytest.fixture
def kept(store: Store) -> Iterator[Kept]:
    kept = Kept(store)
    yield kept
    kept.close()


def test_a_value_is_read_back_with_its_version_and_event(kept: Kept) -> None:
    assert kept.memory.get("agent:writer", "tone") == NOTHING
    kept.put({"warm": True}, 0)
    kept.put(None, 1)
    entry = kept.memory.get("agent:writer", "tone")
    assert (entry.value, entry.version, entry.event, entry.exists) == (None, 2, 2, True)
    kept.views.catch_up()
    assert [key.key for key in kept.memory.listed("agent:writer")[0]] == ["tone"]
    assert kept.memory.listed("agent:critic") == ([], False)


def test_a_stale_write_is_a_conflict_and_states_nothing(kept: Kept) -> None:
    kept.put("one")
    for stale in (0, 2):
        with pytest.raises(MemoryConflictError) as refused:
            kept.put("two", stale)
        assert refused.value.data == {"expected": stale, "actual": 1}
    assert kept.ledger.head.id == 1


def test_two_writers_at_once_cannot_both_win(kept: Kept) -> None:
    with kept.memory.put("agent:writer", "tone", 1, 0):
        for expected in (0, 1, None):
            with pytest.raises(MemoryConflictError):
                kept.memory.put("agent:writer", "tone", 2, expected)
        kept.memory.put("agent:writer", "other", 2, 0).end()
    with kept.memory.put("agent:writer", "tone", 3, 0) as write:
        assert write.payload.entry_version == 1


def test_of_many_writers_of_one_version_exactly_one_wins(kept: Kept) -> None:
    """200 threads, five versions: each version has one winner, whoever is first."""
    wins: list[int] = []

    def write(number: int) -> None:
        version = number % 5
        try:
            claim = kept.memory.put("agent:writer", "tone", number, version)
        except MemoryConflictError:
            return
        wins.append(claim.payload.entry_version)
        kept.state(claim)

    for _ in range(5):
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(write, range(200)))
    assert sorted(wins) == list(range(1, len(wins) + 1))
    assert kept.get()[1] == len(wins) == 5


def test_a_failed_statement_gives_the_version_back(kept: Kept) -> None:
    with pytest.raises(OSError), kept.memory.put("agent:writer", "tone", 1, 0):
        raise OSError
    with kept.memory.put("agent:writer", "tone", 1, 0) as write:
        assert write.payload.entry_version == 1


def test_memory_survives_a_restart(kept: Kept) -> None:
    kept.put("one")
    kept.put("two")
    kept.reopen()
    assert kept.get() == ("two", 2, True)


def test_what_is_forgotten_is_gone_and_its_versions_go_on(kept: Kept) -> None:
    assert kept.memory.forget("agent:writer", "tone") is None
    kept.put("one")
    with pytest.raises(MemoryConflictError):
        kept.memory.forget("agent:writer", "tone", 7)
    kept.state(kept.memory.forget("agent:writer", "tone", 1))
    for _ in ("before the views have it", "after"):
        assert kept.get() == (None, 2, False)
        assert kept.memory.forget("agent:writer", "tone") is None
        kept.views.catch_up()
        assert kept.memory.listed("agent:writer") == ([], False)
    with pytest.raises(MemoryConflictError):
        kept.put("stale", 1)
    kept.put("new", 0)  # "must not exist" holds for what was forgotten
    assert kept.get() == ("new", 3, True)
    kept.reopen()
    assert kept.get() == ("new", 3, True)


@pytest.mark.requirement("I4.memory.2")
def test_only_what_the_views_lack_is_held(kept: Kept) -> None:
    for number in range(40):
        kept.put(number, key=f"k{number}")
    assert kept.memory.held == 40
    kept.views.catch_up()
    kept.put("last", key="k0")
    assert kept.memory.held == 1
    assert kept.get("k0") == ("last", 2, True)
    assert kept.get("k39") == (39, 1, True)


def test_nothing_more_is_written_when_the_views_do_not_follow(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pog.memory._MAX_AHEAD", 3)
    for number in range(3):
        kept.put(number, key=f"k{number}")
    with pytest.raises(MemoryBehindError):
        kept.put(4, key="k4")
    kept.views.catch_up()
    kept.memory.apply([])
    kept.put(4, key="k4")


def test_keys_are_listed_by_prefix_and_page(kept: Kept) -> None:
    for key in ("a", "b/1", "b/2", "b/3", "c", "é"):
        kept.put(1, key=key)
    kept.views.catch_up()

    def keys(**options: object) -> tuple[list[str], bool]:
        found, more = kept.memory.listed("agent:writer", **options)  # type: ignore[arg-type]
        return [key.key for key in found], more

    assert keys() == (["a", "b/1", "b/2", "b/3", "c", "é"], False)
    assert keys(prefix="b/") == (["b/1", "b/2", "b/3"], False)
    assert keys(prefix="b/", limit=2) == (["b/1", "b/2"], True)
    assert keys(prefix="b/", after="b/2") == (["b/3"], False)
    assert keys(prefix="%") == ([], False)


Step = tuple[str, str, str]


STEPS = st.tuples(st.sampled_from("pfcrv"), st.sampled_from("abé"), st.text(max_size=4))
"""put, forget, claim and give up, restart, catch the views up; a key; a value"""


@settings(max_examples=25, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_what_a_namespace_holds_is_what_its_entries_add_up_to(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    """Puts, deletions, given-up writes, restarts and catching up, in any order: count and bytes stay true."""
    kept = Kept(Store(tmp_path_factory.mktemp("memory")))
    model: dict[str, str] = {}
    try:
        for what, key, value in steps:
            if what == "p":
                write = kept.memory.put("agent:writer", key, value)
                model[key] = value
                assert write.after == _space(model)
                kept.state(write)
            elif what == "f":
                write_or_none = kept.memory.forget("agent:writer", key)
                assert (write_or_none is None) == (key not in model)
                model.pop(key, None)
                if write_or_none is not None:
                    kept.state(write_or_none)
            elif what == "c":
                kept.memory.put("agent:writer", key, value).end()
            elif what == "r":
                kept.reopen()
            else:
                kept.views.catch_up()
        kept.views.catch_up()
        held = kept.memory.spaces().get("agent:writer", Space(keys=0, bytes=0))
        assert held == _space(model) or not model
    finally:
        kept.close()


def _space(model: dict[str, str]) -> Space:
    import json

    sizes = [len(k.encode()) + len(json.dumps(v, ensure_ascii=False).encode()) for k, v in model.items()]
    return Space(keys=len(model), bytes=sum(sizes))


@pytest.mark.parametrize(
    ("namespace", "key", "value"),
    [
        ("", "k", 1),
        ("Not One", "k", 1),
        ("agent:writer", "", 1),
        ("agent:writer", "a\nb", 1),
        ("agent:writer", "k" * 257, 1),
        ("agent:writer", "k", "x" * 1_100_000),
        ("agent:writer", "k", object()),
        ("agent:writer", "k", 2**60),
    ],
)
def test_what_cannot_be_stored_is_refused(kept: Kept, namespace: str, key: str, value: object) -> None:
    with pytest.raises(UsageError):
        kept.memory.put(namespace, key, value)


def test_a_fact_stated_past_the_memory_is_counted_anew(kept: Kept) -> None:
    kept.put("one")
    kept.memory.apply(
        kept.ledger.append(
            [facts.draft(MemoryUpdated(namespace="agent:writer", key="x", value=1, entry_version=1))]
        )
    )
    with kept.memory.put("agent:writer", "y", 1) as write:
        assert write.after.keys == 3
    gone = MemoryForgotten(namespace="agent:writer", key="x", entry_version=2)
    kept.memory.apply(kept.ledger.append([facts.draft(gone)]))
    with kept.memory.put("agent:writer", "y", 1) as write:
        assert write.after.keys == 2


def test_what_was_used_lately_is_told_without_the_file(kept: Kept) -> None:
    kept.put("warm")
    kept.views.catch_up()
    kept.put("x" * 5_000, key="large")
    kept.memory.get("agent:writer", "unheard")
    kept.views.catch_up()
    kept.memory.apply([])
    assert kept.memory.held == 0
    known = {key: kept.memory.knows("agent:writer", key, size=True) for key in ("tone", "unheard", "large")}
    assert known == {"tone": True, "unheard": True, "large": False}
    assert not kept.memory.knows("agent:other", "tone")
    kept.memory.close()  # no file can be asked now
    assert kept.get() == ("warm", 1, True)
    assert kept.get("unheard") == (None, 0, False)


def test_what_is_taken_back_is_forgotten_before_the_views_know_of_it(kept: Kept) -> None:
    kept.put("warm")
    kept.put("a lie")
    kept.views.catch_up()
    lie = kept.memory.get("agent:writer", "tone").event
    assert lie is not None
    taken = SourceRetracted(
        source=lie, facts=[lie], cascade=False, runs=[], approvals=[], reason="", principal="operator:1"
    )
    kept.memory.apply(kept.ledger.append([facts.draft(taken)]))
    # Asked too early: the views still hold it. Nothing of that may be remembered.
    assert kept.get() == ("a lie", 2, True)
    assert not kept.memory.knows("agent:writer", "tone")
    kept.views.catch_up()
    assert kept.get() == ("warm", 3, True)
    assert kept.memory.knows("agent:writer", "tone")
