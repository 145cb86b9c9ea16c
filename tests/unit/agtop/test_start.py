"""The command line of agtop, and the line handed to rlp."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from agtop.feed.route import submit_line
from agtop.looks import THEMES, chosen
from agtop.start import OPTIONS, Words, parse, start, usage
from runloop import __version__
from runloop.errors import ConflictError, RunloopError, UsageError
from runloop.exits import Exit


def test_words_are_understood_in_any_order() -> None:
    assert parse([]) == Words()
    assert parse(["--home", "/h", "3f2a", "--plain"]) == Words(run="3f2a", home="/h", plain=True)
    assert parse(["--home=/h", "--ledger=x.db"]) == Words(home="/h", ledger="x.db")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--recoded"], "did you mean '--recorded'"),
        (["--home"], "needs a value"),
        (["--plain=1"], "takes no value"),
        (["a", "b"], "one run too many"),
    ],
)
def test_what_is_not_understood_is_said_with_a_way_out(argv: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv)
    assert said in f"{caught.value.message}; {caught.value.hint}"


def test_every_option_is_in_the_help() -> None:
    for _, flags, _, does in OPTIONS:
        assert does in usage()
        assert all(flag in usage() for flag in flags)
    assert all(len(line) <= 96 for line in usage().splitlines())


@pytest.mark.requirement("I7.theme.1")
@pytest.mark.parametrize(
    ("flag", "setting", "theme"),
    [
        (None, None, "runloop"),
        (None, "high-contrast", "high-contrast"),
        ("runloop-light", "high-contrast", "runloop-light"),
        ("nord", None, "nord"),
        (None, "none", "runloop"),
    ],
)
def test_colours_are_those_of_the_option_or_else_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str | None, setting: str | None, theme: str
) -> None:
    given: list[str | None] = []

    class Shown:
        return_code = 0

        def __init__(self, _desk: object, **how: Any) -> None:
            given.append(how["theme"])

        def run(self, **_: object) -> None:
            given.append(os.environ.get("NO_COLOR"))

    for stream in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    monkeypatch.setattr("agtop.app.CockpitApp", Shown)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("RUNLOOP_HOME", str(tmp_path))
    if setting is not None:
        monkeypatch.setenv("RUNLOOP__UI__THEME", setting)
    assert start([*(["--theme", flag] if flag else [])]) == Exit.OK
    assert given == [theme, "1" if setting == "none" else None]


def test_a_theme_that_is_none_is_refused_with_what_was_meant() -> None:
    assert {chosen(theme.name) for theme in THEMES} == {theme.name for theme in THEMES}
    with pytest.raises(UsageError) as caught:
        chosen("high-contrats")
    assert "did you mean 'high-contrast'?" in str(caught.value.hint)


def test_help_and_version_need_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert start(["--help"]) == Exit.OK
    assert capsys.readouterr().out == usage()
    assert start(["--version"]) == Exit.OK
    assert capsys.readouterr().out == f"agtop {__version__}\n"


def test_without_a_terminal_it_says_what_is_for_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert start([]) == Exit.USAGE
    assert "agtop needs a terminal" in capsys.readouterr().err


def test_what_needs_no_terminal_imports_no_textual() -> None:
    import subprocess

    code = "import sys, agtop.__main__ as m; m.main(['--version']); sys.exit('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def child(said: str, *, code: int = 0) -> list[str]:
    """A program in the place of rlp: it says so, and tells what it was given."""
    program = (
        "import sys; line = sys.stdin.read(); "
        "sys.stderr.write('rlp: heard ' + line + ' ' + ' '.join(sys.argv[1:])); "
        f"print({said!r}); sys.exit({code})"
    )
    return [sys.executable, "-c", program]


@pytest.mark.requirement("I7.wish.1")
async def test_a_line_goes_through_stdin_and_its_run_comes_back() -> None:
    done = await submit_line("tell john; rm -rf /", home="/h", argv=child('{"run": "r1"}'))
    assert (done.kind, done.run) == ("run", "r1")
    assert done.words == "heard tell john; rm -rf / --json --no-input --detach --home /h -- -"


@pytest.mark.parametrize(("code", "kind"), [("route.shell", "shell"), ("route.denied", "denied")])
async def test_what_rlp_does_not_run_is_an_answer(code: str, kind: str) -> None:
    said = (
        f'{{"error": {{"code": "{code}", "family": "usage", "message": "no", "hint": null, "data": {{}}}}}}'
    )
    done = await submit_line("ls", home=None, argv=child(said, code=2))
    assert (done.kind, done.run, done.words) == (kind, None, "no")


async def test_what_rlp_refuses_is_raised_as_it_was() -> None:
    said = '{"error": {"code": "run.x", "family": "conflict", "message": "busy", "hint": "wait", "data": {}}}'
    with pytest.raises(ConflictError, match="busy") as caught:
        await submit_line("go", home=None, argv=child(said, code=8))
    assert (caught.value.named_code, caught.value.hint) == ("run.x", "wait")


@pytest.mark.parametrize("said", ["", "[1]", "no json at all", '{"odd": 1}'])
async def test_an_answer_that_is_none_is_an_error(said: str) -> None:
    with pytest.raises(RunloopError, match="nothing that can be read"):
        await submit_line("go", home=None, argv=child(said))


@pytest.mark.parametrize("line", ["", "   ", "x" * 70_000])
async def test_nothing_and_too_much_are_refused_before_anything_is_started(line: str) -> None:
    with pytest.raises(UsageError):
        await submit_line(line, home=None, argv=["/nonexistent"])
