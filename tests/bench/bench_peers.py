"""Our bus beside the brokers that people would use instead, in one run.

    python -m tests.bench peers [--quick] [--only redis,ours] [--rounds 5] [--placement onecore|natural]
                                [--part brokers|clients] [--measure 0.2] [--json]

One load generator in C speaks everybody's protocol and compares every byte (tests/bench/load/lg.c). All
brokers are started once and take turns: each round measures every broker in every cell. ``onecore`` pins
broker and load generator to the same core, the one that was idlest just before. Printed: the broker's CPU per
published message, messages per second, ratios ours/theirs of the same round (above 1: ours is ahead), each as
median (min–max). A second part asks the same of Python programs with each broker's own client.

docs/internals/benchmarks.md says what is fair about it and what is not. A broker that is not installed is
named, and nothing else happens; a message lost, repeated, reordered or altered makes the exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runloop.errors import RunloopError
from tests.bench.load import brokers, build, generator
from tests.bench.load.brokers import BROKERS, Broker
from tests.bench.load.tables import ratio, spread, table

FLOWS = ("1→1", "1→8", "8→8")
Cell = tuple[int, str]
FULL: list[Cell] = [
    *((size, pattern) for size in (64, 256, 1024, 65_536) for pattern in FLOWS),
    (64, "1→8 topics"),
    *((size, "call") for size in (64, 1024, 65_536)),
]
QUICK: list[Cell] = [(64, "1→1"), (64, "1→8"), (65_536, "1→1"), (64, "call")]
Sample = dict[str, float] | None
Results = dict[str, dict[Cell, list[Sample]]]

CLIENTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "ours, blocking, receipts": ("ours", "ours", ()),
    "ours, blocking, no receipts": ("ours", "ours", ("many",)),
    "ours, asyncio, receipts": ("ours", "ours-asyncio", ()),
    "ours, asyncio, no receipts": ("ours", "ours-asyncio", ("many",)),
    "redis-py + hiredis": ("redis", "redis", ()),
    "redis-py + hiredis, pipeline": ("redis", "redis", ("many",)),
    "nats-py (asyncio)": ("nats", "nats", ()),
    "pyzmq": ("zeromq", "zeromq", ()),
    "paho-mqtt, QoS 0": ("mosquitto", "mosquitto", ()),
    "dbus-fast (asyncio)": ("dbus-broker", "dbus", ()),
}
"""Row: the broker (the first that runs and begins so), what clients.py calls it, further words for it."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer cells and rounds, under a minute")
    parser.add_argument("--only", default="", help="names or beginnings of names, by commas")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--measure", type=float, default=0.2, help="seconds of each measurement")
    parser.add_argument("--placement", choices=("onecore", "natural"), default="onecore")
    parser.add_argument("--part", choices=("brokers", "clients", "both"), default="both")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 5)
    cells = QUICK if args.quick else FULL
    only = [name for name in args.only.split(",") if name]
    onecore = args.placement == "onecore"
    with contextlib.ExitStack() as stack:
        running, missing = start(stack, only, idlest() if onecore else None)
        faults: list[str] = []
        results: Results = {}
        if args.part != "clients":
            results = measure_brokers(running, cells, rounds, args.measure, onecore=onecore, faults=faults)
        clients: dict[str, list[Sample]] = {}
        if args.part != "brokers":
            seconds = 0.3 if args.quick else 0.5
            turns = rounds if args.part == "clients" else max(1, rounds - 2)
            clients = measure_clients(running, turns, seconds, missing, faults)
        versions = {name: broker.version for name, broker in running.items()}
    if args.json:
        print(as_json(args.placement, versions, missing, faults, results, clients))
    else:
        show(args.placement, versions, missing, faults, cells, rounds, results, clients)
    return 1 if faults else 0


def start(
    stack: contextlib.ExitStack, only: list[str], core: int | None
) -> tuple[dict[str, Broker], dict[str, str]]:
    """Everybody that is installed, and why the others are not here."""
    running: dict[str, Broker] = {}
    missing: dict[str, str] = {}
    build.program("lg")
    for name, begin in BROKERS.items():
        if only and not any(name.startswith(one) for one in only):
            continue
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rlb-")))
        try:
            broker = stack.enter_context(begin(folder, core))
            broker.wire.publisher().close()
        except build.Unavailable as error:
            missing[name] = str(error)
        except (OSError, RunloopError) as error:
            said = (folder / "output").read_text(errors="replace") if (folder / "output").exists() else ""
            missing[name] = f"it does not answer: {error}; {last_line(said)}"
        else:
            broker.wire.close()
            running[name] = broker
    return running, missing


