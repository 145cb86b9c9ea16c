"""The manual pages: as the table says, and as roff likes them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from rlp.table import COMMANDS, GLOBAL, GROUPS
from runloop.config import RULES

PLACE = Path(__file__).parents[3] / "packaging" / "man"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manpages", PLACE / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.requirement("I7.man.1")
def test_the_pages_are_as_the_programs_are(generator: ModuleType) -> None:
    made = {str(path): text for path, text in generator.pages().items()}
    kept = {str(file.relative_to(PLACE)): file.read_text(encoding="ascii") for file in PLACE.glob("man*/*")}
    assert kept == made, "run 'python packaging/man/generate.py'"


@pytest.mark.requirement("I7.man.1")
def test_roff_has_no_complaint_about_any_page() -> None:
    groff = shutil.which("groff")
    assert groff, "apt install groff-base"
    files = sorted(map(str, PLACE.glob("man*/*")))
    done = subprocess.run([groff, "-man", "-Tutf8", "-ww", "-z", *files], capture_output=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, b"")


def shown(page: str) -> str:
    """A page as a terminal shows it, its lines joined."""
    argv = ["groff", "-man", "-Tutf8", "-P-c", "-rLL=110n", str(PLACE / page)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100).stdout
    return " ".join(re.sub(".\b", "", text).split())


@pytest.mark.requirement("I7.man.1")
def test_every_command_and_option_is_on_its_page() -> None:
    pages = {name: shown(f"man1/rlp-{name}.1") for name in ("schedule", "export-run", "kb")}
    for command in COMMANDS:
        text = pages.get(command.path) or pages.get(command.path.split()[0])
        if text is None:
            continue
        assert f"rlp {command.path}" in text
        assert all(flag in text for option in command.options for flag in option.flags)
    main = shown("man1/rlp.1")
    assert all(f"rlp-{name}(1)" in main for name in {*GROUPS, *(c.path.split()[0] for c in COMMANDS)})
    assert all(flag in main for option in GLOBAL for flag in option.flags)
    assert all(key in shown("man5/runloop.toml.5") for key in RULES)


def test_pages_and_completions_are_installed_where_they_are_looked_for() -> None:
    root = PLACE.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert all((root / source).exists() for source in shared)
    assert {folder.name for folder in PLACE.glob("man*/")} == {
        Path(to).name for to in shared.values() if "/man/" in to
    }
    assert {to for source, to in shared.items() if "/shell/" in source} == {
        "share/bash-completion/completions/rlp",
        "share/zsh/site-functions/_rlp",
        "share/fish/vendor_completions.d/rlp.fish",
    }


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (".start", "\\&.start"),
        ("'quoted'", "\\&'quoted'"),
        ("a\\b", "a\\eb"),
        ("--at", "\\-\\-at"),
        ("d\u2026", "d\\[u2026]"),
    ],
)
def test_no_words_are_a_request_or_an_escape(generator: ModuleType, words: str, written: str) -> None:
    assert generator.roff(words) == written
