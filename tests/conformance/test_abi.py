"""Every SDK serves the vectors of the agent ABI: in process, and as a component in a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runloop.authoring.native import run_native
from runloop.authoring.toolchains.c import CToolchain
from runloop.authoring.toolchains.compilers import find, run
from runloop.authoring.toolchains.rust import RustToolchain
from runloop.config import shipped
from runloop.guest import Program
from runloop.host import Host
from runloop.ops import OPS
from tests.conformance.abi import CASES, DEFAULTS, Component, Transport, faults, play_all

SDK = Path(__file__).resolve().parents[2] / "sdk"
PROBE = SDK / "conformance" / "probe"
VECTORS = SDK / "conformance" / "abi.json"

rust = pytest.mark.skipif(
    bool(RustToolchain().missing()), reason="needs Debian: rustc cargo libstd-rust-dev-wasm32 lld"
)
c = pytest.mark.skipif(bool(CToolchain().missing()), reason="needs Debian: clang lld")
native_c = pytest.mark.skipif(find("cc", "gcc", "clang") is None, reason="needs Debian: gcc libc6-dev")


def test_the_vectors_are_those_of_their_generator() -> None:
    generator = SDK / "conformance" / "generate_abi.py"
    done = subprocess.run([sys.executable, generator, "--check"], check=False)
    assert done.returncode == 0, "run python sdk/conformance/generate_abi.py"


BY_NAME = frozenset(
    {
        "agent.delegate",
        "memory.list",
        "memory.delete",
        "model.embed",
        "secret.use",
        "msg.publish",
        "msg.reply",
        "msg.request",
        "msg.subscribe",
        "promise.create",
        "promise.await",
        "promise.resolve",
        "input.ask",
    }
)
"""Host calls that guests in some language make by their name: not every SDK has a helper for them."""


def test_every_host_call_has_a_vector_of_its_helper_and_no_other_has() -> None:
    helped = {case["name"].split(": ")[1] for case in CASES if case["name"].startswith("helper: ")}
    assert helped - {"a refused effect is survived"} == set(OPS) - BY_NAME
    assert set(DEFAULTS) == set(OPS)
    assert len({case["name"] for case in CASES}) == len(CASES)


# --- Python ---------------------------------------------------------------------------------------


@pytest.fixture
def python_probe() -> Callable[[str, Transport], tuple[bool, str]]:
    source = {"probe_under_test": (PROBE / "python" / "agent.py").read_text()}
    program = Program(source, "probe_under_test:handle")
    return lambda text, transport: program.handle(text, Host(transport))


@pytest.mark.requirement("I3.sdk.1")
def test_the_python_sdk_holds_every_vector(python_probe: Any) -> None:
    assert play_all(python_probe) == {}


@pytest.mark.parametrize(
    ("name", "spoil", "fault"),
    [
        ("echo: true", lambda ok, text: (ok, text.replace("true", "1")), "expected"),
        ("echo: zero", lambda ok, text: (ok, text[:-1]), "not JSON"),
        ("input: another op", lambda ok, text: (True, text), "should fail"),
        ("input: another op", lambda ok, text: (ok, text.replace("abi.op", "abi.x")), "another code"),
        ("failure: for now", lambda ok, text: (ok, text.replace("true", "false")), "another retryable"),
        ("failure: for now", lambda ok, text: (ok, "{}"), "another shape"),
        ("tool: what there is", lambda ok, text: (ok, text.replace("Fails", "Works")), "lacks"),
        ("helper: kb.why", lambda ok, text: (not ok, text), "failed"),
    ],
)
def test_a_guest_that_errs_is_found_out(python_probe: Any, name: str, spoil: Any, fault: str) -> None:
    (case,) = [case for case in CASES if case["name"] == name]
    assert faults(case, python_probe) == []
    (found,) = faults(case, lambda text, transport: spoil(*python_probe(text, transport)))
    assert fault in found


def test_host_calls_that_differ_are_found_out(python_probe: Any) -> None:
    (case,) = [case for case in CASES if case["name"] == "helper: kb.search"]

    def asks_for_more(text: str, transport: Transport) -> tuple[bool, str]:
        return python_probe(text, lambda op, args: transport(op, json.dumps({**json.loads(args), "k": 9})))

    def asks_twice(text: str, transport: Transport) -> tuple[bool, str]:
        python_probe(text, transport)
        return python_probe(text, lambda op, args: (transport(op, args), (True, '{"items":[]}'))[1])

    def never_asks(text: str, transport: Transport) -> tuple[bool, str]:
        return python_probe(text, lambda op, args: (True, json.dumps(case["host"][0]["answer"])))

    assert "expected kb.search" in faults(case, asks_for_more)[0]
    assert "one host call too many" in faults(case, asks_twice)[0]
    assert faults(case, never_asks) == ["1 host calls were not made"]


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """The vectors with one output and one host call that no probe makes."""
    vectors = json.loads(VECTORS.read_text())
    named = {case["name"]: case for case in vectors["cases"]}
    named["echo: zero"]["output"]["ports"]["out"] = [1]
    named["host: calls come in the order of the program"]["host"][3]["args"] = {"n": 4}
    path = tmp_path / "spoiled.json"
    path.write_text(json.dumps(vectors))
    return path


# --- Rust -----------------------------------------------------------------------------------------


@rust
@pytest.mark.timeout(300)
def test_the_rust_sdk_holds_every_vector_in_process() -> None:
    done = crate_tests(PROBE / "rust", {"RUNLOOP_ABI": str(VECTORS)})
    assert done.returncode == 0, done.stdout + done.stderr


@rust
@pytest.mark.timeout(300)
def test_the_harness_in_rust_finds_out_a_vector_that_does_not_hold(spoiled: Path) -> None:
    done = crate_tests(PROBE / "rust", {"RUNLOOP_ABI": str(spoiled)})
    assert done.returncode != 0
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith('"')]
    assert [line.split(": ")[0] for line in told] == ['"echo', '"host']


@pytest.mark.requirement("I3.sdk.1")
@rust
@pytest.mark.timeout(300)
def test_the_rust_sdk_holds_every_vector_as_a_component(tmp_path: Path) -> None:
    with Component.of(RustToolchain().build(PROBE / "rust", tmp_path)["agent.wasm"]) as probe:
        assert play_all(probe) == {}
        assert play_all(probe) == {}, "the instance is not as it was after the first round"


@rust
@pytest.mark.timeout(300)
def test_the_rust_sdk_passes_its_own_tests() -> None:
    done = run_native(SDK / "rust", RustToolchain(), [], os.environ)
    assert done is not None
    assert done.ok, done.output


def crate_tests(folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The tests of a crate, with more variables than authors' tests get."""
    with tempfile.TemporaryDirectory() as work:
        argv = RustToolchain().native_test(folder, Path(work))
        assert argv is not None
        return subprocess.run(
            argv, env={**os.environ, **environ}, capture_output=True, text=True, check=False
        )


