"""How fast a run replays, as a multiple of the live run.

    python -m tests.bench replay [--rounds 7] [--nodes 240]

Two openings on one warm daemon: ``compose_email`` (five agents, host calls, frames) without the time of the
human, and a wide opening of many nodes with an agent that does next to nothing. Each round runs both live and
replays both at once, so that whatever else the machine does hits both. Live: from ``run.started`` to
``run.finished`` in the ledger, less the wait for the decision. Replay: from the request to the report, with
every hash of every event computed again. Figures are medians and (least - largest) of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from runloop.client import BlockingClient
from tests.home import Home, wait_until

REPLAY_S = 600.0
AGENT = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    return Result.of(out=host.call("random.bytes", {"n": 4}))
"""
MANIFEST = """\
name = "tick"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Asks for four bytes."
ops = ["random.bytes"]

[ports.in.in]
type = "any"

[ports.out.out]
type = "any"
"""


def connected(home: Home) -> BlockingClient:
    """An operator's connection to the daemon of this home."""
    status = home.rlp("daemon", "status", "--json").check().json
    key = (home.path / "keys" / "operator.key").read_bytes()
    return BlockingClient.connect(status["socket"], key, 30.0)


def install(home: Home, nodes: int) -> Path:
    """The agent and a wide opening: one first, then all others side by side, in one layer."""
    home.write_agent("tick", MANIFEST, AGENT, "random = true\n")
    lines = ["version: 0", "name: wide", "nodes:"]
    lines += [f"  - {{id: n{index}, use: 'agent:tick'}}" for index in range(nodes)]
    lines += ["edges:"] + [f"  - {{from: n0.out, to: n{index}.in}}" for index in range(1, nodes)]
    path = home.path / "wide.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def live_ms(home: Home, run: str) -> float:
    """Milliseconds from start to end in the ledger, without the wait for a person."""
    events = [event for event in home.events() if event.run == run]
    at = {event.kind: event.ts_ms for event in events}
    waited = at["action.decided"] - at["action.requested"] if "action.decided" in at else 0
    return float(at["run.finished"] - events[0].ts_ms - waited)


def newest(home: Home) -> str:
    return str(home.events("run.started")[-1].run)


def compose(home: Home) -> str:
    """One ``compose_email``, confirmed."""
    before = len(home.events("run.finished"))
    flags = ["-p", "recipient=john", "-p", "topic=Q4 plan", "--no-input"]
    home.rlp("run", "compose_email", *flags).check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: len(home.events("run.finished")) == before + 1, "the run to finish")
    return newest(home)


def wide(home: Home, path: Path) -> str:
    """One run of the wide opening."""
    home.rlp("run", str(path), "--no-input", "--quiet", timeout=600).check()
    return newest(home)


def replay_ms(client: BlockingClient, run: str) -> float:
    """One replay, which must be identical."""
    begin = time.perf_counter()
    report = client.call("run.replay", {"run": run}, REPLAY_S)
    taken = (time.perf_counter() - begin) * 1000
    assert report["identical"], report
    return taken


def line(name: str, values: Sequence[float], unit: str) -> None:
    print(
        f"{name:<44} p50 {statistics.median(values):9.1f} {unit:<3} "
        f"({min(values):.1f} - {max(values):.1f}, n {len(values)})"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--nodes", type=int, default=240)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b") as folder, Home(Path(folder)) as home:
        path = install(home, asked.nodes)
        home.rlp("daemon", "start", timeout=300).check()
        wait_until(home.agents_ready, "the agents to be compiled")
        home.play().check(5)  # warms up
        (waiting,) = home.rlp("approvals", "--json").check().ndjson
        home.rlp("deny", str(waiting["approval"])).check()
        wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
        client = connected(home)
        measure(home, client, "compose_email", None, asked.rounds)
        measure(home, client, f"{asked.nodes} nodes", path, asked.rounds)


def measure(home: Home, client: BlockingClient, name: str, path: Path | None, rounds: int) -> None:
    """Run and replay one opening in turn: ``compose_email``, or the one at ``path``."""
    live: list[float] = []
    again: list[float] = []
    for _ in range(rounds):
        run = compose(home) if path is None else wide(home, path)
        live.append(live_ms(home, run))
        again.append(replay_ms(client, run))
    line(f"{name}, live", live, "ms")
    line(f"{name}, replayed", again, "ms")
    line(f"{name}, live / replay", [a / b for a, b in zip(live, again, strict=True)], "x")


if __name__ == "__main__":
    main()