def measure_brokers(
    running: dict[str, Broker],
    cells: list[Cell],
    rounds: int,
    seconds: float,
    *,
    onecore: bool,
    faults: list[str],
) -> Results:
    results: Results = {name: {cell: [] for cell in cells} for name in running}
    for number_ in range(rounds):
        families = {name: brokers.family(broker.pids) for name, broker in running.items()}
        for size, pattern in cells:
            core = idlest() if onecore else None
            if core is not None:
                for pids in families.values():
                    pin(pids, core)
            # A different one begins each time: whatever comes in waves does not always meet the same broker.
            names = list(running)
            turn = (number_ * len(cells) + cells.index((size, pattern))) % len(names)
            for name in names[turn:] + names[:turn]:
                sample: Sample = None
                try:
                    sample = generator.measure(
                        running[name].wire, pattern, size, pids=families[name], warm_s=min(0.1, seconds / 2),
                        measure_s=seconds, core=core,
                    )  # fmt: skip
                except (generator.Fault, OSError) as error:
                    faults.append(f"{name}, {label(size)}, {pattern}, round {number_ + 1}: {error}")
                results[name][size, pattern].append(sample)
    return results


def measure_clients(
    running: dict[str, Broker],
    rounds: int,
    seconds: float,
    missing: dict[str, str],
    faults: list[str],
) -> dict[str, list[Sample]]:
    """Request and publish from Python; client, server and broker on one core."""
    python = ""
    if any(not name.startswith("ours") for name in running):
        try:
            python = os.fspath(build.peers_python())
        except build.Unavailable as error:
            missing["other people's Python clients"] = str(error)
    results: dict[str, list[Sample]] = {}
    for _ in range(rounds):
        for row, (wanted, kind, words) in CLIENTS.items():
            name = next((name for name in running if name.startswith(wanted)), None)
            if name is None or row in missing or not (python or wanted == "ours"):
                continue
            core = idlest()
            pin(brokers.family(running[name].pids), core)
            interpreter = sys.executable if kind.startswith("ours") else python
            sample, why = converse(interpreter, running[name], kind, words, seconds, core)
            if why.startswith("missing"):
                missing[row] = why.removeprefix("missing: ")
                continue
            if why:
                faults.append(f"{row}: {why}")
            results.setdefault(row, []).append(sample)
    return results


