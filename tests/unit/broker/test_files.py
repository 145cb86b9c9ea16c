"""Files below a granted root, on the real file system: what is reached, and what never is."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runloop.digest import blob_digest
from runloop.errors import ConflictError, NotFoundError, RunloopError, UsageError
from runloopd.broker.providers import walk
from runloopd.broker.providers.files import ABSENT, MAX_WRITE_BYTES, Files, Write
from runloopd.broker.providers.walk import Place, place

SECRET = b"the secret outside"
NOBODY = 65_534


class Ground:
    """A granted directory, a directory beside it, and Runloop's home."""

    def __init__(self, base: Path) -> None:
        self.root, self.outside, self.home = base / "docs", base / "docs-private", base / "home"
        for folder in (self.root, self.root / "sub", self.outside, self.home):
            folder.mkdir()
        (self.root / "a.txt").write_bytes(b"inside")
        (self.root / "sub" / "f").write_bytes(b"inside")
        (self.outside / "f").write_bytes(SECRET)
        self.files = Files([self.home])

    def at(self, name: str) -> Place:
        return place(f"{self.root}/{name}" if name else str(self.root), str(self.root))

    def to_write(self, name: str, data: bytes = b"new", expected: str | None = None, key: str = "k") -> Write:
        return Write(place=self.at(name), data=data, expected=expected, key=key * 64)

    async def read(self, name: str) -> bytes:
        return (await self.files.read(self.at(name), 0, 1000)).data

    async def write(self, name: str, data: bytes = b"new", expected: str | None = None) -> None:
        made = self.to_write(name, data, expected)
        await self.files.prepare(made)
        try:
            await self.files.commit(made)
        except RunloopError:
            await self.files.discard(made)
            raise

    def left(self) -> list[str]:
        """Everything in the root but what was there."""
        return sorted(set(names(self.root)) - {"a.txt", "sub"})


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    made = Ground(tmp_path)
    yield made
    await made.files.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def refused(work: Any) -> str:
    with pytest.raises(RunloopError) as caught:
        await work
    return caught.value.named_code


# --- what is there --------------------------------------------------------------------------------


async def test_a_file_is_read_in_slices(ground: Ground) -> None:
    part = await ground.files.read(ground.at("a.txt"), 2, 3)
    assert (part.data, part.offset, part.size) == (b"sid", 2, 6)
    assert (await ground.files.read(ground.at("a.txt"), 99, 3)).data == b""


async def test_a_new_file_is_the_users_alone_and_a_replaced_one_keeps_its_permissions(ground: Ground) -> None:
    await ground.write("new.txt", b"x")
    assert stat.S_IMODE((ground.root / "new.txt").stat().st_mode) == 0o600
    (ground.root / "a.txt").chmod(0o640)
    before = (ground.root / "a.txt").stat().st_ino
    await ground.write("a.txt", b"other")
    after = (ground.root / "a.txt").stat()
    assert (stat.S_IMODE(after.st_mode), (ground.root / "a.txt").read_bytes()) == (0o640, b"other")
    assert after.st_ino != before, "written in place: half of it could have been seen"
    assert ground.left() == ["new.txt"]


async def test_set_id_bits_do_not_outlive_a_write(ground: Ground) -> None:
    (ground.root / "a.txt").chmod(0o4755)
    await ground.write("a.txt")
    assert stat.S_IMODE((ground.root / "a.txt").stat().st_mode) == 0o755


async def test_a_directory_is_listed_by_bytes_and_in_pages(ground: Ground) -> None:
    for name in ("b", "B", "ä", "z"):
        (ground.root / name).write_bytes(b"12")
    (ground.root / "link").symlink_to("/etc")
    os.mkfifo(ground.root / "pipe")
    found = await ground.files.list(ground.at(""), "", 1000)
    assert found.entries == (
        ("B", "file", 2),
        ("a.txt", "file", 6),
        ("b", "file", 2),
        ("link", "symlink", 0),
        ("pipe", "other", 0),
        ("sub", "dir", 0),
        ("z", "file", 2),
        ("ä", "file", 2),
    )
    assert not found.truncated
    page = await ground.files.list(ground.at(""), "b", 2)
    assert [name for name, _, _ in page.entries] == ["link", "pipe"]
    assert page.truncated