@rust
@pytest.mark.timeout(300)
def test_a_guest_in_rust_gives_back_what_a_task_took(tmp_path: Path) -> None:
    serves_many_tasks(RustToolchain().build(PROBE / "rust", tmp_path)["agent.wasm"])


def serves_many_tasks(wasm: bytes) -> None:
    """A thousand tasks of some 200 kB each, host calls included, in 3 MiB."""
    by_name = {case["name"]: case for case in CASES}
    heavy = [
        by_name[name]
        for name in ("echo: 10 kB of text", "host: a long answer", "host: a refusal is survived")
    ]
    with Component.of(wasm, memory=3 * 1024 * 1024) as probe:
        for _ in range(350):
            assert [faults(case, probe) for case in heavy] == [[], [], []]


# --- C --------------------------------------------------------------------------------------------


def vectors_program(folder: Path, *flags: str) -> Path:
    compiler = find("gcc", "cc", "clang")
    assert compiler is not None
    usual = ["-std=c17", "-Wall", "-Wextra", "-Werror", "-g", "-I", shipped("sdk/c")]
    program, source = folder / "vectors", PROBE / "c" / "tests" / "vectors.c"
    run([compiler, *usual, *flags, "-o", program, source], cwd=folder, work=folder, hide={})
    return program


@native_c
@pytest.mark.parametrize("sanitizer", ["-O0", "-fsanitize=undefined,address"])
def test_the_c_sdk_holds_every_vector_in_process(tmp_path: Path, sanitizer: str) -> None:
    program = vectors_program(tmp_path, sanitizer)
    done = subprocess.run([program, VECTORS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{len(CASES)} vectors, 0 wrong\n"), done.stderr


@native_c
def test_the_harness_in_c_finds_out_a_vector_that_does_not_hold(tmp_path: Path, spoiled: Path) -> None:
    done = subprocess.run([vectors_program(tmp_path), spoiled], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, f"{len(CASES)} vectors, 2 wrong\n")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["echo", "host"]


@pytest.mark.requirement("I3.sdk.1")
@c
def test_the_c_sdk_holds_every_vector_as_a_component(tmp_path: Path) -> None:
    with Component.of(CToolchain().build(PROBE / "c", tmp_path)["agent.wasm"]) as probe:
        assert play_all(probe) == {}
        assert play_all(probe) == {}, "the instance is not as it was after the first round"


@c
def test_a_guest_in_c_gives_back_what_a_task_took(tmp_path: Path) -> None:
    serves_many_tasks(CToolchain().build(PROBE / "c", tmp_path)["agent.wasm"])
