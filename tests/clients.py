"""The RMP clients in JavaScript and Rust, for tests: where node is, and the crate's programs, built once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["JS", "RUST", "base_of", "cargo", "javascript", "node", "rust", "rust_programs"]

JS = Path(__file__).parents[1] / "sdk/js"
RUST = Path(__file__).parents[1] / "sdk/rust-client"


def node() -> str | None:
    """Node, on the PATH."""
    return shutil.which("node")


def tool(name: str) -> str | None:
    """Debian's own first: its rustc 1.63 is the oldest that must do."""
    own = Path("/usr/bin") / name
    return str(own) if own.is_file() else shutil.which(name)


javascript = pytest.mark.skipif(node() is None, reason="needs Debian: nodejs")
rust = pytest.mark.skipif(
    None in (tool("cargo"), tool("rustc"), shutil.which("cc")),
    reason="needs Debian: cargo rustc gcc libc6-dev",
)


def cargo(base: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run cargo on the crate without a network; what it makes lies in ``base``."""
    surroundings = {
        "PATH": os.environ["PATH"],
        "RUSTC": tool("rustc") or "",
        "RUSTDOC": tool("rustdoc") or "",
        "CARGO_HOME": str(base / "home"),
        "CARGO_TARGET_DIR": str(base / "target"),
    }
    if home := os.environ.get("HOME"):
        surroundings["HOME"] = home  # where rustup, if cargo is rustup's, finds its toolchains
    return subprocess.run(
        [tool("cargo") or "cargo", *words, "--offline", "--quiet", "--manifest-path", str(copied(base))],
        cwd=base, env=surroundings, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def copied(base: Path) -> Path:
    """The crate's manifest in a copy: cargo writes ``Cargo.lock`` beside it."""
    crate = base / "crate"
    if not crate.exists():
        shutil.copytree(RUST, crate, ignore=shutil.ignore_patterns("target", "Cargo.lock"))
    return crate / "Cargo.toml"


def base_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where cargo works in this test session."""
    root = tmp_path_factory.getbasetemp()
    return (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / "rust-client"


def rust_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the crate's examples: compiled once per test session, whoever comes first."""
    base = base_of(tmp_path_factory)
    base.mkdir(exist_ok=True)
    with base.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = cargo(base, "build", "--examples")
        assert made.returncode == 0, made.stderr
    return base / "target/debug/examples"
