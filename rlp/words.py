"""Words of a model on a terminal, as they arrive: row by row, behind a bar.

Knows: where a row ends, and that every character of a stranger's is shown as itself or as an escape. Does not
know: who speaks, or when. The bar is ours: no row of a model's can be taken for a question of ours
(attacks.md C6).
"""

from __future__ import annotations

from rlp.output import Console
from runloop.escape import block, columns_of, pieces, visible

__all__ = ["BAR", "Words", "barred"]

BAR = "│ "
_LONGEST = 200
"""Characters of a word that are waited for before it is shown in parts."""


def barred(text: str, width: int) -> list[str]:
    """A whole text in rows behind the bar."""
    return [f"{BAR}{row}" for row in block(text, width=max(8, width - len(BAR) - 1))]


class Words:
    """One turn of a model, streamed. ``said`` is what was shown of it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._room = max(8, console.width - len(BAR) - 1)
        self._word = ""
        self._column = -1
        """Columns used in the present row; -1 before it has begun."""
        self.said = ""

    @property
    def open(self) -> bool:
        """Whether a row has begun and not ended."""
        return self._column >= 0

    def add(self, text: str) -> None:
        """The next piece, of any length; a word is shown once it is whole."""
        if not self.said:
            text = text.lstrip()
        self.said += text
        for char in text.replace("\r\n", "\n"):
            if char == "\n":
                self._put()
                self._row() if self._column < 0 else self._end()
            elif char == " ":
                self._word += char
                self._put()
            else:
                self._word += char
                if len(self._word) > _LONGEST:
                    self._put()
        self._console.out.flush()

    def end(self) -> str:
        """The turn is over; returns what it said, and begins anew."""
        self._put()
        if self._column >= 0:
            self._end()
        self._console.out.flush()
        said, self.said = self.said.strip(), ""
        return said

    def _put(self) -> None:
        word, self._word = visible(self._word.replace("\t", "    ")), ""
        for part in pieces(word, self._room) if word else ():
            if self._column > 0 and self._column + columns_of(part.removesuffix(" ")) > self._room:
                self._end()
            if self._column < 0:
                self._begin()
            self._console.out.write(part)
            self._column += columns_of(part)

    def _row(self) -> None:
        self._begin()
        self._end()

    def _begin(self) -> None:
        self._console.wipe()
        self._console.out.write(BAR)
        self._column = 0

    def _end(self) -> None:
        self._console.out.write("\n")
        self._column = -1
