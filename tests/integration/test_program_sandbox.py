"""Programs in the real sandbox: what they see, how they end, and sixty ways out that lead nowhere."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from runloop.errors import RefusedError, RunloopError
from runloopd.broker.tools import enclosure
from runloopd.broker.tools.aliases import Mounted, aliases, read_mounts
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.container import Container
from runloopd.broker.tools.layers import look
from runloopd.broker.tools.sandbox import (
    Layer,
    Layers,
    Limits,
    Mount,
    Program,
    ProgramResult,
    SandboxError,
)
from runloopd.broker.tools.starting import Starting
from tests.bench.bench_programs import race

ESCAPES = Path(__file__).with_name("escapes.py")
CANARY = "canary-7f3a"
QUICK = Limits(wall_ms=20_000)


@dataclass(frozen=True)
class Machine:
    """A user's files, and Runloop's own among them."""

    root: Path
    amid: bool = True
    """Whether Runloop's own lies in the middle of what is granted."""

    @property
    def granted(self) -> Path:
        return self.root / "granted"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def secret(self) -> Path:
        return self.root / "private" / "secret.txt"

    @property
    def state(self) -> Path:
        """Runloop's own."""
        return (self.granted if self.amid else self.root) / "state"


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Which sandbox; a test that wants both says so with ``both``."""
    return str(getattr(request, "param", "bubblewrap"))


both = pytest.mark.parametrize("kind", ["bubblewrap", "container"], indirect=True)


@pytest.fixture
def machine(tmp_path: Path, kind: str) -> Machine:
    made = Machine(tmp_path, amid=kind == "bubblewrap")
    for folder in (made.granted, made.outside, made.secret.parent, made.state, made.state / "keys"):
        folder.mkdir()
    for file in (made.secret, made.state / "events.db", made.state / "keys" / "root.key"):
        file.write_text(CANARY)
    (made.granted / "link").symlink_to(made.secret)
    (made.granted / "note.txt").write_text("a note")
    return made


@pytest.fixture
async def sandbox(
    machine: Machine, kind: str, request: pytest.FixtureRequest
) -> AsyncIterator[Bubblewrap | Container]:
    made: Bubblewrap | Container
    if kind == "container":
        made = contained(machine, request.getfixturevalue("tried"))
    else:
        made = Bubblewrap([machine.state])
    yield made
    await made.close()


def contained(machine: Machine, tried: Container) -> Container:
    door = machine.root / "door"
    door.mkdir(mode=0o700)
    made = Container([machine.state], door=door, image=tried._image, engine=tried._given)
    made._layers, made._engine, made._programs = tried._layers, tried._engine, tried._programs
    return made


async def sh(sandbox: Starting, line: str, *mounts: Mount, **more: Any) -> ProgramResult:
    more.setdefault("limits", QUICK)
    return await sandbox.run(Program(argv=("/bin/sh", "-c", line), mounts=mounts, **more))


# --- what it sees ---------------------------------------------------------------------------------


@pytest.mark.requirement("I6.programs.1")
@both
async def test_a_program_gets_its_words_its_input_and_an_environment_of_its_own(sandbox: Starting) -> None:
    os.environ["RUNLOOP_TEST_SECRET"] = CANARY
    try:
        result = await sandbox.run(
            Program(
                argv=("/bin/sh", "-c", 'printf "%s|" "$@"; cat; env', "sh", "a b", "$(id)", "*"),
                stdin=b"input",
                env={"MINE": "yes"},
                limits=QUICK,
            )
        )
    finally:
        del os.environ["RUNLOOP_TEST_SECRET"]
    said = result.stdout.decode()
    assert said.startswith("a b|$(id)|*|input")
    assert "MINE=yes" in said and CANARY not in said and "RUNLOOP" not in said
    assert (result.exit, result.killed_by, result.truncated) == (0, None, False)


@both
@pytest.mark.requirement("I6.container.1")
async def test_a_granted_folder_is_read_or_written_as_granted(sandbox: Starting, machine: Machine) -> None:
    read = Mount(path=str(machine.granted))
    result = await sh(sandbox, f"cat {machine.granted}/note.txt; echo x > {machine.granted}/new", read)
    assert result.stdout == b"a note" and result.exit != 0
    write = Mount(path=str(machine.granted), writable=True)
    assert (await sh(sandbox, f"echo x > {machine.granted}/new", write)).exit == 0
    assert (machine.granted / "new").read_text() == "x\n"


async def test_there_is_one_network_device_and_hardly_a_place_to_write(
    sandbox: Starting, machine: Machine
) -> None:
    line = "tail -n +3 /proc/net/dev | cut -d: -f1; awk '$4 !~ /^ro/ {print $2}' /proc/mounts"
    seen = (await sh(sandbox, line, Mount(path=str(machine.granted)))).stdout.decode().split()
    assert seen[0] == "lo"
    assert set(seen[1:]) == {
        "/proc", "/tmp", "/dev/shm", "/dev/pts",
        *(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")),
    }  # fmt: skip


async def test_a_folder_that_another_name_of_runloops_own_leads_to_is_refused(
    sandbox: Starting, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Mounted("8:1", PurePosixPath(machine.state), PurePosixPath(machine.outside))
    whole = Mounted("8:1", PurePosixPath("/"), PurePosixPath("/"))
    monkeypatch.setattr(enclosure, "read_mounts", lambda: (whole, again))
    with pytest.raises(SandboxError, match="Runloop's own"):
        await sh(sandbox, "true", Mount(path=str(machine.outside)))


async def test_what_is_mounted_below_a_granted_folder_is_not_part_of_it(
    sandbox: Starting, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = machine.granted / "disk"
    (disk / "mine").mkdir(parents=True)
    for folder in (disk, disk / "mine"):
        (folder / "file").write_text(CANARY)
    whole = Mounted("8:1", PurePosixPath("/"), PurePosixPath("/"))
    other = Mounted("8:2", PurePosixPath("/"), PurePosixPath(disk))
    monkeypatch.setattr(enclosure, "read_mounts", lambda: (whole, other))
    granted, mine = Mount(path=str(machine.granted)), Mount(path=str(disk / "mine"))
    assert (await sh(sandbox, f"ls -A {disk}", granted)).stdout == b""
    assert (await sh(sandbox, f"ls -A {disk}; cat {disk}/mine/file", granted, mine)).stdout == (
        b"mine\n" + CANARY.encode()
    )


@both
async def test_secrets_come_by_descriptor_and_stand_in_no_command_line(sandbox: Starting) -> None:
    line = "cat <&$KEY_FD; echo; cat <&$OTHER_FD; cat /proc/*/cmdline /proc/*/environ 2>/dev/null"
    result = await sh(sandbox, line, secrets={"KEY": b"sesame-1", "OTHER": b"sesame-2"})
    first, _, rest = result.stdout.partition(b"\n")
    assert first == b"sesame-1" and rest.startswith(b"sesame-2")
    assert b"sesame" not in rest.removeprefix(b"sesame-2")


@pytest.mark.parametrize("kind", ["kernels", "own", "link", "absent", "inside_own"])
async def test_what_may_not_be_mounted_is_refused_and_nothing_runs(
    sandbox: Starting, machine: Machine, kind: str
) -> None:
    place = {
        "kernels": "/proc",
        "own": str(machine.state),
        "link": str(machine.granted / "link"),
        "absent": str(machine.root / "absent"),
        "inside_own": str(machine.state / "keys"),
    }[kind]
    with pytest.raises(RunloopError):
        await sh(sandbox, "true", Mount(path=place))


async def test_a_program_that_is_not_there_is_no_exit_but_a_refusal(sandbox: Starting) -> None:
    with pytest.raises(SandboxError, match="could not be started"):
        await sandbox.run(Program(argv=("/usr/bin/no-such-program",), limits=QUICK))
    with pytest.raises(SandboxError, match="cwd"):
        await sh(sandbox, "true", cwd="/nowhere")
    with pytest.raises(SandboxError, match="absolute"):
        await sandbox.run(Program(argv=("true",)))


# --- how it ends ----------------------------------------------------------------------------------


@both
async def test_a_tree_ends_whole_at_its_deadline(sandbox: Starting, machine: Machine) -> None:
    late = f"(setsid sh -c 'sleep 2; echo x > {machine.granted}/late' &) ; sleep 60"
    mount = Mount(path=str(machine.granted), writable=True)
    result = await sh(sandbox, late, mount, limits=Limits(wall_ms=300))
    assert (result.exit, result.killed_by) == (137, "deadline")
    assert not (machine.granted / "late").exists()


@both
async def test_one_that_is_cancelled_is_gone_before_the_caller_goes_on(
    sandbox: Starting, machine: Machine
) -> None:
    mount = Mount(path=str(machine.granted), writable=True)
    line = f"echo begun > {machine.granted}/begun; sleep 60"
    task = asyncio.ensure_future(sh(sandbox, line, mount))
    async with asyncio.timeout(20):
        while not (machine.granted / "begun").exists():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.running == 0


@pytest.mark.parametrize("yields", [0, 1, 10, 100, 1_000, 10_000])
async def test_one_that_is_cancelled_while_its_sandbox_is_made_leaves_nothing_behind(
    sandbox: Starting, yields: int
) -> None:
    task = asyncio.ensure_future(sandbox.run(Program(argv=("/bin/sleep", "60"))))
    async with asyncio.timeout(20):
        while not sandbox.running:
            await asyncio.sleep(0)
        for _ in range(yields):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sandbox.running == 0


async def test_programs_run_side_by_side_up_to_a_bound_and_the_next_one_waits(
    sandbox: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_places", asyncio.Semaphore(2))
    most = 0

    def note(name: str, piece: bytes) -> None:
        nonlocal most
        most = max(most, sandbox.running)

    line = Program(argv=("/bin/sh", "-c", "echo on; sleep 0.1"), limits=QUICK)
    results = await asyncio.gather(*(sandbox.run(line, on_output=note) for _ in range(5)))
    assert ([result.exit for result in results], most) == ([0] * 5, 2)


async def test_what_is_said_beyond_the_bound_is_dropped_and_told(sandbox: Starting) -> None:
    seen: list[bytes] = []
    result = await sandbox.run(
        Program(
            argv=("/bin/sh", "-c", "head -c 300000 /dev/zero; echo end >&2"), limits=Limits(output=1_000)
        ),
        on_output=lambda name, piece: seen.append(piece) if name == "stdout" else None,
    )
    assert (len(result.stdout), result.truncated, result.stderr, result.exit) == (1_000, True, b"end\n", 0)
    assert b"".join(seen) == result.stdout


BOMBS = {
    "processor": ("while :; do :; done", Limits(wall_ms=20_000, cpu_s=1), "cpu"),
    "memory of many": (
        "for i in 1 2 3 4; do python3 -c 'import time; x = b\"a\" * (40 << 20); time.sleep(60)' & done; wait",
        Limits(wall_ms=20_000, memory=100 << 20),
        "memory",
    ),
    "processes": (
        "i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; wait",
        Limits(wall_ms=20_000, processes=20),
        "processes",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.requirement("I6.programs.1")
async def test_a_bomb_ends_at_the_limit_it_meets(sandbox: Starting, bomb: str) -> None:
    line, limits, by = BOMBS[bomb]
    result = await sandbox.run(Program(argv=("/bin/sh", "-c", line), limits=limits))
    # The user who owns the machine has no limit of processes but the count; others meet the kernel's first.
    assert result.killed_by == by or (bomb == "processes" and b"fork" in result.stderr)


async def test_neither_a_file_nor_its_own_disk_grows_without_bound(sandbox: Starting) -> None:
    limits = Limits(wall_ms=20_000, file_bytes=4 << 20)
    line = (
        "head -c 9000000 /dev/zero > /tmp/one; wc -c < /tmp/one;"
        " for i in 1 2 3 4; do head -c 3000000 /dev/zero > /tmp/$i; done; du -sb /tmp | cut -f1"
    )
    one, several = (int(word) for word in (await sh(sandbox, line, limits=limits)).stdout.split())
    assert one <= 4 << 20 and several <= (4 << 20) + 65_536


@both
async def test_a_server_lives_until_it_is_killed(sandbox: Starting) -> None:
    with ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        program = Program(argv=("/bin/cat",), limits=Limits(wall_ms=None, cpu_s=None))
        child = await sandbox.spawn(program, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=2)
        theirs.close()
        inherited = Path(f"/proc/{child.pid}/environ").read_text().split("\0")
        assert {word.partition("=")[0] for word in inherited} <= {
            "",
            "PATH",
            "HOME",
            "PWD",
            "XDG_RUNTIME_DIR",
        }
        await asyncio.to_thread(ours.sendall, b"ping")
        assert await asyncio.to_thread(ours.recv, 100) == b"ping"
        await child.kill()
        assert (await child.wait(), child.killed_by) == (137, "cancelled")
        assert await asyncio.to_thread(ours.recv, 100) == b""


# --- the network ----------------------------------------------------------------------------------


class OnlyOne:
    """An egress that leads one name to one server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.asked.append(host)
        if host != "granted.example":
            raise RefusedError(f"net {host} is not granted")
        return await asyncio.open_connection("127.0.0.1", self.port)

    def sending(self, host: str, port: int, size: int) -> None:
        self.asked.append(f"{size} bytes")


