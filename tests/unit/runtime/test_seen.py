"""What a folder held is remembered exactly as long as nothing in it has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runloopd.runtime.seen import SETTLED_NS, Seen


class Shelf:
    """A folder of two files, and how often it was read."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.reads = 0
        (place / "src").mkdir(parents=True)
        (place / "manifest.toml").write_text("name = 1")
        (place / "src" / "agent.py").write_text("pass")

    def read(self) -> int:
        self.reads += 1
        return self.reads


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "agent")


def later() -> int:
    return time.time_ns() + 2 * SETTLED_NS


def test_what_has_not_changed_is_read_once(shelf: Shelf) -> None:
    seen: Seen[int] = Seen(now_ns=later)
    assert [seen.of(shelf.place, shelf.read) for _ in range(3)] == [1, 1, 1]


def test_what_was_touched_a_moment_ago_is_read_again(shelf: Shelf) -> None:
    seen: Seen[int] = Seen(now_ns=time.time_ns)
    assert [seen.of(shelf.place, shelf.read) for _ in range(2)] == [1, 2]


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes of the same length": lambda place: (place / "src" / "agent.py").write_text("exec"),
    "times set back": lambda place: (
        (place / "src" / "agent.py").write_text("exec"),
        os.utime(place / "src" / "agent.py", ns=(1, 1)),
    ),
    "a file more": lambda place: (place / "src" / "more.py").write_text(""),
    "a file less": lambda place: (place / "manifest.toml").unlink(),
    "another name for a file": lambda place: os.link(place / "manifest.toml", place.parent / "elsewhere"),
    "another mode": lambda place: (place / "manifest.toml").chmod(0o600),
    "a link in the place of a file": lambda place: (
        (place / "manifest.toml").rename(place.parent / "moved"),
        (place / "manifest.toml").symlink_to(place.parent / "moved"),
    ),
    "a copy in the place of the folder": lambda place: (
        place.rename(place.parent / "old"),
        Shelf(place),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_any_change_is_seen(shelf: Shelf, change: Callable[[Path], object]) -> None:
    seen: Seen[int] = Seen(now_ns=later)
    seen.of(shelf.place, shelf.read)
    change(shelf.place)
    assert seen.of(shelf.place, shelf.read) == 2


def test_what_changes_while_it_is_read_is_not_remembered(shelf: Shelf) -> None:
    seen: Seen[int] = Seen(now_ns=later)

    def racing() -> int:
        (shelf.place / "src" / "agent.py").write_text("exec")
        return shelf.read()

    seen.of(shelf.place, racing)
    assert seen.of(shelf.place, shelf.read) == 2


def test_a_failure_is_not_remembered(shelf: Shelf) -> None:
    seen: Seen[int] = Seen(now_ns=later)

    def fails() -> int:
        raise ValueError

    with pytest.raises(ValueError):
        seen.of(shelf.place, fails)
    assert seen.of(shelf.place, shelf.read) == 1


def test_readings_of_one_place_are_told_apart_by_their_key(shelf: Shelf) -> None:
    seen: Seen[int] = Seen(now_ns=later)
    assert seen.of(shelf.place, shelf.read, key="a") == 1
    assert seen.of(shelf.place, shelf.read, key="b") == 2
    assert seen.of(shelf.place, shelf.read, key="a") == 1


def test_only_so_much_is_remembered(tmp_path: Path) -> None:
    seen: Seen[int] = Seen(size=2, now_ns=later)
    shelves = [Shelf(tmp_path / str(number)) for number in range(3)]
    for shelf in shelves:
        seen.of(shelf.place, shelf.read)
    assert [seen.of(shelf.place, shelf.read) for shelf in reversed(shelves)] == [1, 1, 2]
