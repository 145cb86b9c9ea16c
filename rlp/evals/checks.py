"""One check against what came of a task: true, or the reason why not.

Knows: the predicates of a suite and how a number reads in a text. Does not know: where facts come from, or
how a suite is written down. Pure, and total: a path that leads nowhere fails its check, and nothing raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from openings.expressions import ABSENT, Condition, Ref, evaluate, walk

__all__ = ["PREDICATES", "Check", "judge", "numbers"]

MAX_TEXT = 50_000
"""Characters of a text that a pattern is tried on."""
_SHOWN = 120
_NUMBER = re.compile(r"\d{1,3}(?:[ \u00a0\u202f'’_]\d{3})+(?:[.,]\d+)?(?!\d)|\d[\d.,]*")
_GROUPED = re.compile(r"[1-9]\d{0,2}([.,])\d{3}(?:\1\d{3})*\Z")
_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that must hold: an expression of openings, or a predicate at a path of the facts."""

    that: str
    """In words, for the report; may be empty."""
    expr: Condition | None = None
    at: tuple[str, ...] = ()
    predicate: str = ""
    """One of :data:`PREDICATES`."""
    want: Any = None


def judge(check: Check, facts: Mapping[str, Any]) -> str:
    """Empty when it holds; otherwise why not, in words."""
    if check.expr is not None:

        def lookup(ref: Ref) -> Any:
            return walk(dict(facts), (ref.node, *ref.path))

        verdict = evaluate(check.expr, lookup)
        return "" if verdict else verdict.reason or f"{check.expr} does not hold"
    found = walk(dict(facts), check.at)
    where = ".".join(check.at)
    if found is ABSENT:
        return f"there is no {where}"
    why = PREDICATES[check.predicate](found, check.want)
    return f"{where} {why}" if why else ""


def numbers(text: str) -> set[Decimal]:
    """Every number in a text, as it is mostly meant: groups of three digits are thousands, and a lonely comma
    or point before other digits begins the decimals."""
    found: set[Decimal] = set()
    for match in _NUMBER.finditer(text[:MAX_TEXT]):
        plain = re.sub(r"[ \u00a0\u202f'’_]", "", match[0]).rstrip(".,")
        readings = {plain.replace(",", ".")}
        if "," in plain and "." in plain:  # the last mark is the decimal one
            last = max(plain.rfind(","), plain.rfind("."))
            readings = {re.sub(r"[.,]", "", plain[:last]) + "." + plain[last + 1 :]}
        if _GROUPED.match(plain):
            readings = {re.sub(r"[.,]", "", plain)}
        for reading in readings:
            try:
                found.add(Decimal(reading))
            except InvalidOperation:
                continue  # a version or a date such as 1.2.3
    return found


# --- predicates: empty, or why not ----------------------------------------------------------------


def _is(found: Any, want: Any) -> str:
    same = found == want and isinstance(found, bool) == isinstance(want, bool)
    return "" if same else f"is {_shown(found)}, not {_shown(want)}"


def _matches(found: Any, want: Any) -> str:
    if not isinstance(found, str):
        return f"is no text: {_shown(found)}"
    held = re.search(want, found[:MAX_TEXT], re.IGNORECASE)
    return "" if held else f"does not match {want!r}: {_shown(found)}"


def _lacks(found: Any, want: Any) -> str:
    if not isinstance(found, str):
        return f"is no text: {_shown(found)}"
    held = re.search(want, found[:MAX_TEXT], re.IGNORECASE)
    return f"has {held[0]!r}, which it must not" if held else ""


def _number(found: Any, want: Any) -> str:
    if not isinstance(found, str):
        return f"is no text: {_shown(found)}"
    return "" if Decimal(str(want)) in numbers(found) else f"does not say {want}: {_shown(found)}"


def _includes(found: Any, want: Any) -> str:
    if not isinstance(found, list):
        return f"is no list: {_shown(found)}"
    missing = [item for item in want if item not in found]
    return f"lacks {_shown(missing)}: {_shown(found)}" if missing else ""


def _excludes(found: Any, want: Any) -> str:
    if not isinstance(found, list):
        return f"is no list: {_shown(found)}"
    there = [item for item in want if item in found]
    return f"has {_shown(there)}, which it must not" if there else ""


def _schema(found: Any, want: Any) -> str:
    from jsonschema import Draft202012Validator

    value = found
    if isinstance(found, str):
        fenced = _FENCED.match(found)
        try:
            value = json.loads(fenced[1] if fenced else found)
        except (ValueError, RecursionError):
            return f"is no JSON: {_shown(found)}"
    problem = next(iter(Draft202012Validator(want).iter_errors(value)), None)
    return f"does not fit the schema: {problem.message[:_SHOWN]}" if problem else ""


PREDICATES: dict[str, Callable[[Any, Any], str]] = {
    "is": _is,
    "matches": _matches,
    "lacks": _lacks,
    "number": _number,
    "includes": _includes,
    "excludes": _excludes,
    "schema": _schema,
}
"""Name in a suite -> its judge of (what was found, what is wanted)."""


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return (
        repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…") if isinstance(value, str) else text[:300]
    )
