"""The shipped JavaScript runner: pinned, never older than its sources, small, and free of its birthplace."""

from __future__ import annotations

import json
import lzma
import re
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from runloop import __version__
from runloop.authoring.scaffold import scaffold
from runloop.bundle.runner import RUNNERS, read_pin
from runloop.config import shipped
from runloop.digest import blob_digest
from runloop.ops import OPS
from tests.unit.bundle.test_runner import load

SDK = Path(__file__).parents[3] / "sdk"
RUNNER = SDK / "js" / "runner"


def component() -> bytes:
    return lzma.decompress((RUNNER / "runner.wasm.xz").read_bytes())


def test_the_shipped_runner_is_the_pinned_one() -> None:
    pin, found = read_pin(RUNNER), component()
    assert (len(found), blob_digest(found), sha256(found).hexdigest()) == (pin.size, pin.blake3, pin.sha256)
    assert found.startswith(b"\0asm\x0d\0\1\0")


def test_the_shipped_runner_is_made_of_the_present_sources() -> None:
    build = load(RUNNER / "build.py")
    pin = read_pin(RUNNER)
    assert pin.inputs_digest == build.inputs_digest(), "run python sdk/js/runner/build.py"
    assert (pin.componentize_qjs, pin.componentize_py) == (build.COMPONENTIZE_QJS, None)


def test_every_file_inside_the_runner_counts_for_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    build = load(RUNNER / "build.py")
    inputs = build.inputs()
    assert {"agent.wit", "app.js", "componentize-qjs", "runloop/shim.js", "runloop/guest.js"} <= set(inputs)
    required = set(re.findall(r'require\("\./(\w+\.js)"\)', build.source())) - {"file.js"}  # of a message
    assert required == {name.removeprefix("runloop/") for name in inputs if name.startswith("runloop/")}
    before = build.inputs_digest()
    for name in inputs:
        monkeypatch.setattr(build, "inputs", lambda name=name: {**inputs, name: inputs[name] + b" "})
        assert build.inputs_digest() != before, name


def test_the_runner_is_small_and_knows_nothing_of_the_checkout_that_built_it() -> None:
    assert (RUNNER / "runner.wasm.xz").stat().st_size < 600_000
    found = component()
    assert str(SDK.parent).encode() not in found
    assert b"/tmp/tmp" not in found


def test_every_language_with_a_runner_has_one_shipped() -> None:
    pins = {language: read_pin(shipped(place)).blake3 for language, place in RUNNERS.items()}
    assert set(pins) == {"python", "javascript"}
    assert len(set(pins.values())) == 2


def test_the_sdk_has_a_method_and_a_type_for_every_host_call() -> None:
    host = (SDK / "js" / "runloop" / "host.js").read_text()
    types = (SDK / "js" / "runloop" / "runloop.d.ts").read_text()
    called = dict(
        re.findall(r'^  \*?(\w+)\((?:(?!^  \}).)*?this\.call\("([a-z._]+)"', host, re.DOTALL | re.MULTILINE)
    )
    # These are asked for with `host.call` until the next build of the runner, made from these modules.
    by_call = {"agent.delegate", "secret.use", "memory.list", "memory.delete", "input.ask", "model.embed"}
    by_call |= {"msg.publish", "msg.subscribe", "msg.request", "msg.reply"}
    by_call |= {op for op in OPS if op.startswith(("fs.", "promise."))}
    assert set(called.values()) == OPS.keys() - by_call
    assert [name for name in called if not re.search(rf"^    {name}[<(]", types, re.MULTILINE)] == []


def test_the_package_and_the_types_an_author_gets_belong_to_this_version(tmp_path: Path) -> None:
    package = json.loads((SDK / "js" / "runloop" / "package.json").read_text())
    assert package["version"] == __version__
    types = (SDK / "js" / "runloop" / "runloop.d.ts").read_bytes()
    scaffold("typed", "ts", tmp_path / "typed")
    assert (tmp_path / "typed" / "runloop.d.ts").read_bytes() == types


def test_the_sdks_modules_name_no_other_package() -> None:
    for file in (SDK / "js" / "runloop").glob("*.js"):
        required = set(re.findall(r'^(?!\s*\*).*require\("([^"]+)"\)', file.read_text(), re.MULTILINE))
        foreign = {name for name in required if not name.startswith("./")} - {"runloop"}
        assert foreign <= (
            {"node:assert", "node:fs", "node:path", "node:vm", "node:test"}
            if file.name == "testing.js"
            else set()
        )


def test_the_component_is_what_the_pin_says_even_when_unpacked_by_a_stranger(tmp_path: Path) -> None:
    """``xz`` and ``sha256sum`` alone are enough to check what is shipped."""
    packed = tmp_path / "runner.wasm.xz"
    packed.write_bytes((RUNNER / "runner.wasm.xz").read_bytes())
    try:
        subprocess.run(["xz", "-d", str(packed)], check=True)
    except FileNotFoundError:
        pytest.skip("there is no xz (apt-get install xz-utils)")
    assert sha256((tmp_path / "runner.wasm").read_bytes()).hexdigest() == read_pin(RUNNER).sha256
