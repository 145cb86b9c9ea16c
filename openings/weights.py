"""How much each feature of ``traits`` speaks for a shell line (above zero) or for a wish (below).

Written by ``python -m tests.router.train`` from the labelled corpus; not to be edited. Only used for lines
that begin with the name of a command: their sum with ``BIAS``, above zero, means the shell.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BIAS", "WEIGHTS"]

BIAS = 2.17
WEIGHTS: Mapping[str, float] = {
    "alone": 0.41,
    "apostrophes": -0.08,
    "asks": -0.45,
    "codes": 0.5,
    "command_next": 0.63,
    "everyday": -0.68,
    "figures": 0.38,
    "flags": 1.25,
    "foreign": -0.05,
    "one_word": -0.06,
    "operators": 1.01,
    "paths": 0.75,
    "plain": -1.32,
    "prose": -1.45,
    "prose_share": -0.52,
    "quoted": 0.57,
    "sentence": -0.52,
    "small_next": -0.58,
    "subcommand": 1.26,
    "takes_words": 0.39,
    "verb_next": -0.33,
    "words": 0.4,
}
