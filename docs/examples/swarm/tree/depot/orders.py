"""Orders, and what they take from the shelves."""

from __future__ import annotations

from depot.stock import Shelf

# TODO(rename): tmp -> remaining


def take(shelves, item, wanted):  # TODO(type): shelves: list[Shelf], item: str, wanted: int -> int
    """Take as many as there are; returns how many are still wanted."""
    tmp = wanted
    for shelf in shelves:
        there = min(tmp, shelf.items.get(item, 0))
        shelf.items[item] = shelf.items.get(item, 0) - there
        tmp -= there
        if not tmp:
            break
    print(f"{tmp} of {wanted} {item} are missing")
    return tmp
