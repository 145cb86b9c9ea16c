"""What an upgrade would change of an agent's rights: asked before, asked now, used.

Knows: how two policies differ entry by entry, which differences widen, and how that is written for a person.
Does not know: which versions these are, where the uses were recorded, who decides. Pure.

The text is ASCII only: entries are foreign, and what a person accepts must not be able to look like something
else (attacks.md C6).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from runloop.caps.grants import Entry, NetRule, Value, join
from runloop.caps.policy import CAPABILITIES, NOTHING, Policy

__all__ = ["CapsDiff", "CapsRow", "capability_diff", "render"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CapsRow:
    """One entry of one capability."""

    capability: str
    entry: Any
    """As ``policy.caps`` has it: a text or a table; True: the whole capability, without bound."""
    before: bool
    """The installed version may do all of it."""
    now: bool
    """The new version may do all of it."""
    used: bool | None
    """It was used in the runs looked at; None: nobody looked."""

    @property
    def widening(self) -> bool:
        """The new version may do something here that the old one may not."""
        return self.now and not self.before


@dataclass(frozen=True, kw_only=True, slots=True)
class CapsDiff:
    """Every entry either version asks for, in the order of the capability table."""

    rows: tuple[CapsRow, ...]
    first: bool
    """There is no version before."""

    @property
    def widening(self) -> tuple[CapsRow, ...]:
        """What is granted for the first time: what the person is asked about."""
        return tuple(row for row in self.rows if row.widening)

    @property
    def dropped(self) -> tuple[CapsRow, ...]:
        """What was granted and is not any more."""
        return tuple(row for row in self.rows if row.before and not row.now)

    @property
    def unused(self) -> tuple[CapsRow, ...]:
        """What stays granted although no run looked at has used it."""
        return tuple(row for row in self.rows if row.before and row.now and row.used is False)

    def to_json(self) -> dict[str, Any]:
        """Canonical: what an approval binds and ``--json`` shows."""
        return {
            "first": self.first,
            "rows": [{**asdict(row), "widening": row.widening} for row in self.rows],
        }


def capability_diff(
    before: Policy | None, now: Policy, used: Iterable[tuple[str, str]] | None = None
) -> CapsDiff:
    """Compare what the installed version asked for (None: nothing is installed) with what the new one asks.

    ``used`` are the capability and the target of every allowed call of the runs looked at.
    """
    old = before or NOTHING
    uses = None if used is None else sorted(set(used))
    rows = []
    for name in CAPABILITIES:
        had, has = _reach(old, name), _reach(now, name)
        for entry in _entries(old.value(name), now.value(name)):
            rows.append(
                CapsRow(
                    capability=name,
                    entry=entry.to_json() if isinstance(entry, NetRule) else entry,
                    before=_covers(name, had, entry),
                    now=_covers(name, has, entry),
                    used=None if uses is None else _is_used(name, entry, uses),
                )
            )
    return CapsDiff(rows=tuple(rows), first=before is None)


def render(diff: CapsDiff) -> list[str]:
    """The difference as lines of printable ASCII, the widening first."""
    kept = tuple(row for row in diff.rows if row.before and row.now)
    lines: list[str] = []
    for head, mark, rows in (
        ("asks for, not asked before:" if not diff.first else "asks for:", "+", diff.widening),
        ("asked before and now:", "=", kept),
        ("no longer asked:", "-", diff.dropped),
    ):
        if rows:
            lines += [head, *_summary(rows), *(f"  {mark} {_sentence(row)}" for row in rows)]
    return lines or ["asks for no right at all"]


def _summary(rows: tuple[CapsRow, ...]) -> list[str]:
    """All capabilities of a list nobody reads to its end, in one line: a hundred hosts hide no programs."""
    if len(rows) <= _AT_A_GLANCE:
        return []
    counts = Counter(row.capability for row in rows)
    return [f"  {len(rows)} entries: " + ", ".join(f"{name} ({count})" for name, count in counts.items())]


def _sentence(row: CapsRow) -> str:
    entry = "" if row.entry is True else " " + _ascii(row.entry)
    whole = row.entry is True and CAPABILITIES[row.capability].meaning not in _FLAGS
    anything = " (anything, without bound)" if whole else ""
    note = {None: "", True: "  [used]", False: "  [not used in the runs looked at]"}[row.used]
    return f"{row.capability}{entry}{anything}{note}"


_AT_A_GLANCE = 16
"""Rows that fit a screen together with what stands around them."""
_FLAGS = frozenset(CAPABILITIES[name].meaning for name in ("time", "random", "kb_read.contacts_raw"))


def _ascii(entry: Any) -> str:
    """In quotes, and nothing but printable ASCII: a foreign text cannot end its own line or column."""
    text = json.dumps(entry, ensure_ascii=True, sort_keys=True)
    return "".join(char if " " <= char <= "~" else f"\\u{ord(char):04x}" for char in text)


def _entries(*values: Value) -> list[Entry | bool]:
    """Every entry of any of them once; True stands for a whole capability."""
    found: dict[Entry | bool, None] = {}
    for value in values:
        for entry in (True,) if value is True else value or ():
            found[entry] = None
    return sorted(found, key=lambda entry: ("",) if entry is True else (str(type(entry)), str(entry)))


def _reach(policy: Policy, name: str) -> Value:
    """What a policy lets through of a capability: who may write may read."""
    if name == "fs_ro":
        return join(policy.value("fs_ro"), policy.value("fs_rw"), CAPABILITIES[name].covers)
    return policy.value(name)


def _covers(name: str, value: Value, entry: Entry | bool) -> bool:
    if value is True or value is False or entry is True:
        return value is True
    return any(CAPABILITIES[name].covers(own, entry) for own in value)


def _is_used(name: str, entry: Entry | bool, uses: list[tuple[str, str]]) -> bool:
    row = CAPABILITIES[name]
    return any(
        capability in _serves(name) and (entry is True or row.matches(entry, target))
        for capability, target in uses
    )


def _serves(name: str) -> tuple[str, ...]:
    """The capabilities whose uses go through this one."""
    return ("fs_ro", "fs_rw") if name == "fs_rw" else (name,)
