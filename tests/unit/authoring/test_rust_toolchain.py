"""Agents in Rust: what is missing is named, what is built is the same everywhere, mistakes have a place."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from wasmtime import Engine
from wasmtime import component as wc

from runloop.authoring.native import run_native
from runloop.authoring.toolchains import BuildFailed, ToolchainMissing
from runloop.authoring.toolchains import rust as module
from runloop.authoring.toolchains.rust import RustToolchain
from runloop.config import shipped

from .compiled import blocks_of_the_howto, built, built_twice, listing, rust, scaffolded
from .folders import change, said, write

TOOLCHAIN = RustToolchain()


class Machine:
    """A machine with the programs a test puts there, and no other."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.place = place
        patch.setattr(module, "find", self._find)
        patch.setattr(module, "DEBIANS_OWN", place / "usr" / "rustc")

    def _find(self, *names: str) -> Path | None:
        return next(
            (self.place / "bin" / name for name in names if (self.place / "bin" / name).is_file()), None
        )

    def has(self, name: str, says: str = "") -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{says}\n")
        path.chmod(0o755)
        return path

    def has_rustc(self, place: str, version: str, *, sysroot: str, target: bool) -> None:
        root = self.place / sysroot
        self.has(
            place, f'case "$1" in --print) echo {root} ;; *) echo "rustc {version} (abc 2024-01-01)" ;; esac'
        )
        self.has(f"{sysroot}/bin/rustc", f'echo "rustc {version} (abc 2024-01-01)"')
        if target:
            self.has(f"{sysroot}/lib/rustlib/wasm32-unknown-unknown/lib/libstd-1234.rlib")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def lacks() -> list[str]:
    return [f"{item.what} <- {item.install}" for item in TOOLCHAIN.missing()]


def test_without_any_rustc_one_line_brings_everything(machine: Machine) -> None:
    assert lacks() == [
        "rustc and cargo with the target wasm32-unknown-unknown <- "
        "apt-get install rustc cargo libstd-rust-dev-wasm32 lld"
    ]
    with pytest.raises(ToolchainMissing) as caught:
        TOOLCHAIN.build(machine.place, machine.place)
    assert caught.value.hint == "apt-get install rustc cargo libstd-rust-dev-wasm32 lld"


def test_debians_rustc_without_its_target_names_the_package(machine: Machine) -> None:
    machine.has_rustc("bin/rustc", "1.63.0", sysroot="usr", target=False)
    assert lacks() == [
        "the target wasm32-unknown-unknown of rustc 1.63.0 <- apt-get install libstd-rust-dev-wasm32"
    ]


def test_rustups_rustc_without_the_target_names_rustups_way(machine: Machine) -> None:
    machine.has_rustc("bin/rustc", "1.95.0", sysroot="home/.rustup/toolchains/stable", target=False)
    assert lacks() == [
        "the target wasm32-unknown-unknown of rustc 1.95.0 <- rustup target add wasm32-unknown-unknown"
    ]


def test_a_rustc_that_is_too_old_is_named(machine: Machine) -> None:
    machine.has_rustc("bin/rustc", "1.48.0", sysroot="usr", target=True)
    assert lacks()[0].startswith("rustc 1.63 or later <- ")


def test_cargo_and_the_linker_are_named_each_by_itself(machine: Machine) -> None:
    machine.has_rustc("bin/rustc", "1.63.0", sysroot="usr", target=True)
    assert lacks() == ["cargo <- apt-get install cargo"]
    machine.has("bin/cargo")
    assert lacks() == ["a linker for WebAssembly <- apt-get install lld"]
    machine.has("bin/wasm-ld-14", 'echo "Debian LLD 14.0.6"')
    assert lacks() == []
    assert TOOLCHAIN.versions() == {"rustc": "1.63.0", "wasm-ld": "14.0.6"}


def test_rustups_linker_will_do_and_is_part_of_its_rustc(machine: Machine) -> None:
    root = "home/.rustup/toolchains/stable"
    machine.has_rustc("bin/rustc", "1.95.0", sysroot=root, target=True)
    machine.has(f"{root}/bin/cargo")
    machine.has(f"{root}/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld")
    assert lacks() == []
    assert TOOLCHAIN.versions() == {"rustc": "1.95.0"}


def test_debians_rustc_serves_when_the_first_on_the_path_lacks_the_target(machine: Machine) -> None:
    machine.has_rustc("bin/rustc", "1.95.0", sysroot="home/.rustup/toolchains/stable", target=False)
    machine.has_rustc("usr/rustc", "1.63.0", sysroot="usr", target=True)
    machine.has("usr/bin/cargo")
    machine.has("bin/wasm-ld")
    assert lacks() == []
    assert TOOLCHAIN.versions()["rustc"] == "1.63.0"


