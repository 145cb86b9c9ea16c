"""Agents in C: what is missing is named, what is built is the same everywhere, mistakes have a place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from wasmtime import Engine
from wasmtime import component as wc

from runloop.authoring.native import run_native
from runloop.authoring.toolchains import BuildFailed, ToolchainMissing
from runloop.authoring.toolchains import c as module
from runloop.authoring.toolchains.c import CToolchain
from runloop.authoring.wrap import WrapError
from runloop.config import shipped
from runloop.errors import UsageError

from .compiled import blocks_of_the_howto, built, built_twice, c, listing, scaffolded
from .folders import change, said, write

TOOLCHAIN = CToolchain()


def machine(patch: pytest.MonkeyPatch, *programs: str, zig: bool = False) -> None:
    """A machine with these programs and no other."""
    patch.setattr(module, "find", lambda *names: next((Path("/x", n) for n in names if n in programs), None))
    patch.setattr(module.importlib.util, "find_spec", lambda name: object() if zig else None)
    patch.setattr(module, "ask", lambda program, *_: "version 9.8.7 (x)")


@pytest.mark.requirement("I3.author.4")
@pytest.mark.parametrize("programs", [(), ("clang",), ("wasm-ld",), ("clang-19", "wasm-ld-14")])
def test_what_is_missing_is_named_with_its_packages(
    monkeypatch: pytest.MonkeyPatch, programs: tuple[str]
) -> None:
    machine(monkeypatch, *programs)
    (missing,) = TOOLCHAIN.missing()
    assert str(missing) == "clang with its linker for WebAssembly: apt-get install clang lld"
    with pytest.raises(ToolchainMissing, match="clang"):
        TOOLCHAIN.versions()


@pytest.mark.parametrize(
    ("programs", "compiler"),
    [
        (("clang", "wasm-ld", "clang-22", "wasm-ld-22"), "/x/clang"),
        (("clang-14", "wasm-ld-14", "clang-22", "wasm-ld-22"), "/x/clang-22"),
        (("clang", "clang-14", "wasm-ld-14"), "/x/clang-14"),
    ],
)
def test_a_compiler_is_taken_with_the_linker_of_its_age(
    monkeypatch: pytest.MonkeyPatch, programs: tuple[str, ...], compiler: str
) -> None:
    machine(monkeypatch, *programs, zig=True)
    tools = module._tools()
    assert isinstance(tools, module._Tools)
    assert list(map(str, tools.compiler)) == [compiler]
    assert TOOLCHAIN.versions() == {"clang": "9.8.7", "wasm-ld": "9.8.7"}


def test_the_ziglang_wheel_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, zig=True)
    assert TOOLCHAIN.missing() == []
    assert TOOLCHAIN.versions() == {"zig": "9.8.7"}


def test_without_a_compiler_for_this_machine_the_unit_tests_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scaffolded(tmp_path, "c")
    machine(monkeypatch)
    with pytest.raises(ToolchainMissing, match="a C compiler for this machine"):
        TOOLCHAIN.native_test(folder, tmp_path)


# --- sources --------------------------------------------------------------------------------------


def test_every_function_of_the_gate_is_known_by_its_host_call() -> None:
    header = (shipped("sdk/c") / "runloop_host.h").read_text()
    functions = re.findall(r"RL_MAYBE static rl_answer (rl_\w+)\([^{;]*\{(.*?)\n\}", header, re.DOTALL)
    calls = {
        name: found[1]
        for name, body in functions
        if (found := re.search(r'rl_ask(?:_with)?\(RL_TEXT\("([a-z.]+)"', body))
    }
    assert calls == module._FUNCTIONS


def test_host_calls_are_seen_in_the_source_and_not_in_tests(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    text = (
        'rl_answer f(void) { rl_kb_why(RL_TEXT("x")); return rl_ask(RL_TEXT("mail.send"), RL_TEXT("{}")); }\n'
    )
    write(folder, "more.h", text)
    write(folder, "tests/more.h", text)
    assert {(use.op, use.file) for use in TOOLCHAIN.uses(folder)} == {
        ("log.write", "agent.c"),
        ("kb.why", "more.h"),
        ("mail.send", "more.h"),
    }


def test_a_header_of_a_library_that_is_not_there_is_found_without_a_compiler(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    write(folder, "more.h", "#pragma once\n#include <stdint.h>\n# include <stdio.h>\n")
    assert said(folder) == ["more.h:3: <stdio.h> belongs to a C library, and the sandbox has none"]


def test_a_source_that_is_not_there_is_found(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    (folder / "agent.c").rename(folder / "other.c")
    assert "agent.c: there is no agent.c" in said(folder)
    with pytest.raises(BuildFailed, match=r"no agent\.c"):
        TOOLCHAIN.build(folder, tmp_path)


@pytest.mark.parametrize("source", ['"../x.c"', '"/etc/x.c"', '"-x.c"', '"x.py"', "3", '"a/../../x.c"'])
def test_a_source_outside_the_folder_is_refused(tmp_path: Path, source: str) -> None:
    folder = scaffolded(tmp_path, "c")
    change(folder, "build.toml", 'source = "agent.c"', f"source = {source}")
    assert any("is no C file of this folder" in line for line in said(folder))
    with pytest.raises(UsageError, match="is no C file of this folder"):
        TOOLCHAIN.build(folder, tmp_path)


# --- building -------------------------------------------------------------------------------------


@c
def test_one_source_gives_the_same_bytes_from_two_folders_and_two_environments(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    change(folder, "agent.c", "measured a text", 'measured " __FILE__ "')
    before = listing(folder)
    assert len(built_twice(TOOLCHAIN, folder, tmp_path)) == 1
    assert listing(folder) == before, "the build wrote beside the source"


@c
def test_the_compilers_words_name_the_authors_file_and_no_place_of_this_machine(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    change(folder, "agent.c", "words += here, sentences++;", "words += her, sentences++;")
    with pytest.raises(BuildFailed) as caught:
        built(TOOLCHAIN, folder, tmp_path / "work")
    assert re.search(
        r"(?m)^agent\.c:\d+:\d+: error: use of undeclared identifier 'her'", caught.value.message
    )
    assert str(tmp_path) not in caught.value.message


@c
def test_the_day_of_the_build_cannot_get_into_the_bytes(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    change(folder, "agent.c", "measured a text", 'measured " __DATE__ "')
    with pytest.raises(BuildFailed, match=r"__DATE__|-Wdate-time|-Werror"):
        built(TOOLCHAIN, folder, tmp_path / "work")


@c
def test_a_function_that_is_nowhere_is_named_by_the_linker(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    text = (folder / "agent.c").read_text()
    write(
        folder,
        "agent.c",
        "extern int puts_(const char *);\n" + text.replace("int in_word = 0;", 'int in_word = puts_("x");'),
    )
    with pytest.raises(BuildFailed, match="undefined symbol: puts_") as caught:
        built(TOOLCHAIN, folder, tmp_path / "work")
    assert str(tmp_path) not in caught.value.message


@c
def test_a_foreign_import_is_refused(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    foreign = '__attribute__((import_module("env"), import_name("escape"))) extern int escape(void);\n'
    text = (folder / "agent.c").read_text()
    write(folder, "agent.c", foreign + text.replace("int in_word = 0;", "int in_word = escape();"))
    with pytest.raises(WrapError, match="imports 'env' 'escape'"):
        built(TOOLCHAIN, folder, tmp_path / "work")


def test_unit_tests_are_compiled_and_run(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    before = listing(folder)
    done = run_native(folder, TOOLCHAIN, [], os.environ)
    assert done is not None and done.ok, done and done.output
    assert listing(folder) == before
    change(folder, "agent.c", "words += here", "words += 1 + here")
    failed = run_native(folder, TOOLCHAIN, [], os.environ)
    assert failed is not None and not failed.ok
    assert "words of another script: got" in failed.output


def test_unit_tests_that_do_not_compile_say_why(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    change(folder, "tests/test_agent.c", "int main(void) {", "int main(void) { nothing();")
    with pytest.raises(BuildFailed, match=r"tests/test_agent\.c:\d+"):
        TOOLCHAIN.native_test(folder, tmp_path)


def test_undefined_behaviour_in_a_unit_test_ends_it(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    change(folder, "agent.c", "int64_t words = 0,", "int64_t words = INT64_MAX,")
    failed = run_native(folder, TOOLCHAIN, [], os.environ)
    assert failed is not None and not failed.ok


def test_without_a_test_there_is_nothing_to_run(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    (folder / "tests" / "test_agent.c").unlink()
    assert TOOLCHAIN.native_test(folder, tmp_path) is None


@c
def test_what_is_built_is_a_component_that_imports_the_host_alone(tmp_path: Path) -> None:
    engine = Engine()
    component = wc.Component(engine, built(TOOLCHAIN, scaffolded(tmp_path, "c"), tmp_path / "work"))
    assert list(component.type.imports(engine)) == ["runloop:agent/host@0.1.0"]
    assert list(component.type.exports(engine)) == ["handle"]


@c
def test_what_the_howto_shows_is_an_agent_and_its_test(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "c")
    agent, test = blocks_of_the_howto("c")
    write(folder, "agent.c", agent)
    head = '#include "../agent.c"\n#include "runloop_test.h"\nint main(void) {\n'
    write(folder, "tests/test_agent.c", f"{head}{test}return rl_run_cases();\n}}\n")
    built(TOOLCHAIN, folder, tmp_path / "work")
    done = run_native(folder, TOOLCHAIN, [], os.environ)
    assert done is not None and done.ok, done and done.output