def converse(
    python: str, broker: Broker, kind: str, words: tuple[str, ...], seconds: float, core: int
) -> tuple[Sample, str]:
    """A serving process and an asking one; the figures, or why there are none."""
    wire = broker.wire
    ends = [wire.address, *([wire.outlet] if hasattr(wire, "outlet") else [])]
    addresses = [os.fspath(end) if isinstance(end, Path) else f"nats://{end[0]}:{end[1]}" for end in ends]
    script = os.fspath(Path(generator.__file__).with_name("clients.py"))
    env = {**os.environ, "PYTHONPATH": brokers.PYTHONPATH if kind.startswith("ours") else ""}

    def begin(*role: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [python, script, kind, *addresses, *role, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )

    server = begin("serve", "0")
    asker = None
    try:
        assert server.stdout is not None
        if server.stdout.readline() != "ready\n":
            return None, last_line(server.communicate(timeout=10)[1])
        asker = begin("ask", str(seconds))
        printed, complaint = asker.communicate(timeout=30 + 4 * seconds)
        if asker.returncode:
            return None, last_line(complaint)
        return json.loads(printed), ""
    except subprocess.TimeoutExpired:
        return None, "no end in time"
    finally:
        for process in (server, asker):
            if process is not None and process.poll() is None:
                process.kill()
            if process is not None:
                process.communicate()


def last_line(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "ended without a word")


# --- the machine -----------------------------------------------------------------------------------------


def idlest() -> int:
    """The core that did least in a tenth of a second."""

    def busy() -> dict[int, int]:
        found = {}
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith("cpu") and line[3].isdigit():
                fields = line.split()
                idle = int(fields[4]) + int(fields[5])
                found[int(fields[0][3:])] = sum(int(field) for field in fields[1:9]) - idle
        return found

    allowed = os.sched_getaffinity(0)
    before = busy()
    time.sleep(0.1)
    after = busy()
    return min(allowed, key=lambda core: after[core] - before[core])


def pin(pids: list[int], core: int) -> None:
    """All threads of these processes to one core."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), {core})


# --- what people read ------------------------------------------------------------------------------------


def label(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size // 1024} KiB"


def values(samples: list[Sample], key: str, scale: float = 1.0) -> list[float]:
    return [sample[key] * scale for sample in samples if sample is not None]


def series(samples: list[Sample], key: str) -> list[float | None]:
    return [None if sample is None else sample[key] for sample in samples]


def show(
    placement: str,
    versions: dict[str, str],
    missing: dict[str, str],
    faults: list[str],
    cells: list[Cell],
    rounds: int,
    results: Results,
    clients: dict[str, list[Sample]],
) -> None:
    messages, size = generator.WINDOW
    print(
        f"{rounds} rounds, placement {placement}, at most {messages} messages and {size >> 20} MiB under way"
    )
    for name, version in versions.items():
        print(f"  {name}: {version}")
    for name, why in missing.items():
        print(f"  {name}: not measured: {why}")
    sizes = list(dict.fromkeys(size for size, _ in cells))
    for size in sizes if results else ():
        flows = [pattern for one, pattern in cells if one == size and pattern != "call"]
        for key, what, scale in (("cpu_us", "broker CPU, µs per published message", 1.0),
                                 ("per_s", "thousand published messages per second", 1e-3)):  # fmt: skip
            print(f"\n{label(size)}: {what}")
            rows = [
                [name, *(spread(values(results[name][size, flow], key, scale)) for flow in flows)]
                for name in results
            ]
            print(table(["broker", *flows], rows))
    asked = [size for size, pattern in cells if pattern == "call"]
    if results and asked:
        print("\nrequest and reply through the broker, one at a time: two hops; µs")
        head = [f"{label(size)} {what}" for size in asked for what in ("p50", "p99", "CPU")]
        rows = [
            [name, *(spread(values(results[name][size, "call"], key))
                     for size in asked for key in ("p50_us", "p99_us", "cpu_us"))]
            for name in results
        ]  # fmt: skip
        print(table(["broker", *head], rows))
    for ours in [name for name in results if name.startswith("ours")]:
        show_ratios(ours, cells, results)
    if clients:
        show_clients(clients, list(versions))
    for fault in faults:
        print(f"FAULT {fault}")


def show_ratios(ours: str, cells: list[Cell], results: Results) -> None:
    peers = [name for name in results if not name.startswith("ours")]
    if not peers:
        return
    print(f"\nratios, {ours} through each peer, above 1: ours ahead. CPU per message / messages per second")
    rows = []
    for size, pattern in cells:
        row = [f"{label(size)} {pattern}"]
        for peer in peers:
            mine, other = results[ours][size, pattern], results[peer][size, pattern]
            cpu = ratio(series(other, "cpu_us"), series(mine, "cpu_us"))
            speed = (
                ratio(series(other, "p50_us"), series(mine, "p50_us"))
                if pattern == "call"
                else ratio(series(mine, "per_s"), series(other, "per_s"))
            )
            row.append(f"{spread(cpu)} / {spread(speed)}")
        rows.append(row)
    print(table(["cell (call: CPU / p50)", *peers], rows))


def running_as(row: str, names: list[str]) -> str:
    """The broker that a row of clients talks to."""
    return next(name for name in names if name.startswith(CLIENTS[row][0]))


def show_clients(clients: dict[str, list[Sample]], names: list[str]) -> None:
    print("\nfrom Python programs: 64 B, each broker's own client, client and server and broker on one core")
    keys = (("p50_us", 1.0), ("p99_us", 1.0), ("per_s", 1e-3), ("cpu_us", 1.0))
    rows = [
        [row, running_as(row, names), *(spread(values(samples, key, scale)) for key, scale in keys)]
        for row, samples in clients.items()
    ]
    head = ["client (Python)", "broker", "request p50 µs", "p99 µs", "publish k/s", "publisher CPU µs"]
    print(table(head, rows))
    for ours in [row for row in clients if row.startswith("ours")]:
        rows = []
        for row, samples in clients.items():
            if not row.startswith("ours"):
                asked = ratio(series(samples, "p50_us"), series(clients[ours], "p50_us"))
                told = ratio(series(clients[ours], "per_s"), series(samples, "per_s"))
                rows.append([row, spread(asked), spread(told)])
        if rows:
            print(f"\nratios, {ours}")
            print(table(["through", "request p50", "publish"], rows))


def as_json(
    placement: str,
    versions: dict[str, str],
    missing: dict[str, str],
    faults: list[str],
    results: Results,
    clients: dict[str, list[Sample]],
) -> str:
    document: dict[str, Any] = {
        "placement": placement,
        "versions": versions,
        "missing": missing,
        "faults": faults,
        "brokers": {
            name: {f"{label(size)} {pattern}": samples for (size, pattern), samples in by_cell.items()}
            for name, by_cell in results.items()
        },
        "clients": clients,
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
