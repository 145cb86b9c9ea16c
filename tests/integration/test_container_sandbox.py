"""The container sandbox by itself: engines that lie, daemons that die, and what an engine is never told.

What it has in common with bubblewrap is in ``test_program_sandbox``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from runloopd.broker.mcp.launching import _bridge
from runloopd.broker.tools.container import Container
from runloopd.broker.tools.sandbox import Limits, Mount, Program, SandboxError

CANARY = "canary-7f3a"
QUICK = Limits(wall_ms=20_000)


@pytest.fixture
async def sandbox(tried: Container, tmp_path: Path) -> AsyncIterator[Container]:
    made = like(tried, tmp_path)
    yield made
    await made.close()


def like(tried: Container, folder: Path, engine: Path | None = None) -> Container:
    """Another one, whose layers were tried already; with another engine, whatever that does."""
    door = folder / "door"
    door.mkdir(mode=0o700, exist_ok=True)
    made = Container([], door=door, image=tried._image, engine=str(engine or tried._given))
    made._layers, made._programs = tried._layers, tried._programs
    assert tried._engine is not None
    made._engine = tried._engine if engine is None else replace(tried._engine, path=str(engine))
    return made


LIES = {
    "gives it the network": ("s/--network none/--network host/", "net"),
    "leaves the root writable": ("s/ --read-only / /", "root writable"),
    "leaves capabilities": ("s/--cap-drop ALL/--cap-add SYS_PTRACE/", "capabilities"),
    "lets it gain privileges": ("s/--security-opt no-new-privileges//", "privileges"),
    "makes a folder writable": ("s/,ro=true//g", "writable"),
    "shares the processes": (
        "s/--pid private//; s/^run --rm/run --rm --pid host/",
        "process first|pid namespace|private PID|did not start a container",
    ),
    "shares its users": (
        "s/--[ug]idmap [^ ]*//g; s/--userns [^ ]*//; s/--user [^ ]*/--user 0:0/",
        "user namespace",
    ),
    "shares its name": (
        "s/--uts private//; s/--hostname sandbox//; s/^run --rm/run --rm --uts host/",
        "uts namespace",
    ),
    "mounts another folder": ("s#src=[^,]*/granted,#src=/usr,#", "exchanged"),
}


@pytest.mark.requirement("I6.container.2")
@pytest.mark.parametrize("lie", LIES)
async def test_an_engine_that_does_not_do_as_it_is_told_starts_nothing(
    tried: Container, tmp_path: Path, lie: str
) -> None:
    if lie == "shares its users" and os.geteuid() != 0:
        pytest.skip("an engine of a user is in a user namespace, whatever it is told")
    edit, why = LIES[lie]
    liar = tmp_path / "liar"
    liar.write_text(f'#!/bin/sh\nexec {tried._given} $(printf "%s " "$@" | sed -e \'{edit}\')\n')
    liar.chmod(0o755)
    granted, marks = tmp_path / "granted", tmp_path / "marks"
    granted.mkdir()
    marks.mkdir()
    sandbox = like(tried, tmp_path, liar)
    mounts = (Mount(path=str(granted)), Mount(path=str(marks), writable=True))
    with pytest.raises(SandboxError, match=why):
        await sandbox.run(Program(argv=("/bin/sh", "-c", f"echo x > {marks}/ran"), mounts=mounts))
    assert list(marks.iterdir()) == [] and sandbox.running == 0


async def test_an_engine_is_told_no_word_variable_secret_or_input_of_a_program(
    tried: Container, tmp_path: Path
) -> None:
    """Its command line is read by everybody, and its database lies on the disk."""
    told = tmp_path / "told"
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {told}; env >> {told}\nexec {tried._given} "$@"\n')
    spy.chmod(0o755)
    os.environ["RUNLOOP_TEST_SECRET"] = CANARY
    try:
        result = await like(tried, tmp_path, spy).run(
            Program(
                argv=("/bin/sh", "-c", f"cat <&$KEY_FD; cat; cat /made/up; echo $MINE {CANARY}"),
                stdin=CANARY.encode(),
                env={"MINE": CANARY},
                secrets={"KEY": CANARY.encode()},
                mounts=(Mount(path="/made/up", data=CANARY.encode()),),
                limits=QUICK,
            )
        )
    finally:
        del os.environ["RUNLOOP_TEST_SECRET"]
    assert result.stdout.decode().count(CANARY) == 5
    assert "--network" in told.read_text() and CANARY not in told.read_text()
    store = Path(str(tried._given)).parent
    found = [path for path in store.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert found == []


DYING = """
import asyncio, os, sys
from pathlib import Path
from runloopd.broker.tools.container import Container
from runloopd.broker.tools.sandbox import Limits, Mount, Program

