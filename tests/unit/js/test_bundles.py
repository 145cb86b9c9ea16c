"""JavaScript in manifests and in the registry: which entrypoints there are, which files become modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.bundle.manifest import ManifestError, parse_manifest
from runloop.errors import NotFoundError
from runloopd.runtime.registry import Registry

HEAD = 'name = "a"\nversion = "1.0.0"\nlanguage = "javascript"\n'


@pytest.mark.parametrize(
    ("line", "entrypoint"),
    [
        ("", "agent.js"),
        ('entrypoint = "src/main.js"', "src/main.js"),
        ('entrypoint = "a.b-c_d.js"', "a.b-c_d.js"),
    ],
)
def test_the_entrypoint_of_javascript_is_a_file(line: str, entrypoint: str) -> None:
    found = parse_manifest(HEAD + line)
    assert (found.language, found.entrypoint) == ("javascript", entrypoint)


@pytest.mark.parametrize(
    "entrypoint",
    ["agent:handle", "agent.ts", "agent.wasm", "../agent.js", "/agent.js", "a//b.js", ".js", "a\\b.js", ""],
)
def test_what_is_no_javascript_file_is_no_entrypoint(entrypoint: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(f"{HEAD}entrypoint = {entrypoint!r}")
    (finding,) = caught.value.findings
    assert finding.line == 4
    assert "as 'agent.js'" in finding.fix


def test_a_language_there_is_not_is_said_with_those_there_are() -> None:
    with pytest.raises(ManifestError, match="use python, javascript, component"):
        parse_manifest(HEAD.replace("javascript", "typescript"))


def bundle(place: Path, **files: str) -> Path:
    folder = place / "a"
    plain = {"policy.caps": "[capabilities]\n", "tools.json": '{"version": 1, "tools": []}'}
    for name, text in {"manifest.toml": HEAD, **plain, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_modules_are_called_by_their_paths_and_run_on_the_runner_of_their_language(tmp_path: Path) -> None:
    files = {
        "agent.js": "1;",
        "lib/index.js": "2;",
        "tests/a.test.js": "3;",
        "x.py": "4",
        "agent.js.map": "5",
    }
    bundle(tmp_path, **files)
    runners = {"python": "a" * 64, "javascript": "b" * 64}
    agent = Registry([tmp_path], pins={}, runners=runners, allow_unsigned=True).resolve("agent:a")
    assert agent.modules == {"agent.js": "1;", "lib/index.js": "2;"}
    assert (agent.component_path, agent.pin.component_digest) == (None, "b" * 64)
    assert agent.pin.language == "javascript"


def test_an_entrypoint_that_is_not_in_the_bundle_is_said_with_the_file_to_add(tmp_path: Path) -> None:
    bundle(tmp_path, **{"main.js": "1;"})
    with pytest.raises(ManifestError, match=r"add agent\.js"):
        Registry([tmp_path], pins={}, runners={"javascript": "b" * 64}, allow_unsigned=True).resolve(
            "agent:a"
        )


def test_a_build_without_the_runner_says_so(tmp_path: Path) -> None:
    bundle(tmp_path, **{"agent.js": "1;"})
    with pytest.raises(NotFoundError, match="no runner for javascript"):
        Registry([tmp_path], pins={}, runners={"python": "a" * 64}, allow_unsigned=True).resolve("agent:a")
