"""Point the load generator at a broker: connect, subscribe, hand over the sockets, read the verdict.

Knows: patterns (who publishes what to whom). Does not know: protocols (``wire``), brokers (``brokers``).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.bench.load.build import program
from tests.bench.load.wire import Wire

__all__ = ["PATTERNS", "WINDOW", "Fault", "measure"]

WINDOW = (4096, 2 * 1024 * 1024)
"""Messages and bytes under way, over all publishers together."""
PATTERNS: dict[str, tuple[int, int, int]] = {
    "1→1": (1, 1, 1),
    "1→8": (1, 1, 8),
    "8→8": (8, 1, 1),
    "1→8 topics": (1, 8, 1),
    "call": (2, 1, 1),
}
"""Publishers, topics of each, subscribers of each topic. A call is a message there and one back."""


class Fault(Exception):
    """The broker lost, repeated, reordered, altered or refused something: ``kind`` says which."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class _Sub:
    sock: socket.socket
    publisher: int
    topic: str
    first: int
    stride: int


def measure(
    wire: Wire,
    pattern: str,
    size: int,
    *,
    pids: Iterable[int] = (),
    warm_s: float = 0.1,
    measure_s: float = 0.25,
    core: int | None = None,
    window: tuple[int, int] = WINDOW,
    patience_s: float = 10.0,
) -> dict[str, Any]:
    """One measurement: ``per_s``, ``cpu_us`` per published message, and for calls ``p50_us``, ``p99_us``.

    ``size``: bytes of payload, at least 16. Raises :class:`Fault` unless every message arrived once, whole
    and in order; ``patience_s`` without a delivery is a loss.
    """
    publishers, topics, fan = PATTERNS[pattern]
    with contextlib.ExitStack() as stack:
        stack.callback(wire.close)
        subs: list[_Sub] = []
        names = [[f"bench/p{who}t{number}" for number in range(topics)] for who in range(publishers)]
        for who, mine in enumerate(names):
            for number, topic in enumerate(mine):
                for _ in range(fan):
                    sock = stack.enter_context(wire.subscriber(topic))
                    subs.append(_Sub(sock, who, topic, number, topics))
        pubs = [stack.enter_context(wire.publisher()) for _ in range(publishers)]
        heard: dict[str, list[socket.socket]] = {}
        for sub in subs:
            heard.setdefault(sub.topic, []).append(sub.sock)
        wire.settle(pubs, heard)
        mode = "call" if pattern == "call" else "flow"
        clocked = ",".join(str(pid) for pid in pids) or "-"
        orders = [f"{mode} {size} {warm_s} {measure_s} {window[0]} {window[1]} {patience_s} {clocked}"]
        for who, sock in enumerate(pubs):
            orders.append(f"pub {sock.fileno()} {wire.letter}")
            orders += [f"route {who} {wire.published(topic, size).order()}" for topic in names[who]]
        orders += [
            f"sub {sub.sock.fileno()} {wire.letter} {sub.publisher} {sub.first} {sub.stride} "
            + wire.delivered(sub.topic, size).order()
            for sub in subs
        ]
        sockets = [*pubs, *(sub.sock for sub in subs)]
        for sock in sockets:
            sock.setblocking(False)
        done = subprocess.run(
            [os.fspath(program("lg"))],
            input="\n".join(orders) + "\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=warm_s + measure_s + 60,
            pass_fds=[sock.fileno() for sock in sockets],
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"the load generator failed ({done.returncode}): {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        raise Fault(result["fault"], result["detail"])
    return result
