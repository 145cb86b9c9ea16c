"""Learn ``openings/weights.py`` from the part of the corpus that is not held out.

    .venv/bin/python -m tests.router.train [--check]

Logistic regression over the features of ``openings.traits``, on the lines that begin with a command's name
and belong to the shell or to an agent. Plain gradient descent from zero: no chance in it, the same file each
time. ``--check`` writes nothing and fails when the file is stale.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from openings import traits
from openings.deny import denied
from openings.lexicon import COMMANDS
from openings.router import MAX_PROMPT
from openings.shell import parse
from tests.router.corpus import ROOT, cases

FILE = ROOT / "openings" / "weights.py"
ROUNDS = 3_000
RATE = 0.4
SHRINK = 0.004
"""How hard weights are pulled to zero."""

_HEAD = '''"""How much each feature of ``traits`` speaks for a shell line (above zero) or for a wish (below).

Written by ``python -m tests.router.train`` from the labelled corpus; not to be edited. Only used for lines
that begin with the name of a command: their sum with ``BIAS``, above zero, means the shell.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BIAS", "WEIGHTS"]

'''


def samples() -> list[tuple[Mapping[str, float], int]]:
    """Features and 1 for the shell, 0 for an agent (or an opening: a wish as well)."""
    found = []
    for case in cases():
        text = case.line.strip()
        if case.held or not text or text[0] in "!?" or len(text) > MAX_PROMPT or denied(text) is not None:
            continue
        seen = traits.look(text, parse(text), COMMANDS)
        if seen.command and not (seen.path and not seen.asks):
            found.append((seen.numbers, int(case.kind == "shell")))
    return found


def learn(data: list[tuple[Mapping[str, float], int]]) -> tuple[float, dict[str, float]]:
    """The bias and the weights."""
    names = sorted({name for numbers, _ in data for name in numbers})
    weights = dict.fromkeys(names, 0.0)
    bias = 0.0
    for _ in range(ROUNDS):
        slope, slopes = 0.0, dict.fromkeys(names, 0.0)
        for numbers, label in data:
            total = bias + sum(weights[name] * value for name, value in numbers.items())
            error = 1 / (1 + math.exp(-max(-30.0, min(30.0, total)))) - label
            slope += error
            for name, value in numbers.items():
                slopes[name] += error * value
        bias -= RATE * slope / len(data)
        for name in names:
            weights[name] -= RATE * (slopes[name] / len(data) + SHRINK * weights[name])
    return round(bias, 2), {name: round(weight, 2) for name, weight in weights.items() if round(weight, 2)}


def written(bias: float, weights: Mapping[str, float]) -> str:
    """The module's text."""
    rows = "".join(f'    "{name}": {weight},\n' for name, weight in weights.items())
    return f"{_HEAD}BIAS = {bias}\nWEIGHTS: Mapping[str, float] = {{\n{rows}}}\n"


def main(argv: list[str]) -> int:
    text = written(*learn(samples()))
    if "--check" in argv:
        if FILE.read_text(encoding="utf-8") != text:
            print("openings/weights.py is stale; run python -m tests.router.train", file=sys.stderr)
            return 1
        return 0
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