FETCH = """
import os, socket, sys
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
for name in sys.argv[1:]:
    with socket.create_connection((host, int(port)), 10) as made:
        made.sendall(f"CONNECT {name}:443 HTTP/1.1\\r\\n\\r\\n".encode())
        said = made.recv(1000)
        if b" 200 " in said:
            made.sendall(b"hello\\n")
            said = made.recv(1000)
        print(" ".join(said.decode().split()))
for direct in (("127.0.0.1", int(sys.stdin.read())), ("192.0.2.1", 443)):
    try:
        socket.create_connection(direct, 5)
        print("REACHED", direct)
    except OSError as error:
        print("closed")
"""


@pytest.mark.requirement("I6.programs.3")
@both
async def test_a_program_with_egress_reaches_what_is_granted_and_by_no_other_way(sandbox: Starting) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.readline())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    egress = OnlyOne(port)
    argv = ("/usr/bin/python3", "-c", FETCH, "granted.example", "other.example")
    result = await sandbox.run(Program(argv=argv, stdin=str(port).encode(), egress=egress, limits=QUICK))
    server.close()
    granted, other, *direct = result.stdout.decode().splitlines()
    assert granted == "heard hello"
    assert "403" in other and "net other.example is not granted" in other
    assert [line for line in direct if line] == ["closed", "closed"]
    assert [asked for asked in egress.asked if "bytes" not in asked] == ["granted.example", "other.example"]
    assert "6 bytes" in egress.asked, "what left was counted"


