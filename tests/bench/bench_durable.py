"""What a durable message costs the daemon: CPU of its loop and of all threads, bytes that stay on the disk.

    python -m tests.bench durable [--rounds 5] [--messages 8192]

A real daemon in a home of its own, for each round a new one. A program publishes messages of 64 bytes on a
durable topic, 64 under way at a time, and waits for every receipt; then the same again while another program
consumes them, compares number and fill, and acknowledges every 64th. Figures are per message, median and
(least - largest) of the rounds. Bytes are those of each file with the daemon stopped, after less before.
Rates depend on who else works on the machine; CPU hardly does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from runloop.client import AsyncClient
from tests.home import Home

UNDER_WAY = 64
TOPIC = "durable/bench"
FILL = bytes(range(56))
Figures = dict[str, list[float]]


def payload(number: int) -> bytes:
    """64 bytes: the number and fill."""
    return number.to_bytes(8, "big") + FILL


def cpu_s(pid: int) -> tuple[float, float]:
    """Seconds that the loop's thread, and all threads, have run."""
    ran = {
        int(task.name): int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{pid}/task").iterdir()
    }
    return ran[pid], sum(ran.values())


def kept_bytes(home: Home) -> Counter[str]:
    """The size of each file beside the ledger's, and below; the daemon has stopped, its logs are folded."""
    place = home.events_db.parent
    for path in place.glob("*.db"):
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Counter(
        {str(path.relative_to(place)): path.stat().st_size for path in place.rglob("*") if path.is_file()}
    )


async def publish(client: AsyncClient, first: int, messages: int) -> None:
    for at in range(first, first + messages, UNDER_WAY):
        receipts = await asyncio.gather(
            *(
                client.publish(TOPIC, "observation.generic.v1", payload(number), durable=True)
                for number in range(at, at + UNDER_WAY)
            )
        )
        if any(receipt.duplicate for receipt in receipts):
            raise SystemExit(f"a message after {at} was taken for another one")


async def consume(client: AsyncClient, first: int, messages: int) -> None:
    for number in range(first, first + messages):
        heard = await client.next_delivery(60)
        if heard is None or heard.payload != payload(number):
            raise SystemExit(f"message {number} did not come, or not as it was published")
        if number % UNDER_WAY == UNDER_WAY - 1:
            client.ack(heard)


async def measure(home: Home, messages: int, figures: dict[str, Figures]) -> None:
    """Both rows of one round."""
    pid, key = home.pid(), (home.path / "keys/operator.key").read_bytes()
    (path,) = home.path.rglob("*.sock")
    assert pid is not None
    async with (
        await AsyncClient.connect(path, key) as writer,
        await AsyncClient.connect(path, key) as reader,
    ):
        await publish(writer, 0, 512)
        done = 512
        for row in ("published", "published and consumed"):
            consuming = None
            if row != "published":
                await reader.consume("bench", TOPIC, start="next")
                consuming = asyncio.ensure_future(consume(reader, done, messages))
            loop_s, all_s = cpu_s(pid)
            began = time.perf_counter()
            await publish(writer, done, messages)
            if consuming is not None:
                await consuming
            took = time.perf_counter() - began
            after = cpu_s(pid)
            done += messages
            for key_, value in (
                ("µs of the loop", (after[0] - loop_s) / messages * 1e6),
                ("µs of all threads", (after[1] - all_s) / messages * 1e6),
                ("messages per s", messages / took),
            ):
                figures.setdefault(row, {}).setdefault(key_, []).append(value)


def one_round(messages: int, figures: dict[str, Figures]) -> None:
    with tempfile.TemporaryDirectory(prefix="bd") as folder:
        Path(folder).chmod(0o700)
        with Home(Path(folder)) as home:
            home.env["RUNLOOP__BUS__DURABLE_BYTES"] = "1000000000"
            home.rlp("daemon", "start", timeout=300).check()
            while not home.agents_ready():
                time.sleep(0.2)  # the compiler is no part of it
            home.rlp("daemon", "stop", timeout=60).check()
            before = kept_bytes(home)
            home.rlp("daemon", "start", timeout=300).check()
            asyncio.run(measure(home, messages, figures))
            home.rlp("daemon", "stop", timeout=60).check()
            grown = kept_bytes(home)
            grown.subtract(before)
            for name, size in {**grown, "all files": grown.total()}.items():
                if size:
                    kept = figures.setdefault("bytes kept", {}).setdefault(name, [])
                    kept.append(size / (2 * messages + 512))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=8_192)
    args = parser.parse_args()
    messages = max(1, args.messages // UNDER_WAY) * UNDER_WAY
    figures: dict[str, Figures] = {}
    for _ in range(args.rounds):
        one_round(messages, figures)
    print(f"{messages} messages of 64 B, {UNDER_WAY} under way, {args.rounds} rounds; per message")
    for row, columns in figures.items():
        for name, values in columns.items():
            shown = f"{statistics.median(values):,.1f} ({min(values):,.1f} - {max(values):,.1f})"
            print(f"{row:<24} {name:<20} {shown}")


if __name__ == "__main__":
    main()
