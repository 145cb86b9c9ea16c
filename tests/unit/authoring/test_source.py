"""What of an author's folder is source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runloop.authoring import source
from runloop.authoring.source import SourceError, modules_of, op_literals, read_source
from runloop.authoring.toolchains import build_settings
from runloop.errors import NotFoundError, UsageError

from .folders import write


def test_what_an_author_has_lying_about_is_left_out(tmp_path: Path) -> None:
    for file in ("agent.py", "lib/a.py", "target/x.o", "target/deep/y", "__pycache__/z.pyc", ".git/config"):
        write(tmp_path, file, "1")
    write(tmp_path, "asks-0.1.0.rlb", "old")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "python").symlink_to("/usr/bin/python3")
    assert list(read_source(tmp_path, ["target"])) == ["agent.py", "lib/a.py"]


def test_links_and_special_files_are_refused_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.py").symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match=r"secret\.py is a link"):
        read_source(tmp_path)
    (tmp_path / "secret.py").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="pipe is a link or a special file"):
        read_source(tmp_path)


def test_there_is_an_end_to_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/" * 13 + "x.py", "")
    with pytest.raises(SourceError, match="deeper than"):
        read_source(tmp_path)
    monkeypatch.setattr(source, "MAX_SOURCE_FILES", 2)
    for name in "abc":
        write(tmp_path / "many", name, "")
    with pytest.raises(SourceError, match="more than 2 files"):
        read_source(tmp_path / "many")


def test_a_folder_that_is_not_there_is_told_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        read_source(tmp_path / "nowhere")
    assert "rlp agent scaffold" in (caught.value.hint or "")
    write(tmp_path, "file", "")
    with pytest.raises(NotFoundError, match="not a folder"):
        read_source(tmp_path / "file")


def test_modules_are_named_as_they_are_imported_and_tests_stay_behind() -> None:
    files = dict.fromkeys(("agent.py", "lib/__init__.py", "lib/a.py", "tests/test_agent.py", "data.txt"), b"")
    assert modules_of(files) == {"agent": "agent.py", "lib": "lib/__init__.py", "lib.a": "lib/a.py"}


def test_ops_are_found_in_any_text_by_name_and_by_helper(tmp_path: Path) -> None:
    write(tmp_path, "src/lib.rs", 'fn a() {\n  host.call("kb.search", x);\n  host.log("m"); "no.op" }')
    write(tmp_path, "tests/t.rs", '"mail.send"')
    found = op_literals(tmp_path, [".rs"], names={"host.log(": "log.write"})
    assert [(use.op, use.file, use.line) for use in found] == [
        ("kb.search", "src/lib.rs", 2),
        ("log.write", "src/lib.rs", 3),
    ]


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(10**13)
    with pytest.raises(SourceError, match="bytes"):
        read_source(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "link", "huge"])
def test_a_build_file_that_is_no_file_stops_nobody(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "build.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"#" * 70_000)
    with pytest.raises(UsageError, match="no small plain file"):
        build_settings(tmp_path)
