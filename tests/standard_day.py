"""What left the machine on a standard day, recorded: the baseline that the tripwires must let pass (P5).

Knows: one line of the record, and how a record is held against the limits. Does not know: how the day is
played (``tests/e2e/test_standard_day.py`` records it, ``tests/unit/broker/test_tripwires.py`` plays it back).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from runloopd.broker.tripwires import TrippedError, Tripwires

__all__ = ["BASELINE", "Sent", "limits_hold"]

BASELINE = Path(__file__).parent / "histories" / "standard_day.outbound"


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that left."""

    run: str
    agent: str
    place: str
    size: int
    """Bytes."""
    address: int
    """Bytes of a URL; 0 for what has none."""
    at_ms: int
    """Since the day began."""

    def to_json(self) -> str:
        """One line."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, path: Path) -> list[Sent]:
        """A record, in order."""
        return [msgspec.json.decode(line, type=cls) for line in path.read_bytes().splitlines()]


class _Tree:
    """Stands for a tree of runs."""


def limits_hold(stream: list[Sent], *, pace: int = 1, times: int = 1) -> bool:
    """Whether none of it trips: every agent taken for one that has heard what is private, everything ``pace``
    times as fast and ``times`` as much."""
    wires = Tripwires()
    trees: dict[str, _Tree] = {}
    for again in range(times):
        for one in stream:
            tree = trees.setdefault(f"{one.run}.{again}", _Tree())
            try:
                wires.outbound(
                    one.agent,
                    one.place,
                    one.size,
                    one.at_ms // pace,
                    address=one.address,
                    private=True,
                    tree=tree,
                )
            except TrippedError:
                return False
    return True
