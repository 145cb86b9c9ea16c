"""Our ledger beside the stores that people would use instead, in one run, from Python programs.

    python -m tests.bench stores [--quick] [--only ours,redis] [--rounds 4] [--dir /var/tmp] [--json]

Durable events per second, in groups of 64 and one by one, at two durabilities. *Process*: what was
acknowledged survives the death of the process, and a power cut costs the last moments: ours NORMAL, Redis
streams with ``appendfsync everysec``, JetStream's file store as it comes, PostgreSQL with
``synchronous_commit=off``. *Disk*: what was acknowledged is on the disk: ours FULL, ``appendfsync always``,
``sync_interval: always``, ``synchronous_commit=on``. Ours is the whole step (decode, capability check,
validation, canonical text, chain, insert, route); the others append finished bodies of 450 bytes, and in rows
*with our step* what the same step makes of its envelopes. CPU is client and server together.

All servers are started once and take turns; each round measures every row. docs/internals/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import brokers, build, wire
from tests.bench.load.brokers import first_line, free_port, run, tool
from tests.bench.load.tables import ratio, spread, table

GROUP = 64
PROCESS, DISK = "process", "disk"
Sample = dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Server:
    """A store that runs. ``pids`` is empty for a store inside the client's process."""

    address: str
    pids: list[int]
    version: str


@dataclass(frozen=True, slots=True)
class Row:
    """One way to append: which server, what stores.py calls it, its setting."""

    name: str
    server: str
    kind: str
    setting: str
    durability: str
    groups: tuple[int, ...] = (GROUP, 1)


ROWS = [
    Row("ours, NORMAL", "ours", "ours", "NORMAL", PROCESS),
    Row("ours, NORMAL, journal and views", "ours", "ours-journal", "NORMAL", PROCESS),
    Row("Redis stream, everysec", "redis everysec", "redis", "everysec", PROCESS),
    Row("JetStream file, default", "jetstream default", "jetstream", "default", PROCESS),
    Row("PostgreSQL, sync off", "postgresql", "postgresql", "off", PROCESS),
    Row("PostgreSQL, sync off, COPY", "postgresql", "postgresql", "off+copy", PROCESS, (GROUP,)),
    Row(
        "Redis stream, everysec, with our step", "redis everysec", "redis", "everysec+step", PROCESS, (GROUP,)
    ),
    Row("JetStream file, with our step", "jetstream default", "jetstream", "default+step", PROCESS, (GROUP,)),
    Row("PostgreSQL, sync off, with our step", "postgresql", "postgresql", "off+step", PROCESS, (GROUP,)),
    Row(
        "PostgreSQL, sync off, COPY, with our step",
        "postgresql",
        "postgresql",
        "off+copy+step",
        PROCESS,
        (GROUP,),
    ),
    Row("ours, FULL", "ours", "ours", "FULL", DISK),
    Row("ours, FULL, journal and views", "ours", "ours-journal", "FULL", DISK),
    Row("Redis stream, always", "redis always", "redis", "always", DISK),
    Row("JetStream file, always", "jetstream always", "jetstream", "always", DISK),
    Row("PostgreSQL, sync on", "postgresql", "postgresql", "on", DISK),
    Row("PostgreSQL, sync on, COPY", "postgresql", "postgresql", "on+copy", DISK, (GROUP,)),
    Row("Redis stream, always, with our step", "redis always", "redis", "always+step", DISK, (GROUP,)),
    Row(
        "JetStream file, always, with our step",
        "jetstream always",
        "jetstream",
        "always+step",
        DISK,
        (GROUP,),
    ),
    Row("PostgreSQL, sync on, with our step", "postgresql", "postgresql", "on+step", DISK, (GROUP,)),
    Row(
        "PostgreSQL, sync on, COPY, with our step", "postgresql", "postgresql", "on+copy+step", DISK, (GROUP,)
    ),
]


# --- servers ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ledger(folder: Path) -> Iterator[Server]:
    """Ours is a library in the writer's process; each measurement has a new file."""
    import sqlite3

    yield Server(os.fspath(folder), [], f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}")


@contextlib.contextmanager
def redis(folder: Path, appendfsync: str) -> Iterator[Server]:
    """An append-only file that is never rewritten, which favours it."""
    server = tool("redis-server", "redis-server")
    (folder / "conf").write_text(
        f"port 0\nunixsocket {folder}/s\ndir {folder}\nsave ''\nappendonly yes\nappendfsync {appendfsync}\n"
        "auto-aof-rewrite-percentage 0\ndaemonize no\n"
    )
    with run([server, os.fspath(folder / "conf")], folder=folder) as process:
        wait_for(folder / "s", process)
        yield Server(f"{folder}/s", [process.pid], first_line(server, "--version").split(" sha")[0])


