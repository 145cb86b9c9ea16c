"""Which program a name is, and where a program went: what is decided before and stated after."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runloopd.broker.asks import Ask
from runloopd.broker.tool_reached import MAX_PLACES, Reached
from runloopd.broker.toolbox import ToolError
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.programs import is_interpreter


@dataclass
class Bin:
    """A folder of programs: the only place where a bare name is looked for."""

    folder: Path
    looked: list[str] = field(default_factory=list)

    def resolve(self, program: str) -> str:
        self.looked.append(program)
        place = Path(program) if program.startswith("/") else self.folder / program
        if not place.is_file():
            raise ToolError("there is none", code="tool.unavailable")
        return str(place)

    def stands_for(self, path: str) -> str:
        return str(Path(path).resolve())


@pytest.fixture
def bin(tmp_path: Path) -> Bin:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python3.11", "wc"):
        (folder / name).write_text("")
    (folder / "tidy").symlink_to(folder / "python3.11")
    return Bin(folder)


@pytest.mark.requirement("C2")
def test_a_file_planted_where_the_daemon_was_started_changes_nothing(
    bin: Bin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "tidy").write_text("a plain file, so that an interpreter looks like none")
    (here / "wc").symlink_to("/usr/bin/python3")
    monkeypatch.chdir(here)
    assert is_interpreter("tidy", bin), "it is python, whatever lies beside the daemon"
    assert not is_interpreter("wc", bin)
    assert bin.looked == ["tidy", "wc"]


@pytest.mark.parametrize(
    ("program", "is_one"),
    [
        ("sh", True),
        ("/usr/bin/env", True),
        ("python3", True),
        ("python3.11", True),
        ("absent", False),
        ("wc", False),
    ],
)
def test_a_program_that_runs_others_is_known_by_its_name_alone_where_it_is_not_found(
    bin: Bin, program: str, is_one: bool
) -> None:
    assert is_interpreter(program, bin) is is_one
    assert is_interpreter(program, None) is is_one


def test_the_sandbox_looks_for_a_bare_name_on_its_own_path_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted-program"
    planted.write_text("#!/bin/sh\n")
    planted.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:.:")
    for name in ("planted-program", "./planted-program"):
        with pytest.raises(ToolError, match="there is no program"):
            Bubblewrap().resolve(name)
    assert Bubblewrap().resolve(str(planted)) == str(planted)


@pytest.mark.requirement("I6.programs.4")
def test_where_a_program_went_is_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[tuple[str, int, int]] = []
    ask: Any = SimpleNamespace(
        agent="a", caller=None, call=None, facts=[], outbound=lambda *sent: left.append(sent)
    )
    monkeypatch.setattr(
        "runloopd.broker.tool_reached.audit",
        lambda agent, verdict, caller, call: (verdict.target, verdict.reason),
    )
    reached = Reached(cast(Ask, ask))
    for number in range(MAX_PLACES + 5):
        for _ in range(1 + number % 2):
            reached.note(f"host{number}.example", 443, 0)
    reached.note("host0.example", 443, 70_000)
    assert left == [("host0.example:443", 70_000, 0)], "what leaves is counted as any other that leaves"
    reached.state()
    assert len(ask.facts) == MAX_PLACES + 1
    assert ask.facts[0] == ("CONNECT host0.example:443", "net is granted for it; connected once")
    assert ask.facts[1][1].endswith("connected 2 times")
    assert ask.facts[-1][0] == "CONNECT elsewhere" and "connected 7 times" in ask.facts[-1][1]
    reached.state()
    assert len(ask.facts) == MAX_PLACES + 1, "it is said once"
