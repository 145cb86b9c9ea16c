"""A page for people."""

from __future__ import annotations

import sys  # TODO(remove): unused import

from depot.stock import Shelf


def page(shelves):  # TODO(type): shelves: list[Shelf] -> str
    # TODO: columns would be easier to read
    return "\n".join(f"{shelf.name}: {shelf.total()}" for shelf in shelves)
