"""A guard: the exact text that is it, what stands there without it, and which tests go red then.

Knows: how a guard is written down. Does not know: which there are (``tests.mutants.guards``), or how one is
taken out (``tests.mutants.trial``).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Guard", "guards"]


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard."""

    row: str
    """The attack it stands against."""
    file: str
    text: str
    """As it stands in the file, once. ``if …:`` and ``elif …:`` are conditions of a refusal."""
    tests: tuple[str, ...]
    """Files (or single tests) of which one must go red."""
    put: str | None = None
    """What stands there without the guard; None: its condition is never true."""

    @property
    def without(self) -> str:
        """The text that takes the guard's place."""
        if self.put is not None:
            return self.put
        head, _, _ = self.text.partition(" ")
        return f"{head} False:"

    @property
    def name(self) -> str:
        """For people: the file and the first line of the guard."""
        return f"{self.file}: {self.text.strip().splitlines()[0].strip()}"


def guards(row: str, file: str, tests: str, *texts: str | tuple[str, str]) -> list[Guard]:
    named = tuple(f"tests/{test}" for test in tests.split())
    return [
        Guard(row, file, text, named) if isinstance(text, str) else Guard(row, file, text[0], named, text[1])
        for text in texts
    ]
