"""Latency and recall of search: words, vectors by Python and by sqlite-vec, both fused; ``why`` beside it.

    .venv/bin/python -m tests.bench.bench_search [--rows 10000 100000] [--million] [--rounds 40]

One line for each size and class of word: p50 and p99 in milliseconds of this process's CPU time. Recall is of
the ten nearest by exact comparison of every vector. The texts are made of words with Zipf's frequencies.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from pog.embed import LEXICAL, similarity, square
from pog.ledger import Ledger
from pog.materializer import Materializer
from pog.query import Knowledge
from pog.reader import Reader
from pog.search import CANDIDATES, By, ranked, words_of
from pog.trace import Trace
from pog.vectors import Scan, VectorIndex, sqlite_vec_loads
from pog.why import impact, why
from runloop.digest import blob_digest
from runloop.events import DocumentImported, Draft, Provenance

WORDS = 20_000
BODY = 48
PARTS = [
    *(
        "ka",
        "lo",
        "mi",
        "ren",
        "tos",
        "ver",
        "pla",
        "ni",
        "do",
        "gra",
        "shu",
        "ter",
        "mon",
        "eli",
        "qua",
        "fen",
    ),
    *("bra", "sto", "wil", "hun"),
]


def vocabulary(rng: random.Random) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < WORDS:
        found["".join(rng.choices(PARTS, k=rng.randint(2, 5)))] = None
    return list(found)


def library(folder: Path, rows: int, rng: random.Random, words: list[str]) -> tuple[float, float]:
    """State and fold ``rows`` notes; seconds for each."""
    weights = list(accumulate(1 / (place + 1) for place in range(len(words))))
    begun = time.perf_counter()
    with Ledger.open(folder / "events.db", signing_key=None, synchronous="NORMAL") as ledger:
        for start in range(0, rows, 1_000):
            drafts = []
            for number in range(start, min(rows, start + 1_000)):
                text = " ".join(rng.choices(words, cum_weights=weights, k=BODY))
                drafts.append(
                    Draft(
                        payload=DocumentImported(
                            document=f"d{number}",
                            type="note",
                            title=" ".join(rng.choices(words, cum_weights=weights, k=4)),
                            text=text,
                            content_digest=blob_digest(text.encode()),
                        ),
                        actor="operator:1000",
                        provenance=Provenance(
                            label="import:document", causes=(number,) if number % 10 else ()
                        ),
                    )
                )
            ledger.append(drafts)
    stated = time.perf_counter() - begun
    begun = time.perf_counter()
    with Materializer.open(folder / "views.db", folder / "events.db") as views:
        views.catch_up()
    return stated, time.perf_counter() - begun


def timed(calls: list[Callable[[], Any]]) -> str:
    """p50 and p99 of some calls, in milliseconds of CPU time."""
    spent = []
    for call in calls:
        begun = time.process_time()
        call()
        spent.append((time.process_time() - begun) * 1_000)
    spent.sort()
    return (
        f"p50 {spent[len(spent) // 2]:8.2f}   p99 {spent[min(len(spent) - 1, len(spent) * 99 // 100)]:8.2f}"
    )


def measure(rows: int, rounds: int) -> None:
    rng = random.Random(11)
    words = vocabulary(rng)
    with tempfile.TemporaryDirectory(prefix="runloop-bench-") as name:
        folder = Path(name)
        stated, folded = library(folder, rows, rng, words)
        print(f"\n{rows} rows: stated in {stated:.1f} s, folded in {folded:.1f} s")
        with Reader(folder / "events.db") as reader, Knowledge(folder / "views.db", reader) as knowledge:
            knowledge._time_cap_s = 60.0
            indexes = opened(folder, reader)
            classes = {
                "very common word": lambda: words[rng.randint(0, 3)],
                "common word": lambda: words[rng.randint(10, 60)],
                "rare word": lambda: words[rng.randint(5_000, WORDS - 1)],
                "two common words": lambda: f"{words[rng.randint(10, 60)]} {words[rng.randint(10, 60)]}",
                "misspelt words": lambda: misspelt(
                    rng, f"{words[rng.randint(50, 900)]} {words[rng.randint(50, 900)]}"
                ),
            }
            for title, make in classes.items():
                asked = [make() for _ in range(rounds)]
                words_only = [lambda q=q: ranked(knowledge._rows, words_of(q), (), 8) for q in asked]
                print(f"  {title:18} words        {timed(words_only)}")
                for index, scan in indexes:
                    vectors = LEXICAL.embed(asked)
                    calls = [lambda v=v, i=index: i.nearest(v, CANDIDATES) for v in vectors]
                    print(f"  {title:18} {scan:12} {timed(calls)}")
                whole = [lambda q=q: fused(knowledge, indexes[0][0], q) for q in asked]
                print(f"  {title:18} fused        {timed(whole)}")
            print(f"  recall@10 of the scan by bits: {recall(knowledge, indexes[0][0], rng, rows):.3f}")
            explain(folder, reader, rows, rounds)


def opened(folder: Path, reader: Reader) -> list[tuple[VectorIndex, Scan]]:
    scans: list[Scan] = ["python", *(["sqlite-vec"] if sqlite_vec_loads() else [])]  # type: ignore[list-item]
    found = []
    for scan in scans:
        index = VectorIndex.open(
            folder / "vectors.db", folder / "views.db", reader, LEXICAL.name, LEXICAL.dimensions, scan=scan
        )
        begun = time.process_time()
        index.catch_up(LEXICAL)
        if scan == "python":
            size = sum(path.stat().st_size for path in folder.glob("vectors.db*"))
            print(
                f"  indexed {index.size} vectors in {time.process_time() - begun:.1f} s CPU,"
                f" {size / max(1, index.size):.0f} bytes each"
            )
        index.nearest(LEXICAL.embed(["warm up"])[0], 1)
        found.append((index, scan))
    return found


def fused(knowledge: Knowledge, index: VectorIndex, query: str) -> Any:
    (vector,) = LEXICAL.embed([query])
    hits = index.nearest(vector, CANDIDATES, floor=LEXICAL.floor_among(index.size))
    by = By(embedder=LEXICAL.name, hits=hits)
    return knowledge.search(query, 8, by=by, raw=True)


def misspelt(rng: random.Random, text: str) -> str:
    at = rng.randint(1, len(text) - 2)
    return text[:at] + text[at + 1 :]


def recall(knowledge: Knowledge, index: VectorIndex, rng: random.Random, rows: int) -> float:
    """Of the ten nearest above the floor to a misspelt title, how many the candidates by bits hold."""
    stored = index._connection.execute("SELECT id / 16, square, numbers FROM vectors").fetchall()
    hit = total = 0
    floor = LEXICAL.floor_among(len(stored))
    for _ in range(3 if len(stored) > 50_000 else 12):
        (row,) = knowledge._rows("SELECT title FROM searchables WHERE id = ?", (rng.randint(1, rows),))
        (asked,) = LEXICAL.embed([misspelt(rng, row["title"])])
        own, best = square(asked.numbers), dict[int, float]()
        for item, its, numbers in stored:
            best[item] = max(best.get(item, -1.0), similarity(asked.numbers, numbers, (own, its)))
        near = [item for item in best if best[item] >= floor]
        ten = sorted(near, key=lambda item: (-best[item], -item))[:10]
        hit += len(set(ten) & {found.item for found in index.nearest(asked, 10)})
        total += len(ten)
    return hit / max(1, total)


def explain(folder: Path, reader: Reader, rows: int, rounds: int) -> None:
    begun = time.process_time()
    with Trace.open(folder / "trace.db", reader) as trace:
        trace.catch_up()
        spent = time.process_time() - begun
        size = sum(path.stat().st_size for path in folder.glob("trace.db*"))
        print(f"  causes indexed in {spent:.1f} s CPU, {size / rows:.0f} bytes per event")
        rng = random.Random(5)
        ids = [rng.randint(1, rows) for _ in range(rounds)]
        digests = [reader.event(number).hash.hex() for number in ids]
        print(f"  why, by event                   {timed([lambda i=i: why(reader, i, trace) for i in ids])}")
        print(
            f"  why, by digest                  {timed([lambda d=d: why(reader, d, trace) for d in digests])}"
        )
        print(
            f"  impact                          {timed([lambda i=i: impact(reader, i, trace) for i in ids])}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--million", action="store_true", help="a million rows, too: minutes, and 2 GB of disk"
    )
    parser.add_argument("--rounds", type=int, default=40, help="questions of each class")
    asked = parser.parse_args()
    for rows in [*asked.rows, *([1_000_000] if asked.million else [])]:
        measure(rows, asked.rounds)


if __name__ == "__main__":
    main()