def test_a_rustc_that_does_not_answer_is_as_none(machine: Machine) -> None:
    machine.has("bin/rustc", "exit 3")
    assert lacks()[0].startswith("rustc and cargo with the target")


# --- sources --------------------------------------------------------------------------------------


def test_every_method_of_the_host_is_known_by_its_host_call() -> None:
    source = (shipped("sdk/rust") / "src" / "host.rs").read_text().partition("impl Host {")[2]
    bodies = re.split(r"\n    (?=pub fn |fn )", source)
    calls = {}
    for body in bodies[1:]:
        name = re.match(r"(?:pub )?fn (\w+)", body)
        assert name
        op = re.search(r'self\s*\.call\("([a-z.]+)"', body)
        by_way_of = re.search(r"self\.(put_artifact|log_with)\(", body)
        calls[name[1]] = op[1] if op else by_way_of[1] if by_way_of else ""
    public = set(re.findall(r"\n    pub fn (\w+)", source)) - {"new", "call"}
    assert {name: calls.get(calls[name], calls[name]) for name in public} == module._METHODS


def test_host_calls_are_seen_in_the_source_and_not_in_tests_or_vendored_crates(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    text = 'fn f(host: &Host) { host.kb_search("x", 1, &[]); host.call("mail.send", 2.0.log(2.0)); }\n'
    write(folder, "src/more.rs", text)
    for place in ("vendor/x/src/lib.rs", "tests/more.rs", "target/more.rs"):
        write(folder, place, text)
    assert {(use.op, use.file) for use in TOOLCHAIN.uses(folder)} == {
        ("log.write", "src/lib.rs"),
        ("kb.search", "src/more.rs"),
        ("mail.send", "src/more.rs"),
    }


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ('["cdylib", "rlib"]', '["rlib"]', "Cargo.toml: the crate makes no WebAssembly module"),
        ("[dependencies]", '[dependencies]\nserde = "1"', "Cargo.toml: serde is not in the folder vendor"),
        ("[dependencies]", "[dependencies", "Cargo.toml: cannot be read"),
        (
            "[dependencies]",
            '[dependencies]\nx = { git = "https://x.example" }',
            "Cargo.toml: x comes from a network",
        ),
        ('runloop = "0.1"', 'runloop = { path = "/opt/sdk" }', "Cargo.toml: the SDK is taken from a place"),
    ],
)
def test_a_crate_that_cannot_be_built_is_found_without_a_compiler(
    tmp_path: Path, before: str, after: str, finding: str
) -> None:
    folder = scaffolded(tmp_path, "rust")
    change(folder, "Cargo.toml", before, after)
    assert [line.startswith(finding) for line in said(folder)] == [True], said(folder)


