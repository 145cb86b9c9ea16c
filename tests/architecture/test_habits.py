"""Habits that start with the first slice: what CI runs, and the pages that must be there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def recipe(target: str) -> str:
    """The lines `make TARGET` runs."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None, target
    return found[1]


@pytest.mark.requirement("I2.habits.1")
def test_ci_runs_lint_strict_types_arrows_and_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make lint types arrows$", script, re.MULTILINE)
    assert re.search(r"^make test$", script, re.MULTILINE)
    assert "set -euo pipefail" in script
    assert "make test" in (ROOT / "README.md").read_text()
    assert "ruff check" in recipe("lint")
    assert "mypy" in recipe("types")
    assert "lint-imports" in recipe("arrows")
    assert "--cov" in recipe("coverage")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert settings["mypy"]["strict"] is True
    assert settings["coverage"]["report"]["fail_under"] >= 85
    assert len(settings["importlinter"]["contracts"]) >= 5


@pytest.mark.requirement("I2.habits.3")
@pytest.mark.parametrize(
    "page",
    [
        *("LICENSE", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "README.md"),
        *("docs/quickstart.md", "docs/glossary.md", "docs/internals/architecture.md"),
    ],
)
def test_the_pages_a_newcomer_looks_for_are_there(page: str) -> None:
    assert len((ROOT / page).read_text().split()) > 30
    if page == "LICENSE":
        assert "Apache License" in (ROOT / page).read_text()


@pytest.mark.requirement("I2.habits.3")
def test_every_decision_says_what_was_decided() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert len(pages) >= 5
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
