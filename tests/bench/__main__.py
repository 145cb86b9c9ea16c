"""Run the benchmarks: ``python -m tests.bench [name ...] [options]``; without names, all that need only us.

``peers``, ``stores`` and ``flows`` compare with other people's programs and run when they are named. Options
are handed to each benchmark. Prints the machine first, then what each ``bench_<name>.py`` prints. Figures are
for people: no test's verdict hangs on one.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
_WITH_OTHERS = frozenset(("peers", "stores", "flows"))
"""They need other people's programs, and some minutes each (docs/internals/benchmarks.md)."""


def machine() -> str:
    """One line about the machine and the interpreter."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {model}, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load average {load:.1f}"
    )


def main(argv: list[str]) -> int:
    """Run the named benchmarks one after another, each in a process of its own."""
    first = next((at for at, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, options = argv[:first], argv[first:]
    known = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"bench: no benchmark {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    print(machine(), flush=True)
    worst = 0
    for name in names or sorted(known.keys() - _WITH_OTHERS):
        print(f"\n== {name}", flush=True)
        worst = max(
            worst,
            subprocess.run(
                [sys.executable, "-m", f"tests.bench.bench_{name}", *options], check=False
            ).returncode,
        )
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
