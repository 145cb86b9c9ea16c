"""``rlp shell completion``: printed, or put where a shell looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.config import shipped
from tests.unit.rlp.conftest import Rlp

PLACES = {
    "bash": ".local/share/bash-completion/completions/rlp",
    "zsh": ".local/share/zsh/site-functions/_rlp",
    "fish": ".config/fish/completions/rlp.fish",
}


@pytest.fixture
def user(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    return tmp_path


@pytest.mark.parametrize("shell", PLACES)
def test_it_is_put_where_the_shell_looks_and_put_once(user: Path, rlp: Rlp, shell: str) -> None:
    script = (shipped("shell") / f"completion.{shell}").read_text()
    assert rlp("shell", "completion", shell).out == script
    done = rlp("shell", "completion", shell, "--install")
    assert (done.code, done.out) == (0, f"{user / PLACES[shell]}\n")
    assert (user / PLACES[shell]).read_text() == script
    assert "was there already" in rlp("shell", "completion", shell, "--install").err


def test_the_shell_one_uses_is_the_one_that_is_meant(user: Path, rlp: Rlp) -> None:
    assert rlp("shell", "completion").out.startswith("#compdef rlp\n")


def test_a_shell_nobody_knows_is_a_usage_error_with_a_suggestion(user: Path, rlp: Rlp) -> None:
    done = rlp("shell", "completion", "bahs")
    assert done.code == 2
    assert "did you mean 'bash'?" in done.err


def test_a_place_that_cannot_be_written_says_what_to_do(user: Path, rlp: Rlp) -> None:
    (user / ".config").write_text("a file in the way")
    done = rlp("shell", "completion", "fish", "--install")
    assert done.code == 4
    assert "'rlp shell completion fish' prints it" in done.err
