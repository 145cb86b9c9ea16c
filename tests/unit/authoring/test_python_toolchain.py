"""Python source, judged without running any of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.authoring.toolchains import BuildFailed, toolchain_of
from runloop.authoring.toolchains.python import PythonToolchain, decorated, host_methods
from runloop.ops import OPS

from .folders import change, python_agent, write

HEAD = "from runloop.agent import Result, Task, handler\n"
TAIL = "\n@handler\ndef handle(task: Task, host) -> Result:\n    return Result.of(out={})\n"


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return python_agent(tmp_path)


def check(folder: Path, text: str) -> list[str]:
    write(folder, "agent.py", text)
    return [f"{finding.place}: {finding.what}" for finding in PythonToolchain().check(folder)]


def uses(folder: Path, text: str) -> list[tuple[str, int]]:
    write(folder, "agent.py", text)
    return [(use.op, use.line) for use in PythonToolchain().uses(folder)]


def test_the_bundle_gets_every_module_byte_for_byte_and_no_test(agent: Path, tmp_path: Path) -> None:
    source = "# ä \t\r\nx = 1\n"
    (agent / "lib").mkdir()
    (agent / "lib" / "deep.py").write_bytes(source.encode())
    made = toolchain_of(agent).build(agent, tmp_path)
    assert sorted(made) == ["agent.py", "lib/deep.py"]
    assert made["lib/deep.py"] == source.encode()


def test_nothing_of_the_source_is_executed(agent: Path, tmp_path: Path) -> None:
    trap = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    write(agent, "agent.py", trap + HEAD + TAIL)
    PythonToolchain().check(agent)
    PythonToolchain().uses(agent)
    PythonToolchain().build(agent, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x = (\n", "agent.py:1: no Python"),
        ("def f():\n  return\n return 1\n", "agent.py:3: no Python"),
        ("return 1\n", "agent.py:1: no Python"),
        ("x = 1\0", "agent.py"),
        ("(" * 5_000 + ")" * 5_000, "agent.py"),
        ("-" * 100_000 + "1", "agent.py"),
        ("#" * (512 * 1024 + 1), "agent.py: has more than"),
    ],
)
def test_what_is_no_python_is_told_with_its_line(agent: Path, text: str, place: str) -> None:
    assert check(agent, text)[0].startswith(place)


def test_source_that_is_not_utf8_is_told_whatever_it_says_of_itself(agent: Path) -> None:
    (agent / "agent.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe4'\n")
    (finding, *_) = PythonToolchain().check(agent)
    assert (finding.line, finding.what) == (2, "not UTF-8")


@given(st.text(max_size=200))
def test_no_text_breaks_the_check(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "agent.py").write_text(text, encoding="utf-8", errors="replace")
    PythonToolchain().check(folder)
    PythonToolchain().uses(folder)


def test_a_broken_module_ends_the_build_with_its_line(agent: Path, tmp_path: Path) -> None:
    write(agent, "lib.py", "x = (\n")
    with pytest.raises(BuildFailed, match=r"lib\.py:1: no Python"):
        PythonToolchain().build(agent, tmp_path)


# --- imports --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import requests", "'requests' is no module of the standard library"),
        ("from numpy.linalg import norm", "'numpy.linalg' is no module of the standard library"),
        ("import socket", "the sandbox has no module 'socket'"),
        ("import asyncio.events", "the sandbox has no module 'asyncio.events'"),
        ("import runloop.client", "there is no module 'runloop.client' here"),
        ("from lib import nothing_of_ours", None),
        ("import lib.absent", "there is no module 'lib.absent' here"),
        ("from . import lib", None),
        ("import json, xml.etree.ElementTree as E", None),
        ("from __future__ import annotations", None),
        ("try:\n    import numpy\nexcept ImportError:\n    numpy = None", None),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy", None),
        ("def f():\n    import requests", "'requests' is no module of the standard library"),
    ],
)
def test_only_what_the_sandbox_has_can_be_imported(agent: Path, line: str, words: str | None) -> None:
    write(agent, "lib/__init__.py", "")
    said = check(agent, f"{line}\n{HEAD}{TAIL}")
    assert (said == []) if words is None else words in said[0], said


# --- entrypoint -----------------------------------------------------------------------------------


def test_the_entrypoint_must_be_there(agent: Path) -> None:
    assert "function 'handle' is not defined" in check(agent, "def other(): ...\n")[0]
    assert check(agent, "from lib import x as handle\n")[0].endswith("nor of this folder")
    change(agent, "manifest.toml", '"agent:handle"', '"main:handle"')
    assert "'main:handle' names no module" in check(agent, HEAD + TAIL)[0]


@pytest.mark.parametrize(
    "text", ["handle = 1", "class handle: ...", "async def handle(): ...", "handle, b = 1, 2"]
)
def test_a_function_may_be_defined_in_any_way_that_can_be_seen(agent: Path, text: str) -> None:
    assert check(agent, text) == [] or "b" in text


# --- host calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "ops"),
    [
        ("host.kb_search('x')", ["kb.search"]),
        ("self.host.log('x')", ["log.write"]),
        ("self._host.progress('x')", ["progress"]),
        ("math.log(2)", []),
        ("h.send_mail([], '', '')", ["mail.send"]),
        ("host.complete_stream('x')", ["model.complete", "msg.next"]),
        ("host.call('memory.put', {})", ["memory.put"]),
        ("host.call(op)", []),
        ("other.call('memory.put')", []),
        ("print('x')", ["log.write"]),
        ("datetime.now()", ["time.now"]),
        ("datetime.datetime.now()", ["time.now"]),
        ("time.time()", ["time.now"]),
        ("random.choice([1])", ["random.bytes"]),
        ("uuid.uuid4()", ["random.bytes"]),
        ("uuid.uuid5(a, b)", []),
    ],
)
def test_host_calls_are_seen_where_they_are_made(agent: Path, line: str, ops: list[str]) -> None:
    assert uses(agent, f"x = 1\n{line}\n") == [(op, 2) for op in ops]


def test_every_method_of_the_host_stands_for_ops() -> None:
    methods = host_methods()
    assert methods["kb_search"] == ("kb.search",)
    named = {op for ops in methods.values() for op in ops}
    by_name = {"agent.delegate", "secret.use"}  # made with host.call until the next build of the runner
    assert set(OPS) == named | by_name, "an op without a method, or a method whose op was not found"


def test_a_decorated_function_is_seen_without_importing_it(agent: Path) -> None:
    assert decorated(agent)
    write(agent, "agent.py", "import runloop.agent as a\n@a.tool('x.y')\ndef f(): ...\n")
    assert decorated(agent)
    write(agent, "agent.py", HEAD + TAIL + "# @tool\n")
    assert not decorated(agent)
