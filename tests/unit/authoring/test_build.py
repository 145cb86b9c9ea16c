"""From a folder to the same bytes, everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runloop.authoring.build import Draft, draft
from runloop.authoring.findings import LintError
from runloop.authoring.toolchains import BuildFailed, Missing, ToolchainMissing
from runloop.authoring.toolchains.python import PythonToolchain
from runloop.bundle.archive import unpack
from runloop.bundle.statement import read_statements
from runloop.errors import FailedError, RunloopError

from .folders import change, python_agent, write

BUILD = """
import sys
from pathlib import Path
from runloop.authoring.build import draft
sys.stdout.buffer.write(draft(Path(sys.argv[1])).package())
"""


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return python_agent(tmp_path)


def tool(**more: Any) -> dict[str, Any]:
    schemas = {"input_schema": {"type": "object"}, "result_schema": {}}
    return {"id": "asks.requests", "description": "Finds them.", **schemas, **more}


def described(*tools: dict[str, Any], inputs: Any = None) -> dict[str, Any]:
    return {"inputs": inputs, "tools": list(tools)}


def tools_of(made: Draft) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(made.files["tools.json"])["tools"]
    return found


def test_a_bundle_holds_what_was_declared_the_code_and_the_inventory(agent: Path) -> None:
    write(agent, "schemas/out.json", "{}")
    write(agent, "notes.txt", "mine")
    package = unpack(draft(agent).package())
    assert list(package.files) == [
        *("LICENSE", "README.md", "agent.py", "manifest.toml", "policy.caps", "sbom.cdx.json"),
        *("schemas/out.json", "tools.json"),
    ]
    assert package.files["agent.py"] == (agent / "agent.py").read_bytes()
    claim = read_statements(package.envelopes)
    assert (claim.name, claim.version, claim.bundle_digest) == ("asks", "0.1.0", package.bundle_digest)
    assert all(envelope.signature is None for envelope in package.envelopes)


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_two_folders_and_two_environments_give_the_same_bytes(tmp_path: Path, seed: str) -> None:
    first, second = tmp_path / "a", tmp_path / "b" / "much" / "deeper"
    one = python_agent(first)
    other = python_agent(second)
    for number, path in enumerate(sorted(other.rglob("*"))):
        path.chmod(0o700)
        os.utime(path, (10_000 * number, 10_000 * number))
    write(other, ".git/HEAD", "ref")
    made = []
    for folder, env in (
        (one, {"TZ": "UTC", "LANG": "C", "PYTHONHASHSEED": "0"}),
        (
            other,
            {
                "TZ": "Pacific/Auckland",
                "LANG": "de_DE.UTF-8",
                "PYTHONHASHSEED": seed,
                "SOURCE_DATE_EPOCH": "7",
            },
        ),
    ):
        old = os.umask(0o077 if folder is other else 0o022)
        try:
            done = subprocess.run(
                [sys.executable, "-B", "-c", BUILD, folder],
                env={"PATH": os.environ["PATH"], "HOME": str(folder), **env},
                cwd=folder,
                capture_output=True,
                check=True,
            )
        finally:
            os.umask(old)
        made.append(done.stdout)
    assert made[0] == made[1]


def test_another_source_is_another_bundle_and_another_provenance(agent: Path) -> None:
    before = draft(agent)
    change(agent, "tests/cases.toml", "no text at all", "no text")
    after = draft(agent)
    assert before.files == after.files  # tests are no part of the bundle…
    assert before.facts.source_digest != after.facts.source_digest  # …and part of what it was built from


def test_nothing_is_written_into_the_folder(agent: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in agent.rglob("*")}
    draft(agent).package()
    assert {path: path.stat().st_mtime_ns for path in agent.rglob("*")} == before


def test_a_folder_with_mistakes_is_not_built_and_every_mistake_is_told(agent: Path) -> None:
    write(agent, "policy.caps", "[capabilities]\nnope = 1\n")
    write(agent, "agent.py", "import requests\n")
    with pytest.raises(LintError) as caught:
        draft(agent)
    assert {finding.file for finding in caught.value.findings} >= {"policy.caps", "agent.py"}


def test_warnings_do_not_stop_a_build(agent: Path) -> None:
    write(agent, "policy.caps", "[capabilities]\ntime = true\n")
    assert [warning.severity for warning in draft(agent).warnings] == ["warning"]


def test_no_file_that_no_bundle_may_hold_gets_in(agent: Path) -> None:
    write(agent, "lib.py", "#!/bin/sh\n")
    with pytest.raises(RunloopError, match="script"):
        draft(agent).package()


# --- tools ----------------------------------------------------------------------------------------


def test_tools_are_completed_from_what_the_agent_says(agent: Path) -> None:
    made = draft(agent).completed(described(tool()))
    assert tools_of(made) == [{**tool(), "transport": {"kind": "wasm", "tool": "asks.requests"}}]
    assert unpack(made.package()).files["tools.json"] == made.files["tools.json"]


def test_what_an_author_wrote_about_a_tool_is_kept_and_its_schema_comes_from_the_source(agent: Path) -> None:
    own = {
        **tool(description="old", input_schema={"type": "string"}),
        "transport": {"kind": "wasm", "tool": "asks.requests"},
        "tags": ["mine"],
        "requires_confirmation": True,
    }
    write(agent, "tools.json", json.dumps({"version": 1, "tools": [own]}))
    (made,) = tools_of(draft(agent).completed(described(tool())))
    assert made["tags"] == ["mine"] and made["requires_confirmation"] is True
    assert (made["description"], made["input_schema"]) == ("Finds them.", {"type": "object"})


def test_an_agent_without_tools_keeps_its_file_byte_for_byte(agent: Path) -> None:
    text = '{ "version":1,"tools" : [] }\n'
    write(agent, "tools.json", text)
    assert draft(agent).completed(described()).files["tools.json"] == text.encode()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"tools": None},
        {"tools": [1]},
        {"tools": [{}]},
        {"tools": [{"id": 3}]},
        {"tools": [tool(), tool()]},
        {"tools": [tool(id="no_family")]},
        {"tools": [tool(description="")]},
        {"tools": [tool(input_schema={"type": "objct"})]},
        {"tools": [tool(input_schema={"pattern": "(a+)+$"})]},
        {"tools": [tool(input_schema="x")]},
        {"tools": [tool(id=f"a.b{n}") for n in range(1_000)]},
        {"tools": [], "inputs": {"properties": {"nope": {}}}},
    ],
)
def test_a_description_that_is_not_as_it_should_be_ends_the_build(agent: Path, answer: Any) -> None:
    with pytest.raises(RunloopError):
        draft(agent).completed(answer)


def test_a_guest_cannot_write_more_into_its_tools_than_their_schemas(agent: Path) -> None:
    sly = tool(capabilities=["mail"], secrets=["runloop/a/b"], transport={"kind": "http", "url": "https://x"})
    (made,) = tools_of(draft(agent).completed(described(sly)))
    assert set(made) == {"id", "description", "input_schema", "result_schema", "transport"}
    assert made["transport"] == {"kind": "wasm", "tool": "asks.requests"}


def test_a_tool_in_the_file_that_the_source_does_not_offer_is_told(agent: Path) -> None:
    own = {**tool(id="asks.gone"), "transport": {"kind": "wasm", "tool": "asks.gone"}}
    write(agent, "tools.json", json.dumps({"version": 1, "tools": [own]}))
    with pytest.raises(BuildFailed, match=r"asks\.gone, and the source offers no such tool"):
        draft(agent).completed(described(tool()))


# --- what a toolchain may do ----------------------------------------------------------------------


def test_a_missing_tool_is_named_with_the_line_that_installs_it(
    agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = [
        Missing(what="rustc", install="apt-get install rustc"),
        Missing(what="lld", install="apt-get install lld"),
    ]
    monkeypatch.setattr(PythonToolchain, "missing", lambda self: lacks)
    with pytest.raises(ToolchainMissing, match="needs rustc; lld") as caught:
        draft(agent)
    assert caught.value.hint == "apt-get install rustc && apt-get install lld"


@pytest.mark.parametrize("name", ["README.md", "policy.caps", "tools.json", "sbom.cdx.json"])
def test_a_build_cannot_replace_what_the_author_declared(
    agent: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(PythonToolchain, "build", lambda *_: {name: b"other"})
    with pytest.raises(BuildFailed, match=f"the build makes {name}"):
        draft(agent)


def test_a_folder_that_changes_while_it_is_built_is_not_built(
    agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: Any, folder: Path, work: Path) -> dict[str, bytes]:
        write(folder, "policy.caps", "[capabilities]\nmail = true\n")
        return {}

    monkeypatch.setattr(PythonToolchain, "build", build)
    with pytest.raises(FailedError, match="was changed while it was built"):
        draft(agent)
