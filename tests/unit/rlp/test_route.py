"""``rlp route``, ``rlp why`` for prompts, ``rlp shell``, and what they look at on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlp import rcfile
from rlp.known import Known
from runloop.errors import ConflictError, RefusedError
from tests.unit.rlp.conftest import Rlp

RLP = [sys.executable, "-m", "rlp"]


def _route(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RLP, "route", *words], input=text, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.requirement("I6.router.6")
@pytest.mark.parametrize(
    ("line", "code"),
    [("ls -la\n", 10), ("find the mail from john", 11), ("rm -rf /", 13), ("a\nb; rm -rf ~", 13)],
)
def test_a_line_is_read_from_stdin_so_that_no_argument_shows_it(home: Path, line: str, code: int) -> None:
    assert _route("-", text=line).returncode == code


@pytest.mark.requirement("I6.router.6")
def test_what_takes_too_long_exits_by_its_own_code_and_says_nothing_on_stdout(home: Path) -> None:
    reader, writer = os.pipe()  # nobody ever writes: the line never comes
    done = subprocess.run(
        [*RLP, "route", "--timeout-ms", "100", "-"],
        stdin=reader, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(reader)
    os.close(writer)
    assert (done.returncode, done.stdout) == (12, "")
    assert "no decision in time" in done.stderr


def test_a_word_the_shell_knows_is_a_command_and_a_line_too_long_is_refused(home: Path) -> None:
    assert _route("frobnicate now").returncode == 11
    assert _route("--known", "frobnicate", "frobnicate now").returncode == 10
    assert _route("-", text="x" * 70_000).returncode == 2


def test_what_is_denied_says_why_with_everything_that_acts_written_out(home: Path) -> None:
    done = _route("-", text="rm -rf '/home/\x1b]0;x\x07'")
    assert done.returncode == 13
    assert "\x1b" not in done.stdout
    assert "\\x1b" in done.stdout


def test_commands_are_looked_up_in_path_and_only_there(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    program = tmp_path / "two" / "frob"
    program.write_text("#!/bin/sh\n")
    (tmp_path / "one" / "plain").write_text("no program")
    (tmp_path / "one" / "folder").mkdir()
    here = Known({"PATH": f"{tmp_path / 'one'}:{tmp_path / 'two'}"}, {"make"}, ("ll",))
    assert "frob" not in here
    program.chmod(0o755)
    fresh = Known({"PATH": f"relative::{tmp_path / 'one'}:{tmp_path / 'two'}"}, {"make"}, ("ll",))
    assert {word for word in ("frob", "make", "ll", "plain", "folder", "nothing") if word in fresh} == {
        "frob", "make", "ll",
    }  # fmt: skip
    for hostile in ("", "../two/frob", "a\0b", "x" * 5_000, "\ud800", 3):
        assert hostile not in fresh


def test_a_program_in_the_folder_one_is_in_is_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "frob").write_text("#!/bin/sh\n")
    (tmp_path / "frob").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert "frob" not in Known({"PATH": ".::/nowhere"}, ())


@pytest.mark.requirement("I6.router.3")
def test_why_names_the_openings_that_were_not_taken_and_the_reason(rlp: Rlp, home: Path) -> None:
    (home / "openings").mkdir(parents=True)
    for name, goal in (("roses", "water the garden roses"), ("tulips", "cut the garden tulips")):
        (home / "openings" / f"{name}.yaml").write_text(
            f"version: 0\nname: {name}\ngoals: ['{goal}']\nnodes: [{{id: a, use: 'agent:b'}}]\n"
        )
    done = rlp("why", "garden roses: water them")
    assert "route     opening roses" in done.out
    assert "rule      near" in done.out
    assert "not       tulips" in done.out
    assert {
        other["name"] for other in rlp("why", "garden roses: water them", "--json").lines[0]["others"]
    } == {"tulips"}


def test_one_word_is_a_prompt_where_it_is_said_to_be(rlp: Rlp, home: Path) -> None:
    assert "is not a command" in rlp("frobnicate").err
    assert rlp("--", "ls").err.count("this is a shell line") == 1


# --- the block in a start-up file ----------------------------------------------------------------


def test_the_block_goes_through_a_link_and_keeps_what_was_added_behind_it(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "rc"
    real.parent.mkdir()
    real.write_bytes(b"a=1")
    link = tmp_path / ".rc"
    link.symlink_to(real)
    assert rcfile.put(link, b"x\n")
    assert not rcfile.put(link, b"x\n")
    assert rcfile.put(link, b"y\n")
    assert rcfile.block_of(link) == b"y\n"
    assert link.is_symlink()
    real.write_bytes(real.read_bytes() + b"b=2\n")
    assert rcfile.take(link)
    assert real.read_bytes() == b"a=1\nb=2\n"
    assert not rcfile.take(link)
    assert [path.name for path in real.parent.iterdir()] == ["rc"]


@pytest.mark.parametrize(
    "content",
    [
        b"# >>> runloop shell >>>\nx\n",
        b"x\n# <<< runloop shell <<<\n",
        b"# <<< runloop shell <<<\n# >>> runloop shell >>>\n",
        b"# >>> runloop shell >>>\nx\n# <<< runloop shell <<<\n" * 2,
    ],
)
def test_damaged_marks_are_never_guessed_at(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rc"
    file.write_bytes(content)
    for act in (lambda: rcfile.put(file, b"x\n"), lambda: rcfile.take(file)):
        with pytest.raises(ConflictError) as told:
            act()
        assert str(file) in (told.value.hint or "")
        assert file.read_bytes() == content


def test_a_start_up_file_that_cannot_be_written_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "rc").mkdir()
    with pytest.raises(RefusedError):
        rcfile.put(tmp_path / "rc", b"x\n")


@pytest.mark.requirement("I6.router.5")
def test_status_tells_an_older_script_a_missing_one_and_damage_apart(
    rlp: Rlp, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    state = lambda: rlp("shell", "status", "bash", "--json").lines[0]["state"]  # noqa: E731
    assert state() == "off"
    assert rlp("shell", "enable", "bash").code == 0
    assert state() == "on"
    script = home / "shell" / "runloop.bash"
    script.write_text("# older")
    assert state() == "stale"
    script.unlink()
    assert state() == "broken"
    assert rlp("shell", "enable", "bash").code == 0
    assert state() == "on"
    rc = tmp_path / ".bashrc"
    rc.write_bytes(rc.read_bytes() * 2)
    assert state() == "damaged"
    assert rlp("shell", "disable", "bash").code == 8
    assert rlp("shell", "enable", "tcsh").code == 2
    assert rlp("shell", "enable", "bash", "--key", "f1").code == 2


@pytest.mark.requirement("I6.router.5")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    "content",
    [None, b"", b"alias x=y\n", b"alias x=y", b"\xff\xfe \x00 not text\r\n\n\n"],
    ids=["no file", "empty", "line", "line without end", "no text"],
)
def test_disabling_leaves_the_start_up_file_as_it_was_byte_for_byte(
    rlp: Rlp, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, content: bytes | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZDOTDIR", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    rc = tmp_path / {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}[shell]
    if content is not None:
        rc.parent.mkdir(parents=True, exist_ok=True)
        rc.write_bytes(content)
        rc.chmod(0o640)
    assert rlp("shell", "enable", shell).code == 0
    once = rc.read_bytes()
    assert rlp("shell", "enable", shell).code == 0
    assert rc.read_bytes() == once != content
    assert (home / "shell" / f"runloop.{shell}").is_file()
    for _ in (1, 2):
        assert rlp("shell", "disable", shell).code == 0
        assert rc.exists() == (content is not None)
        if content is not None:
            assert (rc.read_bytes(), rc.stat().st_mode & 0o777) == (content, 0o640)
    assert not (home / "shell").exists()
