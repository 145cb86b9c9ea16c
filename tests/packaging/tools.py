"""Programs of Debian's that a test of the packaging needs, and the scripts it tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["PACKAGING", "ROOT", "needs", "run", "scripts"]

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


def needs(*programs: str, package: str) -> None:
    """Skip, naming the Debian package, where a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt install {package}")


def run(*words: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; never raises for an exit code."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def scripts() -> list[Path]:
    """Every file of packaging/ that a shell reads."""
    found = []
    for path in sorted(PACKAGING.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.readline(64).startswith((b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash")):
                    found.append(path)
    return found