async def main(door, image, engine, folder):
    sandbox = Container([], door=Path(door), image=image, engine=engine)
    line = f"echo $$ > {folder}/begun; sleep 4; echo x > {folder}/late"
    mounts = (Mount(path=folder, writable=True),)
    await sandbox.run(Program(argv=("/bin/sh", "-c", line), mounts=mounts, limits=Limits(wall_ms=60_000)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.requirement("I6.container.1")
async def test_a_container_ends_with_the_daemon_however_that_dies(tried: Container, tmp_path: Path) -> None:
    door, folder = tmp_path / "door", tmp_path / "folder"
    door.mkdir(mode=0o700)
    folder.mkdir()
    words = (str(door), str(tried._image), str(tried._given), str(folder))
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, *words)
    async with asyncio.timeout(40):
        while not (folder / "begun").exists():
            await asyncio.sleep(0.02)
        daemon.send_signal(signal.SIGKILL)
        await daemon.wait()
        while containers(tried):
            await asyncio.sleep(0.05)
    assert not (folder / "late").exists()


def containers(tried: Container) -> list[str]:
    """Those of the engine, in whatever state."""
    said = subprocess.run((str(tried._given), "ps", "-aq"), capture_output=True, check=True, timeout=30)
    return said.stdout.decode().split()


def processes(tried: Container) -> list[str]:
    """Whatever works for the engine: its monitor goes a moment after its container."""
    store = str(Path(str(tried._given)).parent).encode()
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and place.name != str(os.getpid()):
            with suppress(OSError):
                words = (place / "cmdline").read_bytes()
                found += [words.decode()] if store in words and b"pytest" not in words else []
    return found


@pytest.mark.parametrize("after_s", [0.0, 0.2])
async def test_one_that_is_cancelled_while_its_container_is_made_leaves_none_behind(
    sandbox: Container, tried: Container, after_s: float
) -> None:
    task = asyncio.ensure_future(sandbox.run(Program(argv=("/bin/sleep", "60"))))
    async with asyncio.timeout(40):
        while not sandbox.running:
            await asyncio.sleep(0)
        await asyncio.wait([task], timeout=after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sandbox.running == 0 and containers(tried) == []
        while processes(tried):
            await asyncio.sleep(0.05)


async def test_an_engine_is_not_killed_in_the_middle_of_making_a_container(
    tried: Container, tmp_path: Path
) -> None:
    """Half a container is one that nobody takes away: its runtime waits for a starter that is gone."""
    slow, begun, ended = (tmp_path / name for name in ("slow", "begun", "ended"))
    slow.write_text(f'#!/bin/sh\ntouch {begun}\n{tried._given} "$@"\n[ "$1" = rm ] || touch {ended}\n')
    slow.chmod(0o755)
    sandbox = like(tried, tmp_path, slow)
    task = asyncio.ensure_future(sandbox.run(Program(argv=("/bin/sleep", "60"))))
    async with asyncio.timeout(40):
        while not begun.exists():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended.exists() and containers(tried) == []


async def test_what_may_be_executed_holds_in_an_image_too(sandbox: Container) -> None:
    line = "/usr/bin/id; /usr/bin/env true; echo only the shell"
    result = await sandbox.run(Program(argv=("/bin/sh", "-c", line), executables=("/bin/sh",), limits=QUICK))
    assert result.stdout == b"only the shell\n" and result.stderr.count(b"Permission denied") == 2


async def test_runloops_own_program_runs_in_a_container_whatever_its_image_holds(sandbox: Container) -> None:
    bridge = _bridge()
    python = Program(
        argv=(bridge.argv[0], "-I", "-c", "import ssl, sqlite3, httpx2; print(httpx2.__name__)"),
        mounts=bridge.mounts,
        limits=QUICK,
        own=True,
    )
    result = await sandbox.run(python)
    assert (result.stdout, result.exit) == (b"httpx2\n", 0), result.stderr


async def test_a_program_is_one_of_the_image_and_none_of_this_machine(
    sandbox: Container, tmp_path: Path
) -> None:
    assert sandbox.resolve("sh") == "/usr/bin/sh"
    absent = "bwrap"
    with pytest.raises(Exception, match="in the image"):
        sandbox.resolve(absent)
    with pytest.raises(Exception, match="in the image"):
        sandbox.resolve(f"/usr/bin/{absent}")
    planted = tmp_path / "planted"
    planted.write_text("#!/bin/sh\necho planted\n")
    planted.chmod(0o755)
    assert sandbox.resolve(str(planted)) == str(planted)
    # It is there for whoever was granted its folder, and for nobody else.
    granted = Program(argv=(str(planted),), mounts=(Mount(path=str(tmp_path)),), limits=QUICK)
    assert (await sandbox.run(granted)).stdout == b"planted\n"
    with pytest.raises(SandboxError, match="could not be started"):
        await sandbox.run(Program(argv=(str(planted),), limits=QUICK))


@pytest.mark.parametrize("kind", ["everything", "own", "above own", "comma"])
async def test_what_a_container_cannot_keep_apart_is_not_mounted(
    tried: Container, tmp_path: Path, kind: str
) -> None:
    own, odd = tmp_path / "state", tmp_path / "a,b"
    own.mkdir()
    odd.mkdir()
    sandbox = like(tried, tmp_path)
    sandbox._ours = {own: None}
    place = {"everything": Path("/"), "own": own, "above own": tmp_path, "comma": odd}[kind]
    with pytest.raises(SandboxError, match=r"whole machine|Runloop's own|cannot be mounted"):
        await sandbox.run(Program(argv=("/bin/true",), mounts=(Mount(path=str(place)),)))
