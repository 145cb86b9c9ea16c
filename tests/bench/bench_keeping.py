"""What keeping a ledger costs: ``python -m tests.bench keeping [events]``.

Backup (copy, verify, sign), verify alone, restore, salvage, rebuild and looking back, in microseconds of
processor time an event; and how much a backup slows a writer beside it: the same writer with and without
one, in turns, as a ratio of its commits (that one wants a quiet machine).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.ledger import Ledger
from pog.maintain import backup, verify
from pog.maintain.rebuild import rebuild
from pog.maintain.restore import restore
from pog.maintain.salvage import salvage
from pog.moment import find, fold_until
from runloop.clock import SystemClock
from runloop.events import DaemonStarted, DocumentImported, Draft

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
ROUNDS = 3
WRITE_S = 1.5

_WRITER = """
import sys, time
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pog.ledger import Ledger
from runloop.events import DocumentImported, Draft
key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
note = DocumentImported(document="d", type="note", title="t", text="x" * 700, content_digest="0" * 64)
drafts = [Draft(payload=note, actor="daemon")] * 8
with Ledger.open(sys.argv[1], signing_key=key) as ledger:
    ledger.append(drafts)
    print("ready", flush=True)
    sys.stdin.readline()
    count, end = 0, time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        ledger.append(drafts)
        count += 1
    print(count, flush=True)
"""


def note(number: int) -> Draft:
    text = f"note {number} " + os.urandom(340).hex()
    payload = DocumentImported(
        document=f"d{number}", type="note", title=f"note {number}", text=text, content_digest="0" * 64
    )
    return Draft(payload=payload, actor="daemon")


def fill(path: Path, events: int) -> None:
    with Ledger.open(path, signing_key=KEY) as ledger:
        ledger.append([Draft(payload=DaemonStarted(build="b", pid=1), actor="daemon", scope="system")])
        for start in range(0, events - 1, 500):
            ledger.append([note(number) for number in range(start, min(start + 500, events - 1))])


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()  # others may be busy on the same cores
    work()
    return time.process_time() - began


def writer_alone_and_beside_a_backup(folder: Path) -> tuple[float, float]:
    """Commits of a writer in ``WRITE_S`` seconds: without and with backups going on."""
    counts = []
    for beside in (False, True):
        path = folder / "events.db"
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(WRITE_S)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdout.readline()
        writer.stdin.write("\n")
        writer.stdin.flush()
        if beside:
            backup.write(path, folder / "beside", key=KEY, clock=SystemClock())
            shutil.rmtree(folder / "beside")
        counts.append(float(writer.stdout.readline()))
        writer.wait(30)
    return counts[0], counts[1]


def main(events: int) -> None:
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="keeping-") as root:
        home = Path(root) / "pog"
        home.mkdir()
        path, views = home / "events.db", home / "views.db"
        fill(path, events)
        size = path.stat().st_size / 2**20
        print(f"{events} events, {size:.0f} MiB; median of {ROUNDS} (least to most)")
        print("| work | CPU us per event |\n|---|---|")
        kept = Path(root) / "kept"
        made = backup.write(path, kept, key=KEY, clock=clock)
        works: dict[str, Callable[[], object]] = {
            "verify: chain, heads, blobs, structure": lambda: verify(path, public_key=KEY.public_key()),
            "backup: copy, verify, sign": lambda: (
                shutil.rmtree(kept), backup.write(path, kept, key=KEY, clock=clock)
            ),
            "restore: compare, copy, verify, exchange": lambda: (
                shutil.rmtree(home), home.mkdir(), restore(
                    path, made, key=KEY, clock=clock, principal="operator:1", accept_loss=True
                ),
            ),
            "salvage: every page, as bytes": lambda: (
                shutil.rmtree(Path(root) / "saved", ignore_errors=True),
                salvage(path, Path(root) / "saved", key=KEY, clock=clock),
            ),
            "rebuild the views": lambda: rebuild(path, views),
            "look back to the middle": lambda: (
                views.with_name("then.db").unlink(missing_ok=True),
                fold_until(path, find(path, event=events // 2), views.with_name("then.db")),
            ),
        }  # fmt: skip
        for name, work in works.items():
            took = sorted(timed(work) for _ in range(ROUNDS))
            each = [1e6 * seconds / events for seconds in took]
            print(f"| {name} | {statistics.median(each):.1f} ({each[0]:.1f}-{each[-1]:.1f}) |")
        ratios = []
        for _ in range(ROUNDS):
            alone, beside = writer_alone_and_beside_a_backup(home)
            ratios.append(beside / alone)
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"a writer (8 events a commit, FULL) beside a backup: {middle:.2f} ({low:.2f}-{high:.2f})")
        print("times as many commits as alone")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
