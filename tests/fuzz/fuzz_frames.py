"""Coverage-guided fuzzing of the frame reader and the envelope: ``make fuzz FRAMES=10000000``.

atheris (libFuzzer for Python) chooses the bytes; some are read as they are, most are made into streams of
nearly legal frames (``streams``). Stops after the given number of frames and prints what it saw: frames,
runs, the peak of its own memory after the first tenth and at the end. A disagreement, a nameless refusal, a
hang of ten seconds or growth of the reader ends it, with the bytes in a file.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

import atheris

with atheris.instrument_imports(include=["runloop.rmp", "tests.fuzz.streams"]):
    from tests.fuzz.streams import judge, stream

GOAL = int(os.environ.get("FRAMES", "10000000"))
BEGUN = time.monotonic()


class Count:
    """How far this run is."""

    frames = 0
    runs = 0
    settled_kib = 0


def one(data: bytes) -> None:
    """Judge one input of the fuzzer."""
    if not data:
        return
    how, cuts, rest = data[0], data[1 : 1 + (data[0] & 7)], data[1 + (data[0] & 7) :]
    Count.frames += judge(rest if how & 0x80 and how & 0x40 else stream(rest), cuts)
    Count.runs += 1
    if not Count.settled_kib and Count.frames >= GOAL // 10:
        Count.settled_kib = _peak_kib()
    if Count.frames >= GOAL:
        seconds = round(time.monotonic() - BEGUN)
        print(json.dumps({"frames": Count.frames, "runs": Count.runs, "seconds": seconds,
                          "peak_kib": {"a tenth": Count.settled_kib, "end": _peak_kib()}}))  # fmt: skip
        sys.stdout.flush()
        os._exit(0)  # libFuzzer has no other way to end a run that found nothing


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-timeout=10", "-max_len=512", "-rss_limit_mb=1024"], one)
    atheris.Fuzz()