async def test_names_that_are_no_text_are_counted_and_not_shown(ground: Ground) -> None:
    for name in (b"caf\xe9", b"line\nbreak", b"tab\t"):
        (Path(os.fsdecode(os.fsencode(ground.root) + b"/" + name))).write_bytes(b"")
    found = await ground.files.list(ground.at("sub"), "", 10)
    assert [name for name, _, _ in found.entries] == ["f"]
    found = await ground.files.list(ground.at(""), "", 10)
    assert ([name for name, _, _ in found.entries], found.skipped) == (["a.txt", "sub"], 3)


async def test_a_directory_is_listed_up_to_a_bound(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runloopd.broker.providers.files.MAX_SCAN", 1)
    assert await refused(ground.files.list(ground.at(""), "", 10)) == "fs.entries"


async def test_a_digest_is_told_for_what_can_be_written(ground: Ground) -> None:
    seen = await ground.files.stat(ground.at("a.txt"), digest=True)
    assert (seen.kind, seen.size, seen.digest) == ("file", 6, blob_digest(b"inside"))
    with (ground.root / "big").open("wb") as file:
        file.truncate(MAX_WRITE_BYTES + 1)
    assert await refused(ground.files.stat(ground.at("big"), digest=True)) == "fs.size"
    assert await refused(ground.write("big")) == "fs.size"
    assert (await ground.files.stat(ground.at("big"), digest=False)).size == MAX_WRITE_BYTES + 1
    assert (await ground.files.stat(ground.at("sub"), digest=True)).kind == "dir"


# --- F1: what is never reached --------------------------------------------------------------------


def hostile(ground: Ground) -> dict[str, str]:
    """Name in the root -> the refusal it meets."""
    (ground.root / "to-file").symlink_to(ground.outside / "f")
    (ground.root / "to-folder").symlink_to(ground.outside)
    (ground.root / "to-inside").symlink_to("a.txt")
    (ground.root / "dangling").symlink_to("nowhere")
    (ground.root / "magic").symlink_to("/proc/self/root")
    os.link(ground.outside / "f", ground.root / "hard")
    os.mkfifo(ground.root / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    try:
        os.chdir(ground.root)
        listener.bind("sock")
    finally:
        os.chdir(here)
        listener.close()
    return {
        "to-file": "fs.symlink",
        "to-folder": "fs.symlink",
        "to-folder/f": "fs.symlink",
        "to-inside": "fs.symlink",
        "dangling": "fs.symlink",
        "magic": "fs.symlink",
        "magic/etc/passwd": "fs.symlink",
        "hard": "fs.hardlink",
        "pipe": "fs.fifo",
        "pipe/x": "fs.fifo",
        "sock": "fs.socket",
        "a.txt/x": "fs.not_dir",
        "sub": "fs.not_file",
    }


@pytest.mark.requirement("F1")
async def test_no_name_in_a_granted_directory_leads_out_of_it(ground: Ground) -> None:
    for name, code in hostile(ground).items():
        assert await asyncio.wait_for(refused(ground.read(name)), 20) == code, name
        assert await asyncio.wait_for(refused(ground.write(name)), 20) == code, name
    assert (ground.outside / "f").read_bytes() == SECRET
    assert (ground.root / "to-file").readlink() == ground.outside / "f"
    assert names(ground.outside) == ["f"]
    assert not [name for name in ground.left() if name.startswith(".runloop-")]


@pytest.mark.requirement("F1")
async def test_a_device_is_no_file(tmp_path: Path) -> None:
    files = Files([tmp_path])
    for path, codes in (
        ("/dev/null", {"fs.system", "fs.mount"}),
        ("/dev", {"fs.system", "fs.mount"}),
        ("/proc/self/root/etc/passwd", {"fs.mount"}),
        ("/sys/kernel/mm", {"fs.mount"}),
    ):
        assert await refused(files.stat(place(path, "/"), digest=False)) in codes, path
    for root in ("/proc", "/proc/self", "/sys", "/dev", "/dev/shm"):
        code = await refused(files.list(place(root, root), "", 10))
        assert code in ("fs.system", "fs.symlink"), root
    await files.close()


@pytest.mark.requirement("F1")
def test_a_device_node_in_a_granted_directory_is_refused_before_it_is_opened() -> None:
    for mode in (stat.S_IFCHR, stat.S_IFBLK):
        assert walk.odd(mode | 0o600, Place("/a", (b"b",), "/a/b")).named_code == "fs.device"


@pytest.mark.requirement("F1")
@pytest.mark.parametrize(
    "path",
    ["", "a", "./a", "/a/../b", "/a/./b", "/a//b", "/a/", "//a", "/a\0b", "/a\nb", "/..", "/\ud800",
     "/" + "x" * 256, "/x" * 129, "/" + "x/" * 2047 + "xx"],
)  # fmt: skip
def test_a_path_is_written_out_or_refused(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        place(path, "/")
    assert caught.value.named_code == "fs.path"


@pytest.mark.requirement("F1")
async def test_a_sibling_with_the_same_beginning_lies_outside(ground: Ground) -> None:
    with pytest.raises(UsageError):
        place(str(ground.outside / "f"), str(ground.root))


GROUNDS: list[Ground] = []
"""One for all examples."""

SPELLINGS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            ["..", ".", "", "sub", "f", "to-file", "to-folder", "magic", "hard", "pipe", "proc", "self",
             "root", "docs-private", "a.txt", "\0", "%2e%2e", "\u2024\u2024", "..\u200b", "~", "-", "*"]
        ),
        max_size=8,
    ).map("/".join),
)  # fmt: skip


