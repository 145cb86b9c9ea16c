"""The list of requirements and the tests hold each other (house-style.md, habit 11)."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.requirements import REQUIREMENTS

TESTS = Path(__file__).parents[1]
KNOWN = {row.id: row for row in REQUIREMENTS}
ROWS_OF_ATTACKS = {"P": 9, "C": 12, "M": 13, "W": 9, "F": 5, "B": 7, "L": 10, "K": 9, "S": 7}
"""How many rows each area of the table of attacks has."""


def marks(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every requirement a test names, with its line: on functions, classes and in ``pytestmark``."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "requirement"
        ):
            for argument in node.args:
                told = argument.value if isinstance(argument, ast.Constant) else None
                yield (told if isinstance(told, str) else f"no text: {ast.unparse(argument)}"), node.lineno


def named() -> dict[str, list[str]]:
    """Requirement to the places of the tests that name it."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "mark.requirement" in source:
            for name, line in marks(ast.parse(source)):
                found.setdefault(name, []).append(f"{path.relative_to(TESTS)}:{line}")
    return found


def test_every_test_names_rows_that_exist() -> None:
    assert {name: where for name, where in named().items() if name not in KNOWN} == {}


def test_every_row_that_is_met_has_a_test() -> None:
    proven = named()
    assert [row.id for row in REQUIREMENTS if row.state == "met" and row.id not in proven] == []


def test_a_row_that_is_open_has_no_test_or_must_be_flipped() -> None:
    proven = named()
    assert {row.id: proven[row.id] for row in REQUIREMENTS if row.state == "open" and row.id in proven} == {}


def test_no_failure_that_is_expected_proves_a_row() -> None:
    """An xfail or an unconditional skip is no proof."""
    hollow = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                if any(".requirement(" in one for one in decorators) and any(
                    re.match(r"pytest\.mark\.(xfail|skip)\b", one) for one in decorators
                ):
                    hollow.append(f"{path.relative_to(TESTS)}:{node.lineno}")
    assert hollow == []


def test_the_list_is_whole_and_every_row_says_what_it_must() -> None:
    assert [name for name, times in Counter(row.id for row in REQUIREMENTS).items() if times > 1] == []
    for area, rows in ROWS_OF_ATTACKS.items():
        assert {f"{area}{number}" for number in range(1, rows + 1)} <= KNOWN.keys()
    attacks = sum(ROWS_OF_ATTACKS.values())
    assert sum(not re.match(r"I[2-8]\.", name) for name in KNOWN) == attacks
    for row in REQUIREMENTS:
        assert re.fullmatch(r"[A-Z]\d+|I[2345678]\.[a-z]+\.\d+", row.id)
        assert row.text.endswith("."), row.id
        assert row.state == "met" or row.left, f"{row.id} is open and does not say what is missing"
