"""Run the benchmarks: ``python -m tests.bench [name ...]``; without names, all of them.

Prints the machine first, then what each ``bench_<name>.py`` prints. Figures are for people: no test's
verdict hangs on one.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


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


def main(names: list[str]) -> int:
    """Run the named benchmarks one after another, each in a process of its own."""
    known = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"bench: no benchmark {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    print(machine(), flush=True)
    worst = 0
    for name in names or known:
        print(f"\n== {name}", flush=True)
        worst = max(
            worst, subprocess.run([sys.executable, "-m", f"tests.bench.bench_{name}"], check=False).returncode
        )
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
