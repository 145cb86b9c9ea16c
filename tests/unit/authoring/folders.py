"""Agents' folders for tests: scaffolded, then changed the way authors change things."""

from __future__ import annotations

from pathlib import Path

from runloop.authoring.findings import LintFinding
from runloop.authoring.lint import lint
from runloop.authoring.scaffold import scaffold


def python_agent(place: Path, name: str = "asks", **files: str) -> Path:
    """A scaffolded Python agent in ``place``; ``files`` replace or add some (``__`` stands for ``/``)."""
    folder = place / name
    scaffold(name, "python", folder)
    for word, text in files.items():
        write(folder, word, text)
    return folder


def write(folder: Path, file: str, text: str) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def change(folder: Path, file: str, before: str, after: str) -> None:
    text = (folder / file).read_text(encoding="utf-8")
    assert before in text, f"{before!r} is not in {file}"
    write(folder, file, text.replace(before, after))


def found(folder: Path) -> list[LintFinding]:
    return lint(folder)[1]


def said(folder: Path) -> list[str]:
    """``place: what`` of every finding."""
    return [f"{finding.place}: {finding.what}" for finding in found(folder)]
