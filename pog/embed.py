"""Texts as vectors: what an embedder is, and the one that needs no model.

Knows: how a text is cut into passages, how a vector is kept (8-bit numbers, and one bit of each for a quick
look), and the lexical embedder. Does not know: who else can embed (``runloopd.broker``), or where vectors lie
(``pog.vectors``).

``lexical-1`` hashes words, neighbouring words and character trigrams. It finds misspelt and inflected words.
It knows nothing of meaning, and nothing that shows its results may call them semantic.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from operator import mul
from typing import Protocol

from runloop.errors import UsageError

__all__ = ["LEXICAL", "Embedder", "Lexical", "Vector", "passages", "quantised", "similarity", "square"]

_LEAST_FLOOR = 0.24
"""Below it what was found of a misspelt name was outnumbered by what only shares its endings."""
MAX_PASSAGES = 16
"""Of one text; what stands behind them is found by words only."""
_PASSAGE_WORDS = 64
_MAX_WORDS = _PASSAGE_WORDS * MAX_PASSAGES
_MAX_WORD_CHARS = 48
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Vector:
    """One passage. Only vectors of one embedder may be compared."""

    numbers: bytes
    """Signed bytes, one for each dimension, scaled to the longest."""
    bits: int
    """The sign of each number, the first dimension lowest."""


class Embedder(Protocol):
    """Makes vectors of texts. The name changes whenever the same text would give another vector."""

    @property
    def name(self) -> str: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def floor(self) -> float:
        """Cosine below which a passage is no hit: what chance alone brings about."""
        ...

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector for each text, in order."""
        ...


def quantised(numbers: Sequence[float]) -> Vector:
    """A vector as it is kept. Raises :class:`UsageError` for one without a direction."""
    most = max(map(abs, numbers), default=0.0)
    if not 0 < most < math.inf or not all(map(math.isfinite, numbers)):
        raise UsageError("a vector is empty, zero or not finite", code="kb.vector")
    scaled = array("b", (round(number * 127 / most) for number in numbers))
    return Vector(scaled.tobytes(), _signs(scaled))


def square(numbers: bytes) -> int:
    """Square of a kept vector's length."""
    view = memoryview(numbers).cast("b")
    return sum(map(mul, view, view))


def similarity(one: bytes, other: bytes, squares: tuple[int, int] | None = None) -> float:
    """Cosine of two kept vectors of the same embedder; integers until the last step, so the same anywhere.

    ``squares`` spares computing their lengths.
    """
    if len(one) != len(other):
        raise UsageError("vectors of different dimensions cannot be compared", code="kb.vector")
    product = sum(map(mul, memoryview(one).cast("b"), memoryview(other).cast("b")))
    first, second = squares or (square(one), square(other))
    return product / math.sqrt(first * second) if first and second else 0.0


def passages(title: str, body: str) -> list[str]:
    """The pieces of a text that get a vector each: its title, then stretches of the body."""
    words = body.split(None, _MAX_WORDS)[:_MAX_WORDS]
    stretches = [" ".join(words[at : at + _PASSAGE_WORDS]) for at in range(0, len(words), _PASSAGE_WORDS)]
    found = [text for text in (title.strip(), *stretches) if text]
    return list(dict.fromkeys(found))[:MAX_PASSAGES]


class Lexical:
    """Hashed words, word pairs and trigrams: 256 numbers, the same on every machine, no model, no file.

    A feature's hash gives each dimension +1 or -1; a text is the weighted sum of its features. The sum is
    computed in 16-bit lanes of one large integer, because that is what Python adds quickly.
    """

    name = "lexical-1"
    dimensions = 256
    floor = 0.34

    def floor_among(self, count: int) -> float:
        """The floor in an index of so many vectors: the largest cosine that chance brings about among them,
        sqrt(2 ln n / dimensions), within what was measured (ADR 13). Among few, one misspelt name is found
        that a floor for millions would hide."""
        chance = math.sqrt(2 * math.log(max(2, count)) / self.dimensions)
        return min(self.floor, max(_LEAST_FLOOR, chance))

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """See the protocol. A text without a word gets a vector that resembles nothing."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Vector:
        words = [word[:_MAX_WORD_CHARS] for word in _WORD.findall(text.lower())[:_PASSAGE_WORDS]]
        lanes = weight = 0
        for word in words:
            own, own_weight = _word(word)
            lanes += own
            weight += own_weight
        for left, right in pairwise(words):
            lanes += _feature(f"p:{left} {right}") * 2
            weight += 2
        counts = array("H", lanes.to_bytes(self.dimensions * 2, "little"))
        # A lane counts the +1; all the others were -1.
        return _kept([2 * count - weight for count in counts])


LEXICAL = Lexical()


def _kept(sums: list[int]) -> Vector:
    most = max(map(abs, sums))
    if most == 0:
        return Vector(bytes(len(sums)), 0)
    # Whole numbers only: rounds half up, the same on every machine.
    scaled = array("b", ((number * 254 + most) // (2 * most) for number in sums))
    return Vector(scaled.tobytes(), _signs(scaled))


def _signs(scaled: array[int]) -> int:
    return int("".join("1" if number > 0 else "0" for number in reversed(scaled)), 2)


@lru_cache(maxsize=32_768)
def _word(word: str) -> tuple[int, int]:
    """Lanes and weight of one word: itself, and its trigrams with its borders."""
    own = 4 if len(word) > 3 else 2
    lanes, weight = _feature(f"w:{word}") * own, own
    if len(word) > 3:
        framed = f"^{word}$"
        for at in range(len(framed) - 2):
            lanes += _feature(f"t:{framed[at : at + 3]}") * 2
            weight += 2
    return lanes, weight


def _spread(byte: int) -> bytes:
    return b"".join((byte >> bit & 1).to_bytes(2, "little") for bit in range(8))


_SPREAD: tuple[bytes, ...] = tuple(_spread(byte) for byte in range(256))
"""Each bit of a byte in a lane of its own."""


def _feature(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "replace"), digest_size=32).digest()
    return int.from_bytes(b"".join([_SPREAD[byte] for byte in digest]), "little")
