"""The house keeps its shape: names, drawers that must not exist, imports that must stay out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdk/python/runloop", "pog", "openings", "runloopd", "rlp")
FORBIDDEN_DRAWERS = {"common", "core", "shared", "helpers", "utils"}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("folder", ["packaging", "docs", "sdk"])
def test_a_plain_directory_never_becomes_an_import_package(folder: str) -> None:
    """`packaging/__init__.py` would shadow the library of that name."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_drawer_collects_what_has_no_home() -> None:
    drawers = [p for p in modules() if FORBIDDEN_DRAWERS & {*p.relative_to(ROOT).parts, p.stem}]
    assert drawers == []


def test_every_module_says_what_it_knows() -> None:
    silent = []
    for path in modules():
        source = path.read_text(encoding="utf-8").lstrip()
        if source and not source.startswith(('"""', 'r"""', "# This file is generated", "# Generated")):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        ("runloop.config", ("typer", "rich", "asyncio", "wasmtime", "pydantic")),
        ("rlp.__main__", ("typer", "rich", "asyncio", "wasmtime", "httpx2", "ruamel", "msgspec")),
        ("runloopd.daemon", ("wasmtime", "typer", "httpx2", "lark", "ruamel")),
        ("openings.router", ("lark", "ruamel", "asyncio")),
    ],
)
def test_a_heavy_library_is_not_imported_before_it_is_needed(program: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {program}; print([m for m in {heavy!r} if m in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "[]"


def test_no_file_carries_a_path_of_a_developers_machine_or_an_index_host() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, timeout=60,
    ).stdout.decode()  # fmt: skip
    marks = ("/work" + "/main", "/root/" + ".", "files.python" + "hosted", "pypi" + ".org/simple")
    found = []
    for name in filter(None, listed.split("\0")):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        found += [f"{name}: {mark}" for mark in marks if mark.encode() in data]
    assert found == []
