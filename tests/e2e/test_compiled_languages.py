"""Authors in Rust and C, through the installed commands: from nothing to a verified message."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runloop.authoring.toolchains.c import CToolchain
from runloop.authoring.toolchains.rust import RustToolchain
from runloop.bundle.archive import unpack
from tests.home import EXAMPLES, Done, Home

rust = pytest.mark.skipif(
    bool(RustToolchain().missing()), reason="needs Debian: rustc cargo libstd-rust-dev-wasm32 lld"
)
c = pytest.mark.skipif(bool(CToolchain().missing()), reason="needs Debian: clang lld")
LANGUAGES = [pytest.param("rust", marks=rust), pytest.param("c", marks=c)]


class Author:
    """Types commands in a folder of its own."""

    def __init__(self, home: Home, place: Path) -> None:
        self._home, self.place = home, place

    def rlp(self, *words: str, cwd: str = "", code: int = 0, env: dict[str, str] | None = None) -> Done:
        return self._home.rlp(*words, cwd=self.place / cwd, env=env, timeout=300).check(code)

    def allow(self, approval: str) -> None:
        self._home.allow(approval).check()


@pytest.fixture
def author(home: Home, tmp_path: Path) -> Author:
    return Author(home, tmp_path)


def all_pass(report: Done) -> int:
    """How many cases passed in the sandbox; fails when one did not."""
    made = report.json
    assert made["ok"] and made["unit"]["ok"], made
    for case in made["cases"]:
        assert case["sandbox"]["ok"] and case["sandbox"]["differences"] == [], case
    return len(made["cases"])


@pytest.mark.requirement("I3.sdk.3")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", LANGUAGES)
def test_from_nothing_to_a_verified_message(author: Author, language: str) -> None:
    author.rlp("agent", "scaffold", "meter", "--lang", language)
    assert all_pass(author.rlp("agent", "test", "meter", "--json")) == 6
    author.rlp("agent", "build", "--dev-key", cwd="meter")
    parked = author.rlp("agent", "install", "--dev-key", "meter-0.1.0.rlb", cwd="meter", code=5)
    author.allow(parked.err.partition("rlp approve ")[2].split()[0])
    ran = author.rlp("run", "opening.yaml", "-p", "text=One two three. Four.", "--json", cwd="meter")
    assert '"longest":3' in ran.out and '"words":4' in ran.out
    author.rlp("verify")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", LANGUAGES)
def test_two_builds_in_two_places_and_surroundings_are_one_bundle(author: Author, language: str) -> None:
    author.rlp("agent", "scaffold", "meter", "--lang", language, "--dir", "first/meter")
    author.rlp("agent", "scaffold", "meter", "--lang", language, "--dir", "second/some/where/else")
    author.rlp("agent", "build", "first/meter", "-o", "one.rlb", env={"TZ": "UTC", "LANG": "C"})
    other = {"TZ": "Pacific/Auckland", "LANG": "C.UTF-8", "RUSTFLAGS": "-C debuginfo=2", "CPATH": "/nowhere"}
    author.rlp("agent", "build", "second/some/where/else", "-o", "two.rlb", env=other)
    one, two = ((author.place / name).read_bytes() for name in ("one.rlb", "two.rlb"))
    assert one == two
    files = unpack(one).files
    assert b"meter.measure" in files["tools.json"], "described in the sandbox"
    assert files["agent.wasm"].startswith(b"\0asm\x0d\0\1\0")
    assert not [path for path in files if path.endswith((".rs", ".c", ".lock"))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("example", "cases"),
    [pytest.param("note_digest_rust", 5, marks=rust), pytest.param("mask_c", 3, marks=c)],
)
def test_the_examples_have_nothing_to_mend_and_pass_their_tests(
    author: Author, example: str, cases: int
) -> None:
    shutil.copytree(EXAMPLES / "agents" / example, author.place / example)
    assert author.rlp("agent", "lint", example, "--json").out == ""
    assert all_pass(author.rlp("agent", "test", example, "--json")) == cases


@pytest.mark.timeout(600)
@rust
def test_a_panic_ends_the_attempt_and_its_words_are_on_record(author: Author) -> None:
    author.rlp("agent", "scaffold", "meter", "--lang", "rust")
    source = author.place / "meter" / "src" / "lib.rs"
    text = source.read_text().replace(
        "let measures = measure(text)?;", 'let measures: Value = panic!("oh no");'
    )
    source.write_text(text.replace("Output::of(", "#[allow(unreachable_code)] Output::of("))
    (author.place / "meter" / "tests" / "agent.rs").unlink()
    report = author.rlp("agent", "test", "meter", "--json", code=1).json
    (first, *_) = report["cases"]
    assert "guest.trap" in str(first["sandbox"]), first
    assert first["sandbox"]["calls"] == 1, "the log line that says why"