# --- ways out -------------------------------------------------------------------------------------


@pytest.fixture
def others(machine: Machine) -> Iterator[dict[str, Any]]:
    """What there is to escape to: servers of each kind, another process, and where everything lies."""
    with ExitStack() as stack:
        web = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        name = f"runloop-test-{os.getpid()}"
        for kind, address in (
            (socket.SOCK_STREAM, str(machine.granted / "server")),
            (socket.SOCK_DGRAM, str(machine.granted / "datagrams")),
            (socket.SOCK_STREAM, f"\0{name}"),
        ):
            made = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            made.bind(address)
            if kind == socket.SOCK_STREAM:
                made.listen()
        yield {
            "secret": str(machine.secret),
            "canary": CANARY,
            "outside": str(machine.outside),
            "granted": str(machine.granted),
            "state": str(machine.state),
            "port": web.getsockname()[1],
            "name": name,
            "pid": os.getpid(),
            "marker": "pytest",
        }


@pytest.mark.requirement("F3")
@pytest.mark.requirement("F4")
@both
async def test_sixty_ways_out_of_the_sandbox_lead_nowhere(
    sandbox: Starting, machine: Machine, others: dict[str, Any]
) -> None:
    program = Program(
        argv=("/usr/bin/python3", "-I", "-c", ESCAPES.read_text()),
        stdin=json.dumps(others).encode(),
        mounts=(Mount(path=str(machine.granted), writable=True),),
        cwd=str(machine.granted),
        limits=Limits(wall_ms=60_000),
    )
    result = await sandbox.run(program)
    tried = json.loads(result.stdout)
    assert len(tried) >= 60
    assert [name for name, how in tried.items() if how == "ESCAPED"] == []
    assert list(machine.outside.iterdir()) == []
    assert sorted(path.name for path in machine.state.iterdir()) == ["events.db", "keys"]
    assert not (machine.granted / "survivor").exists()


