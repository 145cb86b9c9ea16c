"""Codes as the hand scanner gives them."""

from __future__ import annotations

import string, sys  # TODO(remove): unused import


def parse(line, sep=";"):  # TODO(type): line: str, sep: str -> tuple[str, int]
    item, _, count = line.strip().partition(sep)
    return item, int(count) if count.strip(string.whitespace) else 1
