"""What lies where."""

from __future__ import annotations

import json
import os  # TODO(remove): unused import
from dataclasses import dataclass, field, replace  # TODO(remove): unused import


@dataclass
class Shelf:
    """One shelf: items and how many of each."""

    name: str
    items: dict[str, int] = field(default_factory=dict)

    def total(self):  # TODO(type): -> int
        return sum(self.items.values())

    def put(self, item, count=1):  # TODO(type): item: str, count: int -> None
        self.items[item] = self.items.get(item, 0) + count


def load(text):  # TODO(type): text: str -> list[Shelf]
    return [Shelf(name, dict(items)) for name, items in json.loads(text).items()]
