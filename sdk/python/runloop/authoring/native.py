"""Runs what an author wrote to be run outside the sandbox: unit tests, and cases against the fake host.

Knows: processes with a bound on time and output, and the surroundings they get. Does not know: what the tests
say. They run with the rights of whoever types ``rlp agent test``, like every unit test: a foreign agent is
tried with ``--sandbox-only``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import runloop
from runloop.authoring.cases import Case, Outcome
from runloop.authoring.toolchains import Toolchain
from runloop.errors import FailedError

__all__ = ["NativeRun", "run_cases", "run_native"]

TIMEOUT_S = 300
CASES_TIMEOUT_S = 60
MAX_OUTPUT_CHARS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeRun:
    """How the author's own tests ended."""

    ok: bool
    output: str
    """What they printed, the end of it when it is long."""


def run_native(
    folder: Path, made: Toolchain, cases: Sequence[Case], environ: Mapping[str, str]
) -> NativeRun | None:
    """Run the language's own unit tests in ``folder``; None when there are none."""
    with tempfile.TemporaryDirectory(prefix="runloop-test-") as work:
        argv = made.native_test(folder, Path(work))
        if argv is None:
            return None
        listed = Path(work) / "cases.json"
        listed.write_text(json.dumps([case.to_json() for case in cases]), encoding="utf-8")
        code, output = _run(argv, folder, {**_surroundings(environ), "RUNLOOP_CASES": str(listed)}, TIMEOUT_S)
        return NativeRun(ok=code == 0, output=output)


def run_cases(folder: Path, cases: Sequence[Case], agent: str, environ: Mapping[str, str]) -> list[Outcome]:
    """Run the cases of a Python agent against the fake host, in a process of their own.

    Raises :class:`FailedError` when that process does not come to an end, or not to a good one.
    """
    with tempfile.TemporaryDirectory(prefix="runloop-test-") as work:
        answers = Path(work) / "outcomes.json"
        asked = [{**case.to_json(), "input": case.guest_input(agent)} for case in cases]
        argv = [sys.executable, "-B", "-m", "runloop.authoring.fakerun", str(folder.resolve()), str(answers)]
        code, output = _run(argv, Path(work), _surroundings(environ), CASES_TIMEOUT_S, json.dumps(asked))
        if code != 0:
            why = output[-1_000:].strip() or f"exit {code}"
            raise FailedError(
                f"the cases could not be run against the fake host: {why}",
                hint="an endless loop, or a module that ends the process; --sandbox-only leaves this out",
                code="agent.fake_host",
            )
        made = json.loads(answers.read_text(encoding="utf-8"))
    return [Outcome(**{**outcome, "unscripted": tuple(outcome.get("unscripted", ()))}) for outcome in made]


def _surroundings(environ: Mapping[str, str]) -> dict[str, str]:
    """What a test may count on; the rest of the author's environment stays outside."""
    kept = {
        name: environ[name]
        for name in ("PATH", "HOME", "TMPDIR", "RUSTUP_HOME", "CARGO_HOME")
        if name in environ
    }
    package = Path(runloop.__file__).parents[1]
    return {
        **kept,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _run(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], timeout_s: float, given: str = ""
) -> tuple[int, str]:
    """Exit code and output; a process that overruns is killed with all it started."""
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise FailedError(
            f"{argv[0]} cannot be started: {error.strerror}", hint="install it", code="agent.native"
        ) from error
    try:
        output, _ = process.communicate(given, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        output = f"it ran longer than {timeout_s:.0f} s and was stopped"
        return 124, output
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, output[-MAX_OUTPUT_CHARS:]
