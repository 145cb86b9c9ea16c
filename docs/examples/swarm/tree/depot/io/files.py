"""Shelves in a file."""

from __future__ import annotations

import io  # TODO(remove): unused import
from pathlib import Path

from depot.labels import WIDTH
from depot.stock import Shelf, load


def read(path, *, encoding="utf-8"):  # TODO(type): path: Path, encoding: str -> list[Shelf]
    return load(path.read_text(encoding=encoding))


def header():
    return "=" * WIDTH
