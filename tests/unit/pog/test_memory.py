"""Memory of agents: versions, conflicts, and the fold that survives a restart."""

from __future__ import annotations

import pytest

from pog.errors import MemoryConflictError
from pog.memory import Entry, Memory
from runloop.errors import UsageError

from . import facts
from .conftest import Store


def write(store: Store, memory: Memory, value: object, expected: int | None = None) -> None:
    with store.ledger() as ledger, memory.put("agent:writer", "tone", value, expected) as payload:
        memory.apply(ledger.append([facts.draft(payload)]))


@pytest.fixture
def memory(store: Store) -> Memory:
    store.ledger().close()
    return Memory(store.reader())


def test_a_value_is_read_back_with_its_version_and_event(store: Store, memory: Memory) -> None:
    assert memory.get("agent:writer", "tone") == Entry(value=None, version=0, event=None)
    write(store, memory, {"warm": True}, 0)
    write(store, memory, None, 1)
    assert memory.get("agent:writer", "tone") == Entry(value=None, version=2, event=2)
    assert memory.keys("agent:writer") == ["tone"]
    assert memory.keys("agent:critic") == []


def test_a_stale_write_is_a_conflict_and_states_nothing(store: Store, memory: Memory) -> None:
    write(store, memory, "one")
    for stale in (0, 2):
        with pytest.raises(MemoryConflictError) as refused:
            write(store, memory, "two", stale)
        assert refused.value.data == {"expected": stale, "actual": 1}
    assert store.reader().head_id() == 1


def test_two_writers_at_once_cannot_both_win(store: Store, memory: Memory) -> None:
    with memory.put("agent:writer", "tone", 1, 0):
        for expected in (0, 1, None):
            with pytest.raises(MemoryConflictError), memory.put("agent:writer", "tone", 2, expected):
                pass
        with memory.put("agent:writer", "other", 2, 0):
            pass
    with memory.put("agent:writer", "tone", 3, 0) as payload:
        assert payload.entry_version == 1


def test_a_failed_statement_gives_the_version_back(memory: Memory) -> None:
    with pytest.raises(OSError), memory.put("agent:writer", "tone", 1, 0):
        raise OSError
    with memory.put("agent:writer", "tone", 1, 0) as payload:
        assert payload.entry_version == 1


def test_memory_survives_a_restart(store: Store, memory: Memory) -> None:
    write(store, memory, "one")
    write(store, memory, "two")
    assert Memory(store.reader()).get("agent:writer", "tone") == Entry(value="two", version=2, event=2)


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
def test_what_cannot_be_stored_is_refused(memory: Memory, namespace: str, key: str, value: object) -> None:
    with pytest.raises(UsageError), memory.put(namespace, key, value):
        pass