async def test_the_harmless_attempts_succeed_where_there_is_no_sandbox(
    machine: Machine, others: dict[str, Any]
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(ESCAPES), "control"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(json.dumps(others).encode())
    assert {name: how for name, how in json.loads(said).items() if how != "ESCAPED"} == {}


@pytest.mark.requirement("F4")
@pytest.mark.parametrize("writable", [False, True], ids=["read", "write"])
async def test_a_grant_of_everything_reaches_neither_state_nor_the_kernels_places(
    sandbox: Starting, machine: Machine, writable: bool
) -> None:
    line = f"cat {machine.secret}; ls -A {machine.state}; cat {machine.state}/events.db; ls /sys /run /proc"
    result = await sh(sandbox, line, Mount(path="/", writable=writable))
    # The folder of the test lies in /tmp, which is the program's own: there it is granted by name.
    named = await sh(sandbox, line, Mount(path="/", writable=writable), Mount(path=str(machine.root)))
    assert CANARY.encode() not in result.stdout
    assert named.stdout.decode().count(CANARY) == 1
    assert b"events.db" not in named.stdout


@pytest.mark.requirement("F4")
async def test_what_a_mask_covers_cannot_be_moved_from_under_it(machine: Machine) -> None:
    deep = machine.granted / "a" / "b" / "runloop"
    deep.mkdir(parents=True)
    (deep / "events.db").write_text(CANARY)
    sandbox = Bubblewrap([deep])
    mounts = (Mount(path=str(machine.granted), writable=True),)
    at = machine.granted
    line = f"mv {at}/a {at}/c; mv {at}/a/b {at}/d; mv {at}/a/b/runloop {at}/e; echo x > {at}/a/b/beside"
    await sh(sandbox, line, *mounts)
    assert (deep / "events.db").read_text() == CANARY
    assert (deep.parent / "beside").read_text() == "x\n"
    assert CANARY.encode() not in (await sh(sandbox, f"cat {at}/?/?/*/* {at}/?/*/* {at}/e/*", *mounts)).stdout
    # Whoever moved it from outside: where it is now, nobody knows.
    deep.rename(machine.granted / "elsewhere")
    deep.mkdir()
    with pytest.raises(SandboxError, match="not what it was"):
        await sh(sandbox, "true", *mounts)
    await sandbox.close()


async def test_a_folder_within_a_folder_keeps_its_own_right(machine: Machine) -> None:
    sub = machine.granted / "a" / "sub"
    sub.mkdir(parents=True)
    (machine.granted / "a" / "runloop").mkdir()
    sandbox = Bubblewrap([machine.granted / "a" / "runloop"])
    mounts = (Mount(path=str(machine.granted)), Mount(path=str(sub), writable=True))
    await sh(sandbox, f"echo x > {sub}/new; echo x > {machine.granted}/a/new", *mounts)
    assert (sub / "new").exists() and not (machine.granted / "a" / "new").exists()
    await sandbox.close()


async def test_where_programs_are_named_nothing_else_is_executed(sandbox: Starting, machine: Machine) -> None:
    own = machine.granted / "own"
    own.write_text("#!/bin/sh\necho ran\n")
    own.chmod(0o755)
    line = f"/usr/bin/id; {own}; /usr/bin/env true; echo only the shell"
    mount = Mount(path=str(machine.granted), writable=True)
    result = await sh(sandbox, line, mount, executables=("/bin/sh",))
    assert result.stdout == b"only the shell\n" and result.stderr.count(b"Permission denied") == 3


@both
async def test_where_nothing_that_is_named_is_there_nothing_is_executed(sandbox: Starting) -> None:
    with pytest.raises(SandboxError, match="could not be started"):
        await sh(sandbox, "true", executables=("/usr/lib/no-such-folder",))


def test_every_name_of_a_folder_is_found_in_the_table_of_mounts() -> None:
    table = read_mounts(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:1 /home/u /mnt/again rw - ext4 /dev/a rw\n"
        "3 1 8:1 /home/u/.runloop/keys /mnt/with\\040blank rw - ext4 /dev/a rw\n"
        "4 1 8:2 / /mnt/other rw - ext4 /dev/b rw\n"
    )
    assert table[2] == Mounted("8:1", table[2].root, table[2].point)
    assert [str(path) for path in aliases(Path("/home/u/.runloop"), table)] == [
        "/home/u/.runloop",
        "/mnt/again/.runloop",
        "/mnt/with blank",
    ]


@pytest.mark.requirement("F2")
async def test_a_folder_that_is_swapped_while_programs_start_leads_nowhere_else() -> None:
    ran, refused, escaped = await race(1.0)
    assert (ran + refused > 0, escaped) == (True, 0)


# --- missing layers -------------------------------------------------------------------------------


@pytest.mark.requirement("F3")
@pytest.mark.parametrize("missing", [layer.name for layer in look().each])
@pytest.mark.requirement("I6.programs.2")
async def test_a_layer_that_is_missing_is_a_refusal(missing: str) -> None:
    sandbox = Bubblewrap()
    each = tuple(
        Layer(name=layer.name, holds=layer.name != missing, found=layer.found) for layer in look().each
    )
    sandbox._layers = Layers(each=each)
    with pytest.raises(SandboxError, match=missing) as caught:
        await sandbox.run(Program(argv=("/bin/true",)))
    assert caught.value.named_code == "tool.sandbox"


def test_every_layer_holds_here() -> None:
    assert [f"{layer.name}: {layer.found}" for layer in look().missing] == []
