"""``rlp agent scaffold|lint|build|sign|test``, against a daemon that says what a test wants."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from runloop.bundle.archive import unpack
from runloop.bundle.keyfile import dev_key, make_key
from tests.home import EXAMPLES
from tests.unit.authoring.folders import change, write

from .conftest import Rlp
from .daemon_twin import DaemonTwin

TOOL = {
    "id": "asks.requests",
    "description": "Finds them.",
    "input_schema": {"type": "object"},
    "result_schema": {},
}


@pytest.fixture
def folder(rlp: Rlp, tmp_path: Path) -> Path:
    assert rlp("agent", "scaffold", "asks", "-q").code == 0
    return tmp_path / "asks"


def tries(daemon: DaemonTwin, *outcomes: dict[str, Any]) -> list[dict[str, Any]]:
    """Have the twin answer ``agents.try``; returns what it will be asked."""
    asked: list[dict[str, Any]] = []

    held = bytearray()

    def begin(size: int, sha256: str) -> dict[str, Any]:
        held.clear()
        return {"upload": "u", "piece_bytes": 10_000}

    def piece(upload: str, offset: int, base64: str) -> dict[str, Any]:
        assert (upload, offset) == ("u", len(held))
        held.extend(b64decode(base64))
        return {"have": len(held)}

    def answer(upload: str, cases: list[Any]) -> dict[str, Any]:
        asked.append({"package": unpack(bytes(held)), "cases": cases})
        return {"cases": list(outcomes)}

    daemon.methods |= {"agents.upload": begin, "agents.piece": piece, "agents.try": answer}
    return asked


def described(*tools: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "output": {"tools": list(tools), "inputs": None}}


# --- scaffold and lint ----------------------------------------------------------------------------


def test_scaffold_lists_what_it_wrote_and_says_what_to_type_next(rlp: Rlp, tmp_path: Path) -> None:
    done = rlp("agent", "scaffold", "weather_man", "--lang", "python", "--dir", "here")
    assert done.code == 0
    assert "here/agent.py" in done.out.splitlines()
    assert "next: cd here && rlp agent test" in done.err
    assert rlp("agent", "scaffold", "weather_man", "--dir", "here").code == 8
    listed = json.loads(rlp("agent", "scaffold", "other", "--json").out)
    assert listed["language"] == "python" and "manifest.toml" in listed["files"]


def test_lint_shows_every_finding_and_fails_on_errors_only(rlp: Rlp, folder: Path) -> None:
    assert rlp("agent", "lint", "asks") == (0, "", "nothing to mend\n")
    write(folder, "policy.caps", "[capabilities]\ntime = true\n")
    warned = rlp("agent", "lint", "asks")
    assert warned.code == 0 and warned.out.startswith("policy.caps:2: warning: asks for time")
    write(folder, "agent.py", "x = (\n")
    failed = rlp("agent", "lint", "asks", "--json")
    assert failed.code == 2
    assert {(f["file"], f["line"], f["severity"]) for f in failed.lines} >= {("agent.py", 1, "error")}


# --- build and sign -------------------------------------------------------------------------------


def test_a_build_completes_the_tools_in_the_sandbox(rlp: Rlp, folder: Path, daemon: DaemonTwin) -> None:
    asked = tries(daemon, described(TOOL))
    done = rlp("agent", "build", "asks", "--json")
    assert done.code == 0
    assert [case["op"] for case in asked[0]["cases"]] == ["describe"]
    package = unpack(Path("asks-0.1.0.rlb").read_bytes())
    assert json.loads(package.files["tools.json"])["tools"][0]["id"] == "asks.requests"
    assert json.loads(done.out)["bundle_digest"] == package.bundle_digest


def test_an_agent_without_tools_is_built_without_a_daemon(
    rlp: Rlp, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlp.session.Session.client", lambda self: pytest.fail("nobody is asked"))
    change(folder, "agent.py", '@tool("asks.requests")\n', "")
    assert rlp("agent", "build", "asks").code == 0
    assert Path("asks-0.1.0.rlb").is_file()


def test_without_a_daemon_a_build_says_why_it_needs_one_and_how_to_do_without(
    rlp: Rlp, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runloop.errors import UnreachableError

    def nobody(*_: Any) -> Any:
        raise UnreachableError("nobody listens", code="client.unreachable")

    monkeypatch.setattr("rlp.session.Session.client", nobody)
    done = rlp("agent", "build", "asks")
    assert done.code == 3
    assert "describes its tools in the sandbox" in done.err and "--no-describe" in done.err
    assert not Path("asks-0.1.0.rlb").exists()
    assert rlp("agent", "build", "asks", "--no-describe").code == 0


def test_an_agent_that_cannot_describe_keeps_its_file_and_one_that_fails_is_not_built(
    rlp: Rlp, folder: Path, daemon: DaemonTwin
) -> None:
    tries(daemon, {"ok": False, "code": "abi.op", "message": "no"})
    assert rlp("agent", "build", "asks").code == 0
    assert (
        unpack(Path("asks-0.1.0.rlb").read_bytes()).files["tools.json"]
        == (folder / "tools.json").read_bytes()
    )
    tries(daemon, {"ok": False, "code": "agent.exception", "message": "boo (agent.py:3)"})
    done = rlp("agent", "build", "asks", "-o", "other.rlb")
    assert done.code == 1 and "boo (agent.py:3)" in done.err
    assert not Path("other.rlb").exists()


def test_an_unsigned_build_says_that_nobody_can_install_it(rlp: Rlp, folder: Path) -> None:
    done = rlp("agent", "build", "asks", "--no-describe")
    assert done.out == "asks-0.1.0.rlb\n"
    assert "not signed" in done.err and "rlp agent sign asks-0.1.0.rlb --dev-key" in done.err


def test_a_signed_build_and_a_build_that_is_signed_later_are_the_same(
    rlp: Rlp, folder: Path, home: Path
) -> None:
    assert rlp("agent", "build", "asks", "--no-describe", "--dev-key", "-o", "a.rlb").code == 0
    assert rlp("agent", "build", "asks", "--no-describe", "-o", "b.rlb").code == 0
    assert rlp("agent", "sign", "b.rlb", "--dev-key").code == 0
    assert Path("a.rlb").read_bytes() == Path("b.rlb").read_bytes()
    public = dev_key(home / "keys").public
    assert all(envelope.is_signed_by(public) for envelope in unpack(Path("a.rlb").read_bytes()).envelopes)


def test_a_key_of_ones_own_takes_the_place_of_the_signature_that_was_there(rlp: Rlp, folder: Path) -> None:
    key = make_key(Path("mine.key"))
    rlp("agent", "build", "asks", "--no-describe", "--dev-key")
    done = rlp("agent", "sign", "asks-0.1.0.rlb", "--key", "mine.key")
    assert done.code == 0 and f"signed by {key.key_id}" in done.err
    envelopes = unpack(Path("asks-0.1.0.rlb").read_bytes()).envelopes
    assert all(envelope.is_signed_by(key.public) for envelope in envelopes)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "no key is named"),
        (("--dev-key", "--key", "k"), 2, "two keys"),
        (("--key", "absent"), 7, "no key at absent"),
    ],
)
def test_a_signature_needs_exactly_one_key(
    rlp: Rlp, folder: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    rlp("agent", "build", "asks", "--no-describe")
    before = Path("asks-0.1.0.rlb").read_bytes()
    done = rlp("agent", "sign", "asks-0.1.0.rlb", *words)
    assert done.code == code and said in done.err
    assert Path("asks-0.1.0.rlb").read_bytes() == before


@pytest.mark.parametrize("change", [b"appended", None])
def test_a_file_that_is_not_canonical_is_not_signed(rlp: Rlp, folder: Path, change: bytes | None) -> None:
    rlp("agent", "build", "asks", "--no-describe", "-o", "a.rlb")
    data = Path("a.rlb").read_bytes()
    bad = data[:-512] if change is None else data + change
    Path("a.rlb").write_bytes(bad)
    done = rlp("agent", "sign", "a.rlb", "--dev-key")
    assert done.code == 4
    assert Path("a.rlb").read_bytes() == bad
    assert rlp("agent", "sign", "absent.rlb", "--dev-key").code == 7


def test_a_bundle_that_claims_another_name_is_not_signed(rlp: Rlp, folder: Path) -> None:
    from dataclasses import replace

    from runloop.authoring.build import draft

    made = draft(folder)
    lying = replace(made, manifest=replace(made.manifest, name="mailer"))
    Path("a.rlb").write_bytes(lying.package())
    done = rlp("agent", "sign", "a.rlb", "--dev-key")
    assert done.code == 2 and "claims mailer 0.1.0 and holds asks 0.1.0" in done.err


def test_a_folder_with_mistakes_is_not_built(rlp: Rlp, folder: Path) -> None:
    write(folder, "policy.caps", "[capabilities]\nnope = 1\n")
    (folder / "README.md").unlink()
    done = rlp("agent", "build", "asks", "--no-describe")
    assert done.code == 2
    assert "README.md: the file is missing" in done.err and "policy.caps:2:" in done.err
    assert not Path("asks-0.1.0.rlb").exists()


# --- test -----------------------------------------------------------------------------------------


def passed(**ports: Any) -> dict[str, Any]:
    return {"ok": True, "ports": ports, "fuel": 7, "calls": 1, "ms": 1.5, "denied": [], "unscripted": []}


CASE = """
[[case]]
name = "one"
with = { text = "todo: x" }
expect = { ports = { out = [{ todos = ["x"] }] } }
"""


def test_a_case_is_shown_with_both_verdicts_and_its_figures(
    rlp: Rlp, folder: Path, daemon: DaemonTwin
) -> None:
    write(folder, "tests/cases.toml", CASE)
    asked = tries(daemon, passed(out=[{"todos": ["x"]}]))
    done = rlp("agent", "test", "asks")
    assert done.code == 0
    assert done.out.splitlines() == [
        "unit tests: ok",
        "case  fake  sandbox  fuel  calls  ms",
        "one   ok    ok       7     1      1.5",
    ]
    assert asked[0]["cases"][0]["with"] == {"text": "todo: x"}
    assert "expect" not in asked[0]["cases"][0]


def test_a_case_that_fails_in_the_sandbox_only_says_what_the_gate_refused(
    rlp: Rlp, folder: Path, daemon: DaemonTwin
) -> None:
    write(folder, "tests/cases.toml", CASE)
    denied = [{"op": "kb.search", "code": "cap.denied", "message": "no right"}]
    tries(
        daemon,
        {
            "ok": False,
            "code": "asks.no",
            "message": "why",
            "fuel": 1,
            "calls": 1,
            "ms": 1.0,
            "denied": denied,
        },
    )
    done = rlp("agent", "test", "asks")
    assert done.code == 1
    assert "one   ok    FAILED" in done.out
    assert "one (sandbox): it failed with asks.no: why" in done.out
    assert "one (sandbox): the gate refused kb.search: cap.denied: no right" in done.out


def test_the_whole_report_is_one_object(rlp: Rlp, folder: Path, daemon: DaemonTwin) -> None:
    write(folder, "tests/cases.toml", CASE)
    tries(daemon, passed(out=[{"todos": []}]))
    done = rlp("agent", "test", "asks", "--json")
    report = json.loads(done.out)
    assert done.code == 1 and report["ok"] is False
    assert report["unit"]["ok"] is True
    (case,) = report["cases"]
    assert case["fake"] == {"ok": True, "differences": []}
    assert case["sandbox"]["differences"] == ["ports.out[0].todos has 0 items, not 1: []"]
    assert case["sandbox"]["fuel"] == 7


def test_a_failing_unit_test_fails_the_command_and_is_shown(
    rlp: Rlp, folder: Path, daemon: DaemonTwin
) -> None:
    write(folder, "tests/cases.toml", CASE)
    change(folder, "tests/test_agent.py", '"found 2 requests"', '"found 3 requests"')
    tries(daemon, passed(out=[{"todos": ["x"]}]))
    done = rlp("agent", "test", "asks")
    assert done.code == 1
    assert done.out.startswith("unit tests: FAILED\n") and "found 3 requests" in done.out


def test_a_strangers_source_is_tried_in_the_sandbox_alone(rlp: Rlp, folder: Path, daemon: DaemonTwin) -> None:
    mark = folder.parent / "ran"
    write(folder, "tests/cases.toml", CASE)
    write(folder, "tests/test_agent.py", f"open({str(mark)!r}, 'w')\n")
    change(folder, "agent.py", "TODO = ", f"__builtins__['open']({str(mark)!r}, 'w')\nTODO = ")
    tries(daemon, passed(out=[{"todos": ["x"]}]))
    done = rlp("agent", "test", "asks", "--sandbox-only")
    assert done.code == 0 and "one   -     ok" in done.out
    assert not mark.exists()


def test_no_key_is_made_for_a_publisher_nobody_could_trust(rlp: Rlp, tmp_path: Path) -> None:
    for name in ("Bad Name", "dev", "-x"):
        done = rlp("agent", "key", str(tmp_path / "k.key"), "--", name)
        assert done.code == 2
    assert not (tmp_path / "k.key").exists()


def test_a_plugins_folder_means_its_manifest(rlp: Rlp) -> None:
    done = rlp("agent", "lint", str(EXAMPLES / "plugins" / "weather"))
    assert (done.code, "nothing to mend" in done.err) == (0, True)


def test_the_long_name_of_a_language_is_understood_as_a_slip(rlp: Rlp, tmp_path: Path) -> None:
    for meant, word in (("typescript", "ts"), ("pyhton", "python"), ("Rust", "rust")):
        done = rlp("agent", "scaffold", "x", "--lang", meant, "--dir", str(tmp_path / "x"))
        assert (done.code, f"'--lang {word}'" in done.err) == (2, True)