@pytest.mark.requirement("F1")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=SPELLINGS)
def test_no_spelling_of_a_path_reads_what_lies_outside(tmp_path_factory: Any, tail: str) -> None:
    if not GROUNDS:
        GROUNDS.append(Ground(tmp_path_factory.mktemp("spelled")))
        hostile(GROUNDS[0])
    (ground,) = GROUNDS

    async def tried() -> None:
        try:
            data = await ground.read(tail)
        except RunloopError as error:
            assert error.named_code.startswith("fs."), error
        else:
            assert data == b"inside"

    asyncio.run(tried())


async def test_a_link_above_the_root_is_refused_too(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(ground.root)
    there = place(str(tmp_path / "alias" / "a.txt"), str(tmp_path / "alias"))
    assert await refused(ground.files.read(there, 0, 10)) == "fs.symlink"


async def test_a_fifo_never_blocks_even_with_a_writer_waiting(ground: Ground) -> None:
    os.mkfifo(ground.root / "pipe")
    for work in (ground.read("pipe"), ground.write("pipe")):
        assert await asyncio.wait_for(refused(work), 20) == "fs.fifo"


@pytest.mark.requirement("F1")
def test_what_is_mounted_below_a_root_and_what_is_mounted_from_home_is_refused(tmp_path: Path) -> None:
    """In a mount namespace of its own; both a folder and a single file of Runloop's home are bound in."""
    ground = Ground(tmp_path)
    for folder in (ground.home / "keys", ground.root / "bound", ground.root / "keys"):
        folder.mkdir()
    (ground.home / "keys" / "operator.key").write_bytes(SECRET)
    (ground.root / "file").write_bytes(b"")
    script = f"""
set -e
mount --bind {ground.outside} {ground.root}/bound
mount --bind {ground.home}/keys {ground.root}/keys
mount --bind {ground.home}/keys/operator.key {ground.root}/file
exec {sys.executable} - <<'PY'
import asyncio
from pathlib import Path
from runloopd.broker.providers.files import Files
from runloopd.broker.providers.walk import place
files = Files([Path("{ground.home}")])
def code(path, root):
    try:
        asyncio.run(files.read(place(path, root), 0, 10))
    except Exception as error:
        return error.named_code
    return "read"
root = "{ground.root}"
print(code(root + "/bound/f", root), code(root + "/bound/f", root + "/bound"),
      code(root + "/keys/operator.key", root), code(root + "/keys/operator.key", root + "/keys"),
      code(root + "/file", root), code(root + "/file", root + "/file"))
PY
"""
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        ["unshare", *flags, "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine gives tests no mount namespace")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fs.mount", "read", "fs.mount", "fs.own", "fs.mount", "fs.own"]


async def test_a_kernel_without_openat2_refuses_instead_of_walking_another_way(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "_OPENAT2", 100_000)  # a number no kernel has
    assert await refused(ground.read("a.txt")) == "fs.unsupported"
    assert await refused(ground.write("a.txt")) == "fs.unsupported"
    assert (ground.root / "a.txt").read_bytes() == b"inside"


def test_what_the_system_does_not_permit_is_refused(tmp_path: Path) -> None:
    """As an ordinary user: root may do anything."""
    ground = Ground(tmp_path)
    for folder in (ground.root, ground.home):
        folder.chmod(0o755)
    (ground.root / "a.txt").chmod(0o000)
    (ground.root / "sub" / "f").chmod(0o444)
    (ground.root / "sub").chmod(0o555)
    (ground.root / "kept").write_bytes(b"read only, in a folder that is not")
    (ground.root / "kept").chmod(0o444)
    if os.geteuid() == 0:
        ours = [folder for folder in (tmp_path, *tmp_path.parents) if "pytest-of" in str(folder)]
        for folder in ours:  # one level more under several workers
            folder.chmod(folder.stat().st_mode | 0o011)
        for path in (ground.root, *ground.root.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    script = f"""
import asyncio, os
from pathlib import Path
from runloopd.broker.providers.files import Files, Write
from runloopd.broker.providers.walk import place
files = Files([Path({str(ground.home)!r})])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
    # A process that changed its user is not dumpable, and may not look into its own /proc until it is.
    import ctypes
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
root = {str(ground.root)!r}
def tried(work):
    async def one():
        return await work()
    try:
        return asyncio.run(one()) or "done"
    except Exception as error:
        return getattr(error, "named_code", repr(error))
at = lambda name: place(root + "/" + name, root)
write = lambda name: files.prepare(Write(place=at(name), data=b"x", expected=None, key="k" * 64))
print(tried(lambda: files.read(at("a.txt"), 0, 9)), tried(lambda: write("a.txt")),
      tried(lambda: write("sub/f")), tried(lambda: write("kept")),
      tried(lambda: write("sub/new")), tried(lambda: write("new")),
      tried(lambda: files.read(at("sub/f"), 0, 9)).data.decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*["fs.permission"] * 5, "done", "inside"]


# --- F2: what was checked is what is used ---------------------------------------------------------


class Attacker:
    """Swaps two names of a directory, for ever and at once, in a thread of its own."""

    def __init__(self, *pairs: tuple[Path, Path]) -> None:
        self._pairs = pairs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.swaps = 0

    def _run(self) -> None:
        folders = [
            (os.open(one.parent, os.O_RDONLY | os.O_DIRECTORY), one.name.encode(), other.name.encode())
            for one, other in self._pairs
        ]
        while not self._stop.is_set():
            for folder, one, other in folders:
                try:
                    walk.exchange(folder, one, other)
                    self.swaps += 1
                except OSError as error:
                    assert error.errno == errno.ENOENT
        for folder, _, _ in folders:
            os.close(folder)

    def __enter__(self) -> Attacker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.requirement("F2")
async def test_a_racing_thread_that_swaps_folders_and_files_for_links_never_gets_anything_out(
    ground: Ground,
) -> None:
    (ground.root / "sub.link").symlink_to(ground.outside)
    (ground.root / "file.link").symlink_to(ground.outside / "f")
    (ground.root / "file").write_bytes(b"inside")
    pairs = (
        (ground.root / "sub", ground.root / "sub.link"),
        (ground.root / "file", ground.root / "file.link"),
    )
    ends: dict[str, int] = {}
    with Attacker(*pairs) as attacker:
        for number in range(400):
            name = ("sub/f", "file")[number % 2]
            try:
                if number % 4 < 2:
                    data = await ground.read(name)
                    assert data.startswith(b"inside"), "escaped"
                else:
                    await ground.write(name, b"inside %d" % number)
                ends["done"] = ends.get("done", 0) + 1
            except RunloopError as error:
                ends[error.named_code] = ends.get(error.named_code, 0) + 1
    assert attacker.swaps > 100
    assert set(ends) <= {"done", "fs.symlink", "fs.absent", "fs.changed"}, ends
    assert names(ground.outside) == ["f"]
    assert (ground.outside / "f").read_bytes() == SECRET


def steps(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many names a piece of work opens."""
    honest, seen = walk.open_name, [0]

    def counting(*args: Any, **more: Any) -> int:
        seen[0] += 1
        return honest(*args, **more)

    patch(monkeypatch, counting)
    asyncio.run(work())
    patch(monkeypatch, honest)
    return seen[0]


def patch(monkeypatch: pytest.MonkeyPatch, opener: Any) -> None:
    monkeypatch.setattr("runloopd.broker.providers.walk.open_name", opener)
    monkeypatch.setattr("runloopd.broker.providers.files.open_name", opener)


@pytest.mark.requirement("F2")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["folder", "file", "hard link"])
def test_a_swap_at_any_step_of_the_walk_reads_and_writes_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, what: str
) -> None:
    """The attacker moves exactly once, at every step in turn: no luck is needed."""
    plain = Ground(made(tmp_path / "count"))
    count = steps(lambda: both(plain), monkeypatch)
    assert count > 6
    for step in range(count):
        ground = Ground(made(tmp_path / str(step)))
        one = "sub" if what == "folder" else "sub/f"
        if what == "hard link":
            os.link(ground.outside / "f", ground.root / "sub" / "x")
        else:
            (ground.root / f"{one}x").symlink_to(ground.outside / ("" if what == "folder" else "f"))
        other = "sub/x" if what == "hard link" else f"{one}x"
        honest, seen = walk.open_name, [0]

        def swapping(
            *args: Any, step: int = step, ground: Ground = ground, one: str = one, other: str = other,
            honest: Any = honest, seen: list[int] = seen, **more: Any,
        ) -> int:  # fmt: skip
            seen[0] += 1
            mine = seen[0] - 1 == step
            if mine and when == "before":
                swap(ground.root / one, ground.root / other)
            found: int = honest(*args, **more)
            if mine and when == "after":
                swap(ground.root / one, ground.root / other)
            return found

        patch(monkeypatch, swapping)
        try:
            asyncio.run(both(ground))
        except RunloopError as error:
            assert error.named_code in ("fs.symlink", "fs.hardlink", "fs.absent", "fs.changed"), error
        patch(monkeypatch, honest)
        assert (ground.outside / "f").read_bytes() == SECRET
        assert names(ground.outside) == ["f"]


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def swap(one: Path, other: Path) -> None:
    folder = os.open(one.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        walk.exchange(folder, one.name.encode(), other.name.encode())
    finally:
        os.close(folder)


async def both(ground: Ground) -> None:
    """Read and write, as an agent would."""
    assert await ground.read("sub/f") == b"inside"
    await ground.write("sub/f", b"inside")


@pytest.mark.requirement("F2")
async def test_a_second_name_that_appears_between_look_and_reading_is_seen(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = walk.reopened

    def linking(handle: int, flags: int) -> Any:
        (ground.outside / "alias").hardlink_to(ground.root / "a.txt")
        return honest(handle, flags)

    monkeypatch.setattr("runloopd.broker.providers.files.reopened", linking)
    assert await refused(ground.read("a.txt")) == "fs.hardlink"


# --- writes ---------------------------------------------------------------------------------------


async def test_an_expected_digest_must_be_that_of_the_file(ground: Ground) -> None:
    now = blob_digest(b"inside")
    await ground.write("a.txt", b"second", now)
    with pytest.raises(ConflictError):
        await ground.write("a.txt", b"third", now)
    with pytest.raises(ConflictError):
        await ground.write("a.txt", b"third", ABSENT)
    await ground.write("new.txt", b"x", ABSENT)
    with pytest.raises(ConflictError):
        await ground.write("none.txt", b"x", now)
    assert (ground.root / "a.txt").read_bytes() == b"second"
    assert ground.left() == ["new.txt"]


@pytest.mark.requirement("F2")
@pytest.mark.parametrize("expected", [None, blob_digest(b"inside")])
async def test_what_somebody_saved_in_the_last_moment_is_put_back(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, expected: str | None
) -> None:
    honest = walk.exchange
    saved: list[int] = []

    def late(folder: int, one: bytes, other: bytes) -> None:
        if not saved:
            (ground.root / "a.swp").write_bytes(b"the user's own")
            (ground.root / "a.swp").rename(ground.root / "a.txt")
            saved.append(1)
        honest(folder, one, other)

    monkeypatch.setattr("runloopd.broker.providers.files.exchange", late)
    with pytest.raises(ConflictError):
        await ground.write("a.txt", b"the agent's", expected)
    assert saved
    assert (ground.root / "a.txt").read_bytes() == b"the user's own"
    assert ground.left() == []


async def test_a_file_that_appears_in_the_last_moment_is_not_replaced(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = walk.name_anew

    def late(folder: int, old: bytes, new: bytes) -> None:
        (ground.root / "new").write_bytes(b"the user's own")
        honest(folder, old, new)

    monkeypatch.setattr("runloopd.broker.providers.files.name_anew", late)
    assert await refused(ground.write("new")) == "fs.changed"
    assert (ground.root / "new").read_bytes() == b"the user's own"


async def test_names_of_prepared_files_are_nobodys(ground: Ground) -> None:
    name = ".runloop-" + "k" * 32 + ".tmp"
    (ground.root / name).write_bytes(SECRET)
    assert await refused(ground.read(name)) == "fs.own"
    assert await refused(ground.write(name)) == "fs.own"
    assert name not in [entry for entry, _, _ in (await ground.files.list(ground.at(""), "", 10)).entries]


async def test_a_prepared_write_shows_nothing_under_its_name(ground: Ground) -> None:
    write = ground.to_write("a.txt")
    await ground.files.prepare(write)
    assert await ground.read("a.txt") == b"inside"
    assert await ground.files.outcome(write) == "absent"
    await ground.files.commit(write)
    assert await ground.files.outcome(write) == "done"
    (ground.root / "a.txt").write_bytes(b"somebody came later")
    assert await ground.files.outcome(write) == "unknown"


async def test_a_crash_between_the_exchange_and_the_tidying_up_is_a_write_that_happened(
    ground: Ground,
) -> None:
    write = ground.to_write("a.txt")
    await ground.files.prepare(write)
    swap(ground.root / "a.txt", ground.root / write.beside.decode())
    assert await ground.files.outcome(write) == "done"
    assert ground.left() == []


async def test_a_write_needs_its_directory_and_a_file_name(ground: Ground) -> None:
    with pytest.raises(NotFoundError):
        await ground.write("none/f")
    assert await refused(ground.write("")) == "fs.not_file"
    assert await refused(ground.files.list(ground.at("a.txt"), "", 9)) == "fs.not_dir"


# --- F4: Runloop's own ----------------------------------------------------------------------------


@pytest.mark.requirement("F4")
async def test_no_grant_reaches_runloops_home_by_whatever_name(tmp_path: Path) -> None:
    home, docs = made(tmp_path / "home"), made(tmp_path / "docs")
    for name in ("pog/events.db", "keys/operator.key", "run/rmp.sock", "trust.toml", "bundles/x/agent.py"):
        (home / name).parent.mkdir(exist_ok=True, parents=True)
        (home / name).write_bytes(SECRET)
    os.link(home / "keys" / "operator.key", docs / "hard")
    (docs / "soft").symlink_to(home)
    files = Files([home])
    inside = [home, *home.rglob("*")]
    assert len(inside) > 9
    for path in inside:
        for root in ("/", str(tmp_path), str(home), str(path)):
            there = place(str(path), root)
            for work in (
                files.read(there, 0, 10),
                files.stat(there, digest=False),
                files.list(there, "", 10),
                files.prepare(Write(place=there, data=b"x", expected=None, key="k" * 64)),
            ):
                code = await refused(work)
                assert code == "fs.own" or (code == "fs.not_file" and path == Path(root)), (path, root)
    for name, code in (("hard", "fs.own"), ("soft/trust.toml", "fs.symlink")):
        assert await refused(files.read(place(str(docs / name), "/"), 0, 10)) == code
    beside = await files.list(place(str(tmp_path), "/"), "", 10)
    assert [name for name, _, _ in beside.entries] == ["docs"], "even the name of the home is not told"
    home.rename(tmp_path / "moved")
    home.symlink_to(tmp_path / "moved")
    assert await refused(files.list(place(str(tmp_path / "moved"), "/"), "", 10)) == "fs.own"
    await files.close()
