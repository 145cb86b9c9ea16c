"""A new agent's folder: complete, right at once, and never over somebody's work."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop import __version__
from runloop.authoring.scaffold import scaffold
from runloop.authoring.toolchains import LANGUAGES
from runloop.bundle.manifest import parse_manifest
from runloop.config import shipped
from runloop.errors import ConflictError, FailedError, UsageError

from .folders import found

MADE = sorted(language for language in LANGUAGES if (shipped("templates") / language).is_dir())


def test_python_has_a_template() -> None:
    assert "python" in MADE


@pytest.mark.requirement("I3.author.1")
@pytest.mark.parametrize("language", MADE)
def test_a_new_folder_has_everything_and_nothing_is_left_to_fill_in(tmp_path: Path, language: str) -> None:
    files = scaffold("weather_man", language, tmp_path / "here")
    needed = {
        *("manifest.toml", "policy.caps", "tools.json", "build.toml", "README.md", "LICENSE"),
        *("opening.yaml", "tests/cases.toml", ".gitignore"),
    }
    assert needed <= set(files)
    for file in files:
        text = (tmp_path / "here" / file).read_text(encoding="utf-8")
        assert "__NAME__" not in file + text and "__RUNLOOP__" not in text
    manifest = parse_manifest((tmp_path / "here" / "manifest.toml").read_bytes())
    assert (manifest.name, manifest.min_runloop) == ("weather_man", __version__)


@pytest.mark.parametrize("language", MADE)
def test_a_new_folder_has_nothing_to_mend(tmp_path: Path, language: str) -> None:
    scaffold("asks", language, tmp_path / "asks")
    assert [str(finding) for finding in found(tmp_path / "asks")] == []


@pytest.mark.parametrize("name", ["", "Weather", "2day", "a-b", "a b", "../up", "a" * 65, "ä"])
def test_a_name_that_no_agent_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name"):
        scaffold(name, "python", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_language_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no language 'cobol'") as caught:
        scaffold("asks", "cobol", tmp_path / "x")
    assert "rust" in (caught.value.hint or "")


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, there: str) -> None:
    target = tmp_path / "asks"
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConflictError, match="is there already"):
        scaffold("asks", "python", target)
    assert [path.name for path in tmp_path.iterdir()] == ["asks"]


def test_a_place_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedError, match="cannot be written"):
        scaffold("asks", "python", tmp_path / "file" / "asks")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
