"""JavaScript and TypeScript as languages of agents: what is found in source, what is built of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runloop.authoring.cases import parse_cases
from runloop.authoring.scaffold import scaffold
from runloop.authoring.toolchains import BuildFailed, toolchain
from runloop.authoring.toolchains.compilers import find
from runloop.authoring.toolchains.javascript import HOST_CALLS, JavaScriptToolchain
from runloop.authoring.toolchains.typescript import TypeScriptToolchain, line_list
from runloop.ops import OPS

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "agents" / "topic_digest_ts"
MANIFEST = 'name = "a"\nversion = "0.1.0"\nlanguage = "javascript"\nentrypoint = "agent.js"\n'

needs_node = pytest.mark.skipif(find("node") is None, reason="there is no node (apt-get install nodejs)")
needs_tsc = pytest.mark.skipif(
    find("tsc") is None or find("node") is None,
    reason="there is no tsc (apt-get install node-typescript, or npm install --global typescript)",
)


def folder(place: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, text in {"manifest.toml": MANIFEST, **files}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return place


def found(place: Path, language: str = "js") -> list[str]:
    return [f"{one.place} {one.severity} {one.what}" for one in toolchain(language).check(place)]


def native(made: JavaScriptToolchain, place: Path, work: Path) -> subprocess.CompletedProcess[str]:
    argv = made.native_test(place, work)
    assert argv is not None
    cases = [case.to_json() for case in parse_cases((place / "tests" / "cases.toml").read_bytes())]
    (work / "cases.json").write_text(json.dumps(cases))
    env = {"PATH": os.environ["PATH"], "RUNLOOP_CASES": str(work / "cases.json")}
    return subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, check=False)


# --- JavaScript -----------------------------------------------------------------------------------


def test_every_module_but_tests_and_leftovers_is_bundled_byte_for_byte(tmp_path: Path) -> None:
    source = b"\xef\xbb\xbfexports.handle = () => ({});\r\n"
    place = folder(
        tmp_path / "a",
        {
            "agent.js": source,
            "lib/x.js": "1;",
            "tests/a.test.js": "2;",
            "node_modules/p/index.js": "3;",
            "build/agent.js": "4;",
            "notes.txt": "5",
            "types.d.ts": "6",
        },
    )
    assert JavaScriptToolchain().build(place, tmp_path) == {"agent.js": source, "lib/x.js": b"1;"}


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ('import { handler } from "runloop";', "agent.js:2 error import and export belong to ES modules"),
        ('import "./x.js";', "agent.js:2 error import and export"),
        ("export const a = 1;", "agent.js:2 error import and export"),
        ('const fs = require("fs");', "agent.js:2 error there is no module 'fs'"),
        ("require('./nothing')", "agent.js:2 error there is no module './nothing'"),
        ('require("../../up")', "agent.js:2 error there is no module '../../up'"),
        ("const x = await f();", "agent.js:2 warning await: nothing settles a promise"),
    ],
)
def test_what_the_sandbox_cannot_load_is_found_with_its_line(
    tmp_path: Path, source: str, finding: str
) -> None:
    place = folder(tmp_path / "a", {"agent.js": f"'use strict';\n{source}\n"})
    assert [line[: len(finding)] for line in found(place)] == [finding]
    if " error " in finding:
        with pytest.raises(BuildFailed, match=r"agent\.js:2"):
            JavaScriptToolchain().build(place, tmp_path)


def test_what_is_right_has_no_findings(tmp_path: Path) -> None:
    source = (
        'const { handler } = require("runloop");\nconst a = require("./lib/x"), b = require("./lib");\n'
        "// import things with require('fs')\n * await nothing\nexports.handle = handler(() => ({}));\n"
    )
    files = {"agent.js": source, "lib/x.js": "const up = require('../agent.js');", "lib/index.js": ""}
    assert found(folder(tmp_path / "a", files)) == []


def test_an_entrypoint_that_comes_from_nowhere_and_bytes_that_are_no_text_are_found(tmp_path: Path) -> None:
    place = folder(tmp_path / "a", {"main.js": b"1;\n\xff"})
    assert found(place) == [
        "main.js:2 error not UTF-8",
        "manifest.toml error the entrypoint 'agent.js' comes from no file of this folder",
    ]


def test_host_calls_are_seen_in_whatever_form_they_are_made(tmp_path: Path) -> None:
    source = """const at = Date.now() + new Date().getTime();
