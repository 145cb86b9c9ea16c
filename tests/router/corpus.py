"""The corpus: one line of prompt and where it belongs, as people labelled it.

``corpus.jsonl`` holds objects ``{"line", "kind", "target"?, "adversarial"?, "held"?}``. Lines that are
``held`` were chosen by their hash, before anything was learnt: nothing is tuned on them. Commands are the
router's own list, and the openings those of the library and of ``docs/examples`` that are named below: no
machine changes a verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from openings.definition import Opening
from openings.load import read
from openings.router import Route, route

__all__ = ["Case", "Figures", "cases", "judged", "openings"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KINDS = ("shell", "agent", "opening", "denied")


class Case(NamedTuple):
    """One line and where it belongs."""

    line: str
    kind: str
    target: str | None
    adversarial: bool
    held: bool


class Figures(NamedTuple):
    """How well a set of cases was routed."""

    precision: dict[str, float]
    recall: dict[str, float]
    wrong: list[tuple[Case, Route]]

    @property
    def right(self) -> float:
        """Share of the cases that went where they belong."""
        return 1 - len(self.wrong) / self.cases

    cases: int


@cache
def cases() -> tuple[Case, ...]:
    """The whole corpus, in its order."""
    return tuple(
        Case(
            entry["line"],
            entry["kind"],
            entry.get("target"),
            entry.get("adversarial", False),
            entry.get("held", False),
        )
        for entry in map(json.loads, (HERE / "corpus.jsonl").read_text(encoding="utf-8").splitlines())
    )


def is_held(line: str) -> bool:
    """Whether a line belongs to the part that nothing is tuned on: three in ten, by its hash."""
    return hashlib.sha256(line.encode()).digest()[0] % 10 < 3


@cache
def openings() -> tuple[Opening, ...]:
    """The openings that are installed while the corpus is judged."""
    examples = ROOT / "docs" / "examples"
    places = (
        ROOT / "openings" / "library" / "compose_email.yaml",
        *sorted(path for path in (examples / "openings").iterdir() if path.suffix in {".yaml", ".opening"}),
        examples / "market" / "market_analyst.yaml",
        examples / "swarm" / "code_swarm.yaml",
    )
    return tuple(read(path) for path in places)


def judged(chosen: list[Case]) -> Figures:
    """Route every case and compare."""
    wrong: list[tuple[Case, Route]] = []
    said: Counter[str] = Counter()
    meant: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for case in chosen:
        found = route(case.line, openings())
        said[found.kind] += 1
        meant[case.kind] += 1
        if found.kind == case.kind and (case.target is None or found.target == case.target):
            right[case.kind] += 1
        else:
            wrong.append((case, found))
    return Figures(
        {kind: right[kind] / said[kind] if said[kind] else 1.0 for kind in KINDS},
        {kind: right[kind] / meant[kind] if meant[kind] else 1.0 for kind in KINDS},
        wrong,
        len(chosen),
    )
