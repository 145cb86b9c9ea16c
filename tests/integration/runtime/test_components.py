"""Which components are taken, and what is believed of their compiled forms (attacks.md W5, W7)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runloop.errors import NotFoundError
from runloopd.runtime import supervisor
from runloopd.runtime.cache import CacheRefused
from runloopd.runtime.engine import ComponentRefused
from runloopd.runtime.supervisor import CompileFailed, Runtime
from tests.integration.runtime.conftest import MAC_KEY, Bench, Script
from tests.unit.runtime.guests import EMPTY, HOST, RESULT, Texts, calling, component, saying, wat

GOOD = saying({"ports": {"out": [1]}})
LIFT = """(canon lift (core func $m "handle")
  (memory (core memory $m "memory")) (realloc (core func $m "realloc")))"""
CORE = """(core module $m (memory (export "memory") 1)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "handle") (param i32 i32) (result i32) (unreachable)))
  (core instance $m (instantiate $m))"""


def exporting(kind: str) -> str:
    return f'{CORE} (func (export "handle") {kind} {LIFT})'


WRONG = '(param "input" string) (result string)'
HANDLE = exporting(f'(param "input" string) {RESULT}')


@pytest.mark.requirement("I2.sandbox.8")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'(component (import "wasi:clocks/wall-clock@0.2.0" (instance)) {HANDLE})', "wasi:clocks"),
        (f'(component (import "runloop:agent/host@0.2.0" (instance)) {HANDLE})', "host@0.2.0"),
        (f'(component (import "host" (instance)) {HANDLE})', "'host'"),
        (f'(component (import "runloop:agent/host@0.1.0" (func)) {HANDLE})', "imports"),
        (f'(component (import "{HOST}" (instance)) {HANDLE})', "interface is call"),
        (
            f'(component (import "{HOST}" (instance (export "call" (func (param "op" string))))) {HANDLE})',
            "interface is call",
        ),
        ("(component)", "does not export"),
        (f"(component {CORE})", "does not export"),
        (f"(component {exporting(WRONG)})", "does not export"),
    ],
)
async def test_a_component_of_another_world_is_refused(bench: Bench, text: str, why: str) -> None:
    with pytest.raises(ComponentRefused, match=re.escape(why)) as refused:
        await bench.runtime.prepare(bench.file(wat(text)))
    assert refused.value.hint is not None
    assert "runloop:agent@0.1.0" in refused.value.hint


@pytest.mark.requirement("I2.sandbox.8", "I8.first.2")
async def test_a_component_cannot_make_the_reason_of_its_refusal_long(bench: Bench) -> None:
    wants = f'(export "{"x" * 50_000}" (func))'
    with pytest.raises(ComponentRefused) as refused:
        await bench.runtime.prepare(
            bench.file(wat(f'(component (import "{HOST}" (instance {wants})) {HANDLE})'))
        )
    assert len(refused.value.message) <= 300


async def test_a_component_that_imports_nothing_at_all_is_fine(bench: Bench) -> None:
    result = await bench.run(wat(f"(component {HANDLE})"))
    assert result.error is not None and result.error.code == "guest.trap"


async def test_a_later_patch_of_the_interface_is_fine(bench: Bench) -> None:
    texts = Texts()
    patch = component(f"(call $ok {texts(EMPTY)})", texts, host="runloop:agent/host@0.1.7")
    assert (await bench.run(patch)).ok


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"(component)", "no WebAssembly"),
        (b"", "no WebAssembly"),
        (b"\0asm\x01\0\0\0", "core module"),
        (GOOD[:-20], "not valid"),
        (b"\0asm\x0d\0\x01\0" + bytes(range(64)), "not valid"),
    ],
)
async def test_what_is_not_a_binary_component_is_refused(bench: Bench, content: bytes, why: str) -> None:
    with pytest.raises(ComponentRefused, match=re.escape(why)):
        await bench.runtime.prepare(bench.file(content))


async def test_a_component_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.wasm"):
        await bench.runtime.prepare(Path("/nowhere/absent.wasm"))


async def test_a_component_that_is_too_large_is_refused_before_it_is_read(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "large.wasm"
    with path.open("wb") as file:
        file.write(b"\0asm\x0d\0\x01\0")
        file.truncate(200 << 20)
    with pytest.raises(ComponentRefused, match="larger"):
        await bench.runtime.prepare(path)


async def test_mutated_components_are_refused_or_run_and_nothing_crashes(bench: Bench) -> None:
    rng = random.Random(7)
    for _ in range(12):
        broken = bytearray(GOOD)
        for _ in range(3):
            broken[rng.randrange(8, len(broken))] = rng.randrange(256)
        try:
            await bench.run(bytes(broken), limits={"guest_ms": 200})
        except ComponentRefused:
            continue
    assert (await bench.run(GOOD)).ok


@pytest.mark.requirement("W5")
async def test_a_pathological_component_costs_a_compiler_and_not_the_daemon(bench: Bench) -> None:
    deep = "(block " * 20_000 + ")" * 20_000
    many = "".join(f"(func (result i32) (i32.const {n}))" for n in range(20_000))
    texts = Texts()
    wasm = component(f"{deep} (call $ok {texts(EMPTY)})", texts, extra=many)
    with contextlib.suppress(ComponentRefused, CompileFailed):  # refused, or compiled within the limits
        assert (await bench.run(wasm)).ok
    assert (await bench.run(GOOD)).ok


async def test_preparing_one_component_twice_at_once_compiles_it_once(
    make_bench: Callable[..., Awaitable[Bench]], tmp_path: Path
) -> None:
    bench = await make_bench(cache_dir=tmp_path / "cache")
    path = bench.file(GOOD)
    first, second = await asyncio.gather(bench.runtime.prepare(path), bench.runtime.prepare(path))
    assert first == second
    assert len(list((tmp_path / "cache").iterdir())) == 1
    await bench.runtime.close()


async def test_a_component_is_read_once_and_again_when_its_file_changes(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    real = supervisor._read_component
    monkeypatch.setattr(supervisor, "_read_component", lambda path: (reads.append(path), real(path))[1])
    path = tmp_path / "agent.wasm"
    path.write_bytes(GOOD)
    first = await bench.runtime.prepare(path)
    assert await bench.runtime.prepare(path) == first
    assert len(reads) == 1
    path.write_bytes(calling("time.now", "{}"))
    assert await bench.runtime.prepare(path) != first
    assert len(reads) == 2


async def test_a_fifo_in_place_of_a_component_holds_nobody_up(bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.wasm")
    with pytest.raises(ComponentRefused):
        await asyncio.wait_for(bench.runtime.prepare(tmp_path / "fifo.wasm"), 10)


# --- the cache -------------------------------------------------------------------------------------


class Compilations:
    """Counts the compilations of a runtime."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = runtime._compile

        async def counted(wasm: bytes) -> bytes:
            self.count += 1
            return await real(wasm)

        monkeypatch.setattr(runtime, "_compile", counted)