host.kbSearch("x"); host.call("kb.why", { ref: "x" });
console.log(Math.random(), crypto.randomUUID());
for (const part of host.completeStream("x")) host.progress(part);
page = host.fetch("https://x"); fetch("no");
new Date(5); Math.log(2); other.log("x");
"""
    place = folder(tmp_path / "a", {"agent.js": source, "tests/t.test.js": "host.sendMail({})"})
    assert [(use.line, use.op) for use in JavaScriptToolchain().uses(place)] == [
        (1, "time.now"),
        (2, "kb.search"),
        (2, "kb.why"),
        (3, "log.write"),
        (3, "random.bytes"),
        (4, "model.complete"),
        (4, "msg.next"),
        (4, "progress"),
        (5, "http.fetch"),
    ]


def test_every_host_call_has_a_form_that_is_seen() -> None:
    assert set(HOST_CALLS) == set(OPS)


def test_a_folder_without_tests_has_none_and_without_node_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path / "a", {"agent.js": "1;"})
    assert JavaScriptToolchain().native_test(place, tmp_path) is None
    folder(place, {"tests/a.test.js": "1;"})
    monkeypatch.setattr("runloop.authoring.toolchains.javascript.find", lambda *_: None)
    argv = JavaScriptToolchain().native_test(place, tmp_path)
    assert argv is not None
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "apt-get install nodejs" in done.stdout


@needs_node
def test_the_javascript_template_passes_its_own_tests(tmp_path: Path) -> None:
    scaffold("wish_list", "js", tmp_path / "wish_list")
    made = JavaScriptToolchain()
    assert made.check(tmp_path / "wish_list") == []
    done = native(made, tmp_path / "wish_list", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "# pass 6" in done.stdout, "two unit tests and four cases"


@needs_node
def test_a_case_that_fails_fails_the_run_and_an_unscripted_call_is_named(tmp_path: Path) -> None:
    place = folder(
        tmp_path / "a",
        {
            "agent.js": 'exports.handle = (task, host) => ({ out: host.kbSearch("x").length });',
            "tests/a.test.js": 'const t = require("runloop/testing");\n'
            't.testCases(t.loadAgent(require("node:path").join(__dirname, "..")));',
            "tests/cases.toml": '[[case]]\nname = "right"\nexpect = {ports = {out = [0]}}\n'
            'host = {"kb.search" = {items = []}}\n'
            '[[case]]\nname = "wrong"\nexpect = {ports = {out = [1]}}\nhost = {"kb.search" = {items = []}}\n'
            '[[case]]\nname = "unscripted"\nexpect = {error = "test.unscripted"}\n',
        },
    )
    (tmp_path / "w").mkdir()
    done = native(JavaScriptToolchain(), place, tmp_path / "w")
    assert done.returncode == 1
    assert "ok 1 - right" in done.stdout
    assert "not ok 2 - wrong" in done.stdout
    assert "not ok 3 - unscripted" in done.stdout
    assert "the agent called kb.search, which the test gives no answer for" in done.stdout


@needs_node
def test_the_vectors_of_the_abi_hold_in_node_as_in_the_sandbox() -> None:
    sdk = Path(__file__).parents[3] / "sdk" / "js"
    node = find("node")
    assert node is not None
    done = subprocess.run(
        [str(node), "--test", str(sdk / "probe" / "abi.test.js")],
        env={"PATH": os.environ["PATH"], "NODE_PATH": str(sdk)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:]
    assert "# fail 0" in done.stdout


# --- TypeScript -----------------------------------------------------------------------------------


def test_what_is_missing_for_typescript_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("runloop.authoring.toolchains.typescript.find", lambda *_: None)
    lacking = TypeScriptToolchain().missing()
    assert [item.install for item in lacking] == ["apt-get install nodejs", "apt-get install node-typescript"]
    with pytest.raises(BuildFailed, match="no tsc"):
        TypeScriptToolchain().build(folder(tmp_path / "a", {"agent.ts": "export {};"}), tmp_path)


def test_the_lines_of_a_source_map_become_steps() -> None:
    # Lines 1, 1, 5, (nowhere), 3: segments are [column, source, line, column], each relative to the last.
    assert line_list("AAAA,CACA;AADA;AAIA;;AAFA") == "1,0,4,0,-2"
    assert line_list("") == "0"


def test_a_file_in_both_languages_is_found(tmp_path: Path) -> None:
    place = folder(tmp_path / "a", {"agent.ts": "", "agent.js": ""})
    assert found(place, "ts") == ["agent.js error agent.ts is compiled to this very file"]


@needs_tsc
def test_the_same_source_gives_the_same_bytes_in_another_folder_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TypeScriptToolchain()
    here, there = tmp_path / "here", tmp_path / "some where" / "else" / "x"
    shutil.copytree(EXAMPLE, here)
    shutil.copytree(EXAMPLE, there)
    (there / "tsconfig.json").write_text('{"compilerOptions": {"target": "es5", "removeComments": true}}')
    (there / "node_modules" / "p").mkdir(parents=True)
    (there / "node_modules" / "p" / "index.ts").write_text("this is no TypeScript")
    for file in there.rglob("*"):
        os.utime(file, (1, 1))
    works = [tmp_path / "w1", tmp_path / "deep" / "er" / "w2"]
    for work in works:
        work.mkdir(parents=True)
    first = made.build(here, works[0])
    for name, value in (("TZ", "Asia/Tokyo"), ("LANG", "tr_TR.UTF-8"), ("LC_ALL", "C"), ("HOME", "/nowhere"),
                        ("NODE_OPTIONS", "--throw-deprecation"), ("TSC_WATCHFILE", "x")):  # fmt: skip
        monkeypatch.setenv(name, value)
    previous = os.umask(0o077)
    try:
        assert made.build(there, works[1]) == first
    finally:
        os.umask(previous)
    assert set(first) == {"agent.js", "markdown.js"}
    assert all(str(tmp_path).encode() not in data for data in first.values())


@needs_tsc
def test_the_compilers_complaints_name_the_authors_file_and_line(tmp_path: Path) -> None:
    source = (
        'import { handler } from "runloop";\nimport { readFileSync } from "fs";\n'
        "export const handle = handler(async () => ({ out: 1 }));\nconst n: number = 'x';\nprocess.exit();\n"
    )
    place = folder(tmp_path / "a", {"agent.ts": source, "lib/b.ts": "export const a: string = 1;\n"})
    with pytest.raises(BuildFailed) as caught:
        TypeScriptToolchain().build(place, tmp_path)
    lines = caught.value.message.splitlines()
    assert [line.partition(": TS")[0] for line in lines] == [
        "agent.ts:2",
        "agent.ts:3",
        "agent.ts:4",
        "agent.ts:5",
        "lib/b.ts:1",
    ]
    assert str(tmp_path) not in caught.value.message


@needs_tsc
def test_a_package_whose_types_are_declared_is_still_not_in_the_sandbox(tmp_path: Path) -> None:
    files = {
        "agent.ts": 'import { pad } from "left-pad";\nexport const handle = () => ({ out: pad("x") });\n',
        "left-pad.d.ts": 'declare module "left-pad" {\n  export function pad(text: string): string;\n}\n',
    }
    with pytest.raises(BuildFailed, match=r"agent\.js: there is no module 'left-pad' in the sandbox"):
        TypeScriptToolchain().build(folder(tmp_path / "a", files), tmp_path)


@needs_tsc
def test_a_build_writes_nothing_into_the_folder_and_says_which_compiler_it_was(tmp_path: Path) -> None:
    place = folder(tmp_path / "a", {"agent.ts": "export const handle = () => ({});\n"})
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    work = tmp_path / "w"
    work.mkdir()
    made = TypeScriptToolchain()
    assert made.missing() == []
    assert set(made.build(place, work)) == {"agent.js"}
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    assert made.versions()["tsc"][0].isdigit()


@needs_tsc
@pytest.mark.parametrize("which", ["template", "example"])
def test_the_template_and_the_example_pass_their_own_tests(tmp_path: Path, which: str) -> None:
    place = tmp_path / "wish_list"
    if which == "template":
        scaffold("wish_list", "ts", place)
    else:
        shutil.copytree(EXAMPLE, place)
    made = TypeScriptToolchain()
    assert made.check(place) == []
    (tmp_path / "w").mkdir()
    done = native(made, place, tmp_path / "w")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"# pass {6 if which == 'template' else 5}" in done.stdout


def test_the_manifest_of_the_example_asks_for_what_its_source_uses() -> None:
    import tomllib

    manifest: dict[str, Any] = tomllib.loads((EXAMPLE / "manifest.toml").read_text())
    assert set(manifest["ops"]) == {use.op for use in TypeScriptToolchain().uses(EXAMPLE)}
