"""The published EBNF: read, turned into sentences, and into a recogniser.

Knows: the notation of ``docs/reference/openings.md``. Does not know the parser that is tested against it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from lark import Lark

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "openings.md"

_META = Lark(
    r"""
    start: rule+
    rule: NAME "=" alternatives ";"
    alternatives: sequence ("|" sequence)*
    sequence: item+
    ?item: NAME -> name | WORD -> word | PATTERN -> pattern
         | "(" alternatives ")" -> group | "[" alternatives "]" -> option | "{" alternatives "}" -> repeat
    NAME: /[A-Za-z]+/
    WORD: /"[^"]+"/
    PATTERN: /\? .+ \?(?= ;)/
    %ignore /\s+/
    """,
    parser="lalr",
)


def _joined(parts: Iterable[list[str]]) -> list[str]:
    return [word for part in parts for word in part]


def text() -> str:
    found = re.search(r"```ebnf\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


@cache
def rules() -> dict[str, Any]:
    """Production -> tree of its alternatives."""
    found: Any = _META.parse(text())
    return {str(rule.children[0]): rule.children[1] for rule in found.children}


def walk(tree: Any) -> Iterator[tuple[str, str]]:
    """Every ``(kind, text)`` that a tree names."""
    if tree.data in ("name", "word", "pattern"):
        yield str(tree.data), str(tree.children[0])
        return
    for child in tree.children:
        yield from walk(child)


def pattern_of(tree: Any) -> str | None:
    """The regular expression of a terminal; None for a production."""
    ((kind, found),) = list(walk(tree))[:1]
    return found[2:-2] if kind == "pattern" else None


def sentences(start: str = "opening", deepest: int = 30) -> st.SearchStrategy[list[str]]:
    """Lists of symbols that the grammar can produce."""
    made = rules()

    def of(tree: Any, left: int) -> st.SearchStrategy[list[str]]:
        match tree.data:
            case "alternatives":
                return st.one_of([of(one, left) for one in tree.children])
            case "sequence":
                return st.tuples(*[of(one, left) for one in tree.children]).map(_joined)
            case "word":
                return st.just([str(tree.children[0])[1:-1]])
            case "group":
                return of(tree.children[0], left)
            case "option":
                return st.just(list[str]()) | of(tree.children[0], left) if left else st.just([])
            case "repeat":
                if not left:
                    return st.just([])
                return st.lists(of(tree.children[0], left), max_size=2).map(_joined)
        return symbol(str(tree.children[0]), left)

    def symbol(name: str, left: int) -> st.SearchStrategy[list[str]]:
        expression = pattern_of(made[name])
        if expression is not None:
            return st.from_regex(expression, fullmatch=True, alphabet=st.characters(codec="utf-8")).map(
                lambda found: [found]
            )
        if name == "value" and left <= 1:
            return st.sampled_from([["null"], ["1"], ['"x"']])
        return st.deferred(lambda: of(made[name], left - 1 if name in ("value", "list", "object") else left))

    return symbol(start, 4)


def cover(seed: int, start: str = "opening") -> tuple[list[str], set[str]]:
    """One sentence drawn with this seed, and every production, terminal and word it went through."""
    made, draw = rules(), random.Random(seed)
    used: set[str] = set()
    samples = {
        "NAME": "a_1", "PORT": "Out", "KEY": "k", "USE": "agent:a@1.0", "OPERATOR": ">=", "STRING": '"x"',
        "SINGLE": "'y'", "INTEGER": "3", "NUMBER": "1.5", "PLAIN": "-2.5", "DURATION": "1h30m",
        "MONEY": "$0.50",
    }  # fmt: skip

    def of(tree: Any, depth: int) -> list[str]:
        match tree.data:
            case "alternatives":
                return of(draw.choice(tree.children), depth)
            case "sequence":
                return [word for one in tree.children for word in of(one, depth)]
            case "word":
                used.add(str(tree.children[0]))
                return [str(tree.children[0])[1:-1]]
            case "group":
                return of(tree.children[0], depth)
            case "option" | "repeat":
                times = 0 if depth > 8 else draw.randrange(2 if tree.data == "option" else 3)
                return [word for _ in range(times) for word in of(tree.children[0], depth)]
        name = str(tree.children[0])
        used.add(name)
        return [samples[name]] if name.isupper() else of(made[name], depth + 1)

    used.add(start)
    return of(made[start], 0), used


def recogniser() -> Lark:
    """The same grammar as a parser of its own."""
    made = rules()

    def of(tree: Any) -> str:
        match tree.data:
            case "alternatives":
                return " | ".join(of(one) for one in tree.children)
            case "sequence":
                return " ".join(of(one) for one in tree.children)
            case "group":
                return f"({of(tree.children[0])})"
            case "option":
                return f"({of(tree.children[0])})?"
            case "repeat":
                return f"({of(tree.children[0])})*"
        return str(tree.children[0])

    lines = []
    for name, tree in made.items():
        expression = pattern_of(tree)
        escaped = None if expression is None else expression.replace("/", r"\/")
        lines.append(f"{name}: {of(tree)}" if escaped is None else f"{name}: /{escaped}/")
    lines.append(r"%ignore /\s+|#[^\n]*/")
    return Lark("\n".join(lines), start="opening", parser="earley")
