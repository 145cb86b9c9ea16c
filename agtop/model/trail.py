"""A sequence that only grows and whose every earlier length is still a value.

A state of the past has the first so many rows of what a later state has; all of them share one list. Folding
the same facts again, from an earlier state, finds its rows there already. Appending costs the same however
long it is. Knows nothing of what the rows are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar, overload

__all__ = ["Trail"]

T = TypeVar("T")


class Trail(Sequence[T], Generic[T]):
    """An immutable sequence: :meth:`grown` gives the next one."""

    __slots__ = ("_length", "_rows")

    def __init__(self, rows: Sequence[T] = ()) -> None:
        self._rows: list[T] = list(rows)
        self._length = len(self._rows)

    def grown(self, row: T) -> Trail[T]:
        """This sequence with one more row."""
        rows, length = self._rows, self._length
        if length == len(rows):
            rows.append(row)
        elif rows[length] != row:  # another course of things than the one that was folded before
            rows = [*rows[:length], row]
        made: Trail[T] = Trail.__new__(Trail)
        made._rows, made._length = rows, length + 1
        return made

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> list[T]: ...

    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self._rows[at] for at in range(*place.indices(self._length))]
        if not -self._length <= place < self._length:
            raise IndexError(place)
        return self._rows[place if place >= 0 else place + self._length]

    def __iter__(self) -> Iterator[T]:
        rows = self._rows
        return (rows[at] for at in range(self._length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trail):
            return NotImplemented
        if self._length != other._length:
            return False
        return self._rows is other._rows or all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Trail({list(self)!r})"
