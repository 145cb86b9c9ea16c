"""What the patcher does to Python sources, and what it leaves to people."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.home import EXAMPLES

PATH = EXAMPLES / "agents" / "swarm_patcher" / "edits.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("swarm_edits", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EDITS = load()


def todos(source: str) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(source.splitlines(), 1):
        _, mark, rest = line.partition("# TODO(")
        if mark:
            kind, _, text = rest.partition("):")
            found.append({"line": number, "kind": kind, "text": text.strip()})
    return found


def carried(source: str) -> tuple[str, list[str]]:
    after, done, refused = EDITS.carry_out(source, todos(source))
    assert len(done) + len(refused) == len(todos(source))
    if not refused:
        assert "TODO" not in after
    ast.parse(after)
    return after, [one["why"] for one in refused]


@pytest.mark.requirement("I5.swarm.4")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import os  # TODO(remove): it\nx = 1\n", "x = 1\n"),
        ("import os, sys  # TODO(remove): it\nsys.exit()\n", "import sys\nsys.exit()\n"),
        ("from . import a as b, c  # TODO(remove): it\nb()\n", "from . import a as b\nb()\n"),
        ("from ..x import (\n    a,\n    b,\n)  # TODO(remove): it\na()\n", "from ..x import a\na()\n"),
        (
            "import a.b  # TODO(remove): it\na.b()\nimport c  # TODO(remove): it",
            "import a.b  # TODO(remove): it\na.b()\n",
        ),
        (
            "def f(a, b=1): # TODO(type): a: int, b: str -> None\n    pass\n",
            "def f(a: int, b: str = 1) -> None:\n    pass\n",
        ),
        ("def f(ä, *, b = (1)): # TODO(type): b: int\n    pass\n", "def f(ä, *, b: int = (1)):\n    pass\n"),
        (
            "def f(\n    a=lambda x, y: (x),\n    *b,  # TODO(type): b: int -> list[int]\n):\n    pass\n",
            "def f(\n    a=lambda x, y: (x),\n    *b: int,\n) -> list[int]:\n    pass\n",
        ),
        ("# TODO(rename): a -> b\na = 1\nprint(a, 'an a', a.a if 0 else a)\n", None),
        ("x = 0\n\n# TODO(rename): a -> b\n\na = 1\nprint(a)  # a\n", "x = 0\n\nb = 1\nprint(b)  # a\n"),
    ],
)
def test_what_is_certain_is_done(before: str, after: str | None) -> None:
    made, refused = carried(before)
    if after is None:
        assert made == before and len(refused) == 1
    else:
        assert made == after


@pytest.mark.requirement("I5.swarm.4")
@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("a = b = 1  # TODO(rename): a -> b\n", "b is a name here already"),
        ("a = 1  # TODO(rename): a -> class\n", "is not 'old -> new'"),
        ("a = 1  # TODO(rename): a -> print\n", "is not 'old -> new'"),
        ("x = 1  # TODO(rename): a -> b\n", "there is no name a"),
        ("self.a = 1  # TODO(rename): a -> b\n", "a is also an attribute"),
        ("f(a=1)  # TODO(rename): a -> b\n", "a is also a keyword"),
        ("from m import a  # TODO(rename): a -> b\n", "a is imported"),
        ("a = 1  # TODO(rename): a -> b\n__all__ = ['a']\n", "a text says a"),
        ("x = 1  # TODO(remove): it\n", "this is not on an import"),
        ("import a; a()  # TODO(remove): it\n", "more than one statement"),
        ("from __future__ import annotations  # TODO(remove): it\n", "a switch of the language"),
        ("from a import *  # TODO(remove): it\n", "nobody can tell"),
        ("import a  # TODO(remove): it\n__all__ = ['a']\n", "everything it brings in is used"),
        ("if 1:\n    import a  # TODO(remove): it\n", "would be no Python"),
        ("x = 1  # TODO(type): -> int\n", "this is not on a def"),
        ("def f(a: int): ...  # TODO(type): a: str\n", "a has a type already"),
        ("def f() -> int: ...  # TODO(type): -> str\n", "a type of its result already"),
        ("def f(a): ...  # TODO(type): b: str\n", "f has no parameter b"),
        ("def f(a): ...  # TODO(type): a: Path\n", "the file does not know Path"),
        ("def f(a): ...  # TODO(type): a: (\n", "is not 'a: type"),
        ("def f(a): ...  # TODO(type): a\n", "gives no type"),
        ("import os  # TODO(remove): it\r\nx = 1\r\n", "other line ends"),
    ],
)
def test_what_is_not_certain_is_refused_with_a_reason(source: str, why: str) -> None:
    made, refused = carried(source)
    assert made == source
    assert len(refused) == 1 and why in refused[0]


@pytest.mark.requirement("I5.swarm.4")
@pytest.mark.parametrize("path", ["a.py", "with space/é.py"])
@pytest.mark.parametrize(("before", "after"), [("a\nb\n", "a\nc\n"), ("a\nb", "a\nb\n"), ("a\n", "a")])
def test_a_diff_applies_wherever_the_file_lies_and_however_it_ends(
    tmp_path: Path, path: str, before: str, after: str
) -> None:
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(before)
    diff = EDITS.unified(path, before, after)
    subprocess.run(["git", "apply", "-"], input=diff.encode(), cwd=tmp_path, check=True)
    assert file.read_text() == after
    assert EDITS.unified(path, after, after) == ""