def test_missing_files_of_a_crate_are_found(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    (folder / "src/lib.rs").rename(folder / "src/other.rs")
    assert "src/lib.rs: there is none" in said(folder)
    (folder / "Cargo.toml").unlink()
    assert "Cargo.toml: there is none" in said(folder)


def test_what_the_target_does_not_have_is_a_warning_with_its_line(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    write(folder, "src/clock.rs", "// Instant::now is fine here\nfn f() { std::time::Instant::now(); }\n")
    assert said(folder) == ["src/clock.rs:2: Instant::now does not work in the sandbox"]


# --- building -------------------------------------------------------------------------------------


@rust
@pytest.mark.timeout(300)
def test_one_source_gives_the_same_bytes_from_two_folders_and_two_environments(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    before = listing(folder)
    assert len(built_twice(TOOLCHAIN, folder, tmp_path)) == 1
    assert listing(folder) == before, "the build wrote beside the source"


@rust
def test_the_compilers_words_name_the_authors_file_and_no_place_of_this_machine(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    change(folder, "src/lib.rs", "measure(text)?", "mesure(text)?")
    with pytest.raises(BuildFailed) as caught:
        built(TOOLCHAIN, folder, tmp_path / "work")
    words = caught.value.message
    assert "mesure" in words and "src/lib.rs:" in words
    assert str(tmp_path) not in words


@rust
def test_a_crate_from_the_folder_vendor_is_built_in(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    write(folder, "vendor/tiny/Cargo.toml", '[package]\nname = "tiny"\nversion = "1.2.3"\nedition = "2021"\n')
    write(folder, "vendor/tiny/src/lib.rs", 'pub fn word() -> &\'static str { "from vendor" }\n')
    write(folder, "vendor/tiny/.cargo-checksum.json", json.dumps({"files": {}}))
    change(folder, "Cargo.toml", "[dependencies]", '[dependencies]\ntiny = "1.2"')
    change(folder, "src/lib.rs", '"there is nothing to read"', "tiny::word()")
    assert said(folder) == []
    assert b"from vendor" in built(TOOLCHAIN, folder, tmp_path / "work")


@rust
def test_a_crate_that_is_nowhere_is_refused_without_a_network(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    change(folder, "Cargo.toml", "[dependencies]", '[dependencies]\nserde = "1"')
    with pytest.raises(BuildFailed, match="no matching package named `serde` found"):
        built(TOOLCHAIN, folder, tmp_path / "work")


@rust
@pytest.mark.parametrize("name", ["config.toml", "config"])
def test_settings_that_another_user_may_have_put_above_the_build_are_refused(
    tmp_path: Path, name: str
) -> None:
    folder = scaffolded(tmp_path, "rust")
    write(tmp_path, f"shared/.cargo/{name}", '[build]\nrustc-wrapper = "/shared/evil"\n')
    with pytest.raises(BuildFailed, match="cargo would obey"):
        built(TOOLCHAIN, folder, tmp_path / "shared" / "work")


@rust
def test_the_authors_own_settings_do_not_reach_the_build(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    write(folder, ".cargo/config.toml", '[build]\nrustc-wrapper = "/nowhere/wrapper"\n')
    assert built(TOOLCHAIN, folder, tmp_path / "work")


@rust
def test_a_foreign_import_is_refused(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    foreign = '#[link(wasm_import_module = "env")] extern "C" { fn escape() -> i32; }'
    text = (folder / "src/lib.rs").read_text()
    write(folder, "src/lib.rs", text + foreign + "\npub fn out() -> i32 { unsafe { escape() } }\n")
    change(folder, "src/lib.rs", "let measures = measure(text)?;", "out(); let measures = measure(text)?;")
    with pytest.raises(Exception, match="imports 'env' 'escape'"):
        built(TOOLCHAIN, folder, tmp_path / "work")


@rust
@pytest.mark.timeout(300)
def test_unit_tests_run_beside_the_source_and_leave_nothing_there(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    before = listing(folder)
    done = run_native(folder, TOOLCHAIN, [], os.environ)
    assert done is not None and done.ok, done and done.output
    change(folder, "src/lib.rs", "measured {} words", "counted {} words")
    failed = run_native(folder, TOOLCHAIN, [], os.environ)
    assert failed is not None and not failed.ok
    assert "it_tells_the_log_what_it_measured" in failed.output
    change(folder, "src/lib.rs", "counted {} words", "measured {} words")
    assert listing(folder) == before


def test_without_a_test_there_is_nothing_to_run(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    (folder / "tests" / "agent.rs").unlink()
    assert TOOLCHAIN.native_test(folder, tmp_path) is None


@rust
def test_what_is_built_is_a_component_that_imports_the_host_alone(tmp_path: Path) -> None:
    engine = Engine()
    component = wc.Component(engine, built(TOOLCHAIN, scaffolded(tmp_path, "rust"), tmp_path / "work"))
    assert list(component.type.imports(engine)) == ["runloop:agent/host@0.1.0"]
    assert list(component.type.exports(engine)) == ["handle"]


@rust
@pytest.mark.timeout(300)
def test_what_the_howto_shows_is_an_agent_and_its_test(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    agent, test = blocks_of_the_howto("rust")
    write(folder, "src/lib.rs", agent)
    head = "use runloop::{list, object, testing::FakeHost};\n\n#[test]\nfn shown() {\n"
    write(folder, "tests/agent.rs", f"{head}{test}}}\n")
    built(TOOLCHAIN, folder, tmp_path / "work")
    done = run_native(folder, TOOLCHAIN, [], os.environ)
    assert done is not None and done.ok, done and done.output


@rust
@pytest.mark.timeout(300)
def test_the_howtos_way_to_use_cargo_by_hand_works(tmp_path: Path) -> None:
    folder = scaffolded(tmp_path, "rust")
    (script,) = [block for block in blocks_of_the_howto("sh") if ".cargo/config.toml" in block]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["sh", "-ec", script], cwd=folder, env={**os.environ, "PATH": path}, check=True)
    tools = module._needed()
    argv = [tools.cargo, "check", "--offline", "--quiet", "--target-dir", tmp_path / "target"]
    subprocess.run(argv, cwd=folder, env={**os.environ, "RUSTC": str(tools.rustc)}, check=True)
    done = run_native(folder, TOOLCHAIN, [], os.environ)
    assert done is not None and done.ok, done and done.output