@contextlib.contextmanager
def jetstream(folder: Path, sync: str) -> Iterator[Server]:
    """One file store on the loopback address. Servers before 2.10 flush every two minutes, come what may."""
    server = tool("nats-server", "nats-server")
    port = free_port()
    interval = "sync_interval: always\n" if sync == "always" else ""
    (folder / "conf").write_text(
        f"listen: 127.0.0.1:{port}\njetstream {{\nstore_dir: {folder}/store\n{interval}}}\n"
    )
    argv = [server, "-c", os.fspath(folder / "conf")]
    version = first_line(server, "--version")
    if subprocess.run([*argv, "-t"], capture_output=True, check=False).returncode:
        raise build.Unavailable(f"{version} knows no sync_interval (2.10 does)")
    with run(argv, folder=folder) as process:
        wait_for(("127.0.0.1", port), process)
        yield Server(f"nats://127.0.0.1:{port}#{folder}/store", [process.pid], version)


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[Server]:
    """256 MB of shared buffers, otherwise as it comes. It refuses to run as root: then as its own user."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise build.Unavailable("postgres is missing: apt install postgresql")
    programs = found[-1].parent
    user = None
    if os.geteuid() == 0:
        user = "postgres"
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise build.Unavailable("there is no user postgres, and it does not run as root") from None
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    data = folder / "data"
    initdb = [
        os.fspath(programs / "initdb"),
        "-D",
        os.fspath(data),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
    ]
    with run(initdb, folder=folder, user=user) as process:
        if process.wait(60):
            raise build.Unavailable(f"initdb failed: {(folder / 'output').read_text()[-300:]}")
    argv = [os.fspath(programs / "postgres"), "-D", os.fspath(data), "-k", os.fspath(folder)]
    argv += ["-c", "listen_addresses=", "-c", "shared_buffers=256MB"]
    with run(argv, folder=folder, user=user) as process:
        wait_for(folder / ".s.PGSQL.5432", process)
        yield Server(os.fspath(folder), [process.pid], first_line(argv[0], "--version"))


def wait_for(address: wire.Address, process: subprocess.Popen[bytes]) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + 15
    while True:
        try:
            wire.reach(address, bound_s=0.2).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise build.Unavailable(f"{process.args!r} did not start") from error


SERVERS: dict[str, Any] = {
    "ours": ledger,
    "redis everysec": lambda folder: redis(folder, "everysec"),
    "redis always": lambda folder: redis(folder, "always"),
    "jetstream default": lambda folder: jetstream(folder, "default"),
    "jetstream always": lambda folder: jetstream(folder, "always"),
    "postgresql": postgresql,
}


# --- measuring -------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of short turns, under a minute")
    parser.add_argument("--only", default="", help="names or beginnings of names of rows, by commas")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument(
        "--dir", type=Path, default=Path("/var/tmp"), help="a folder on the disk that is meant"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 4)
    seconds = args.seconds or (0.4 if args.quick else 1.5)
    only = [name.lower() for name in args.only.split(",") if name]
    rows = [row for row in ROWS if not only or any(row.name.lower().startswith(one) for one in only)]
    missing: dict[str, str] = {}
    faults: list[str] = []
    results: dict[tuple[str, int], list[Sample]] = {}
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rlb-", dir=args.dir)))
        base.chmod(0o711)  # PostgreSQL's own user passes through; each folder is closed to others
        running = start(stack, base, {row.server for row in rows}, missing)
        python = ""
        if running.keys() - {"ours"}:
            try:
                python = os.fspath(build.peers_python())
            except build.Unavailable as error:
                missing["Python clients"] = str(error)
        plan = [
            (row, group)
            for row in rows
            for group in row.groups
            if row.server in running and (python or row.server == "ours")
        ]
        flushes: list[float] = []
        for turn in range(rounds):
            flushes.append(flushing(base))
            at = turn * 5 % max(1, len(plan))
            for row, group in plan[at:] + plan[:at]:
                with tempfile.TemporaryDirectory(dir=base) as fresh:
                    sample, why = append(python, running[row.server], row, group, seconds, fresh)
                if why:
                    faults.append(f"{row.name}, group {group}, round {turn + 1}: {why}")
                results.setdefault((row.name, group), []).append(sample)
        versions = {name: server.version for name, server in running.items()}
    if args.json:
        document = {
            "versions": versions,
            "missing": missing,
            "faults": faults,
            "flushes_per_s": flushes,
            "rows": {f"{name}, {group}": samples for (name, group), samples in results.items()},
        }
        print(json.dumps(document, indent=1))
    else:
        show(rows, rounds, flushes, versions, missing, faults, results)
    return 1 if faults else 0


def start(
    stack: contextlib.ExitStack, base: Path, wanted: set[str], missing: dict[str, str]
) -> dict[str, Server]:
    running = {}
    for name, begin in SERVERS.items():
        if name not in wanted:
            continue
        folder = base / name.replace(" ", "-")
        folder.mkdir(mode=0o700)
        try:
            running[name] = stack.enter_context(begin(folder))
        except build.Unavailable as error:
            missing[name] = str(error)
    return running


def flushing(folder: Path) -> float:
    """4 KiB written and on the disk, times per second: what the disk allows at this moment."""
    with (folder / "flushing").open("wb", buffering=0) as file:
        begun = time.perf_counter()
        for _ in range(100):
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
        return 100 / (time.perf_counter() - begun)


def append(
    python: str, server: Server, row: Row, group: int, seconds: float, fresh: str
) -> tuple[Sample, str]:
    """One measurement in a process of its own; the figures, or why there are none."""
    ours = row.server == "ours"
    script = os.fspath(Path(brokers.__file__).with_name("stores.py"))
    # Ours needs the project's own libraries, and a peer behind our step needs both.
    both = "+step" in row.setting
    place = [brokers.PYTHONPATH, *(build.packages_of(python) if both else [])]
    argv = [
        sys.executable if ours or both else python, script, row.kind,
        fresh if ours else server.address, row.setting,
        str(group), str(seconds), ",".join(map(str, server.pids)) or "-",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            timeout=60 + seconds,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(place)},
        )
    except subprocess.TimeoutExpired:
        return None, "no end in time"
    if done.returncode:
        return None, next(reversed(done.stderr.strip().splitlines()), "ended without a word")
    return json.loads(done.stdout), ""


# --- what people read ------------------------------------------------------------------------------------


def show(
    rows: list[Row],
    rounds: int,
    flushes: list[float],
    versions: dict[str, str],
    missing: dict[str, str],
    faults: list[str],
    results: dict[tuple[str, int], list[Sample]],
) -> None:
    print(f"{rounds} rounds; events acknowledged before the next group begins")
    print(f"  the disk: 4 KiB written and flushed {spread(flushes)} times per second")
    for name, version in versions.items():
        print(f"  {name}: {version}")
    for name, why in missing.items():
        print(f"  {name}: not measured: {why}")
    columns = (("per_s", 1e-3), ("cpu_us", 1.0), ("client_us", 1.0), ("server_us", 1.0), ("bytes", 1.0))
    head = ["store", "thousand events/s", "CPU µs/event", "client", "server", "bytes/event"]
    for durability in (PROCESS, DISK):
        for group in (GROUP, 1):
            there = [row for row in rows if row.durability == durability and (row.name, group) in results]
            if not there:
                continue
            print(f"\ndurability: {durability}; {f'groups of {group}' if group > 1 else 'one by one'}")
            lines = []
            for row in there:
                samples = results[row.name, group]
                cells = [
                    spread([sample[key] * scale for sample in samples if sample is not None])
                    for key, scale in columns
                ]
                lines.append([row.name, *cells])
            print(table(head, lines))
            for mine in [row for row in there if row.server == "ours"]:
                show_ratios(mine, [row for row in there if row.server != "ours"], group, results)
    for fault in faults:
        print(f"FAULT {fault}")


def show_ratios(
    mine: Row, others: list[Row], group: int, results: dict[tuple[str, int], list[Sample]]
) -> None:
    lines = []
    for row in others:
        ours, theirs = results[mine.name, group], results[row.name, group]
        lines.append([
            row.name,
            spread(ratio(series(ours, "per_s"), series(theirs, "per_s"))),
            spread(ratio(series(theirs, "cpu_us"), series(ours, "cpu_us"))),
        ])  # fmt: skip
    if lines:
        print(table([f"{mine.name} through", "events/s", "CPU per event"], lines))


def series(samples: list[Sample], key: str) -> list[float | None]:
    return [None if sample is None else sample[key] for sample in samples]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
