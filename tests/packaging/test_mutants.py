"""Guards that are taken out one by one (tests/mutants): the list is of today, the trial judges rightly."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.guards import GUARDS, Guard
from tests.mutants.trial import ROOT, Copy

PRODUCT = """
def half(n):
    if n % 2:
        raise ValueError("odd")
    if n > 10**9:
        raise OverflowError("large")
    return n // 2
"""
TESTS = """
import pytest
from product import half

def test_an_odd_number_is_refused():
    with pytest.raises(ValueError):
        half(3)

def test_an_even_number_is_halved():
    assert half(4) == 2
"""


@pytest.mark.requirement("S2")
def test_every_guard_stands_where_the_list_says_once() -> None:
    """That each is noticed is the matter of ``python -m tests.mutants``, which takes minutes."""
    assert len(GUARDS) >= 120
    wrong = []
    for guard in GUARDS:
        text = (ROOT / guard.file).read_text(encoding="utf-8")
        if text.count(guard.text) != 1:
            wrong.append(f"{guard.name} is there {text.count(guard.text)} times")
        elif guard.without == guard.text:
            wrong.append(f"{guard.name} is replaced by itself")
        missing = [test for test in guard.tests if not (ROOT / test.partition("::")[0]).exists()]
        wrong += [f"{guard.name}: no tests at {test}" for test in missing]
    assert wrong == []
    twice = Counter((guard.file, guard.text, guard.without) for guard in GUARDS)
    assert [one for one, times in twice.items() if times > 1] == []


@pytest.mark.timeout(600)  # three runs of pytest, each as long as a busy machine makes it
@pytest.mark.requirement("S2")
def test_a_guard_that_no_test_needs_survives_and_a_broken_program_proves_nothing(tmp_path: Path) -> None:
    tree = tmp_path / "project"
    tree.mkdir()
    (tree / "product.py").write_text(PRODUCT)
    (tree / "test_product.py").write_text(TESTS)
    # The plug-in that the trial loads.
    for name in ("tests/__init__.py", "tests/mutants/__init__.py", "tests/mutants/patient.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    copy = Copy(tmp_path / "copy", tree)

    def guard(text: str, put: str | None = None) -> Guard:
        return Guard("S2", "product.py", text, ("test_product.py",), put)

    noticed = copy.without(guard("if n % 2:"))
    assert (noticed.verdict, noticed.by) == ("noticed", "test_product.py::test_an_odd_number_is_refused")
    survived = copy.without(guard("if n > 10**9:"))
    assert (survived.verdict, survived.good) == ("SURVIVED", False)
    broken = copy.without(guard("def half(n):", "def halve(n):"))
    assert (broken.verdict, broken.good) == ("BROKEN", False)
    assert (tmp_path / "copy" / "tree" / "product.py").read_text() == PRODUCT  # and all is as it was