@pytest.fixture
def restart(
    make_bench: Callable[..., Awaitable[Bench]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Awaitable[int]]:
    """Start a runtime on the same cache, run GOOD, stop; return how often it compiled."""

    async def again(**settings: object) -> int:
        bench = await make_bench(**{"cache_dir": tmp_path / "cache", **settings})
        counted = Compilations(bench.runtime, monkeypatch)
        try:
            assert (await bench.run(GOOD, Script())).ok
        finally:
            await bench.runtime.close()
        return counted.count

    return again


def entry(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cache").glob("*.cwasm")
    return found


async def test_the_compiled_form_is_kept(restart: Callable[..., Awaitable[int]], tmp_path: Path) -> None:
    assert await restart() == 1
    assert await restart() == 0
    assert entry(tmp_path).stat().st_mode & 0o777 == 0o600
    assert entry(tmp_path).parent.stat().st_mode & 0o777 == 0o700


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.requirement("W7", "I2.sandbox.7")
@pytest.mark.parametrize(
    "harm",
    [
        lambda path: flip(path, 0),
        lambda path: flip(path, 20),
        lambda path: flip(path, -1),
        lambda path: flip(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(b""),
        lambda path: path.chmod(0o644),
        lambda path: (path.rename(path.with_suffix(".away")), path.symlink_to(path.with_suffix(".away"))),
        lambda path: (path.unlink(), os.mkfifo(path, 0o600)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["magic", "mac", "end", "middle", "cut", "longer", "empty", "mode", "symlink", "fifo", "directory"],
)
async def test_an_altered_entry_is_ignored_and_compiled_again(
    restart: Callable[..., Awaitable[int]], tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    await restart()
    harm(entry(tmp_path))
    assert await restart() == 1


@pytest.mark.requirement("W7", "I2.sandbox.7")
async def test_an_entry_of_another_key_is_ignored(restart: Callable[..., Awaitable[int]]) -> None:
    await restart()
    assert await restart(mac_key=b"x" * 32) == 1
    assert await restart(mac_key=MAC_KEY) == 1


@pytest.mark.requirement("W7", "I2.sandbox.7")
async def test_an_entry_of_another_component_is_not_taken_under_this_name(
    bench: Bench, restart: Callable[..., Awaitable[int]], tmp_path: Path, compiled: Path
) -> None:
    await restart()
    other = await bench.runtime.prepare(bench.file(calling("time.now", "{}")))
    stolen = bench.runtime._cache.path(other)
    assert stolen.parent == compiled
    entry(tmp_path).write_bytes(stolen.read_bytes())  # authentic, of the same key, for something else
    assert await restart() == 1


async def test_an_authentic_entry_that_the_engine_refuses_is_replaced(
    restart: Callable[..., Awaitable[int]], tmp_path: Path
) -> None:
    await restart()
    from runloop.digest import blob_digest
    from runloopd.runtime.cache import CompiledCache

    os.close(CompiledCache(tmp_path / "cache", MAC_KEY).store(blob_digest(GOOD), b"from another processor"))
    assert await restart() == 1
    assert await restart() == 0


@pytest.mark.requirement("W7", "I2.sandbox.7")
async def test_a_cache_directory_open_to_others_is_refused(
    restart: Callable[..., Awaitable[int]], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache").chmod(0o770)
    with pytest.raises(CacheRefused, match="only you"):
        await restart()


async def test_a_full_disk_costs_the_entry_and_not_the_run(
    restart: Callable[..., Awaitable[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert await restart() == 1
    assert list((tmp_path / "cache").iterdir()) == []
