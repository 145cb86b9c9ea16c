"""What a command says: data on stdout, talk on stderr, nothing foreign unescaped.

Knows: tables, JSON and NDJSON, colour and when not to use it, quiet and verbose. Does not know: what any
command does. Every piece of text goes through :mod:`runloop.escape`, so a caller cannot forget it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, NamedTuple, Protocol, TextIO

from runloop.errors import RunloopError
from runloop.escape import block, columns_of, fold, json_text, pieces, visible

__all__ = ["Console", "Style", "columns_of", "error_lines", "words"]


class Style(NamedTuple):
    """How a command speaks; from the global options and the environment."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    color: bool = False
    """Whether stderr and stdout may carry SGR colour sequences (ours, never foreign ones)."""
    dumb: bool = False
    """Whether the terminal said that it can do nothing but lines."""
    theme: str = "runloop"
    """``ui.theme``: which colours."""


_NOTHING = "-"
_PROSE = 9
"""Columns that prose gets, at least."""
_COLORS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_THEMES: Mapping[str, Mapping[str, str]] = {
    "runloop-light": {**_COLORS, "yellow": "35", "cyan": "34"},  # what is pale on white
    "high-contrast": {
        "bold": "1",
        "dim": "22",
        "red": "1;91",
        "green": "1;92",
        "yellow": "1;93",
        "cyan": "1;96",
    },
}
"""Where a theme has other colours of the terminal's own; ``none`` has none."""


class Below(Protocol):
    """What stands below all that is said, and gives way to it (``live``)."""

    def wipe(self) -> None: ...


class Console:
    """Two streams and a style."""

    def __init__(self, out: TextIO, err: TextIO, style: Style, *, width: int = 80) -> None:
        self.out = out
        self.err = err
        self.style = style
        self.width = width
        self._passing = 0
        """Columns of a line before the cursor that the next one takes the place of."""
        self.below: Below | None = None

    @property
    def can_draw(self) -> bool:
        """Whether stdout can carry lines and corners."""
        try:
            "│╰●".encode(self.out.encoding or "utf-8")
        except (LookupError, UnicodeEncodeError):
            return False
        return True

    # --- stdout: data -----------------------------------------------------------------------------

    def data(self, text: str, color: str | None = None) -> None:
        """One line of data for people."""
        self.wipe()
        for line in self._lines(text, self.out):
            self.out.write(self.paint(line, color) + "\n")

    def text(self, text: str) -> None:
        """Several lines of data for people."""
        self.wipe()
        for line in block(text):
            self.out.write(line + "\n")

    def json(self, value: Any) -> None:
        """One JSON document on one line; for streams, call it once per item (NDJSON)."""
        self.out.write(json_text(value) + "\n")
        self.out.flush()

    def rows(
        self,
        rows: Iterable[Mapping[str, Any]],
        columns: Sequence[str],
        *,
        titles: Mapping[str, str] | None = None,
        empty: str = "nothing to show",
        prose: Collection[str] = (),
    ) -> None:
        """A table for people, one JSON object per line with ``--json``. ``prose``: columns in which a long
        word may be broken before the table is given up."""
        if self.style.json:
            for row in rows:
                self.json(row)
            return
        found = [{column: words(row.get(column)) for column in columns} for row in rows]
        if not found:
            self.say(empty)
            return
        names = {column: words((titles or {}).get(column, column)) for column in columns}
        widths = {
            column: max(columns_of(names[column]), *(columns_of(row[column]) for row in found))
            for column in columns
        }
        if self.out.isatty() and _wide(widths) > self.width:
            narrow = _narrowed(names, found, widths, self.width, prose)
            if narrow is None:
                self._records(found, names)
                return
            widths = narrow
        self._row(names, widths, "bold")
        for row in found:
            self._row(row, widths)

    def _row(self, row: Mapping[str, str], widths: Mapping[str, int], color: str | None = None) -> None:
        """One row of a table. What does not fit into its column goes on below, in that column: only the first
        column, which is never folded, begins a line."""
        cells = [pieces(row[column], width, early=True) for column, width in widths.items()]
        for number in range(max(map(len, cells))):
            line = [cell[number] if number < len(cell) else "" for cell in cells]
            padded = [
                text + " " * (width - columns_of(text))
                for text, width in zip(line, widths.values(), strict=True)
            ]
            self.out.write(self.paint("  ".join(padded).rstrip(), color) + "\n")

    def _records(self, rows: Sequence[Mapping[str, str]], names: Mapping[str, str]) -> None:
        """Rows that no table of this width can hold: one line for each thing that is said."""
        lead = max(map(columns_of, names.values())) + 2
        for number, row in enumerate(rows):
            if number:
                self.out.write("\n")
            for column, name in names.items():
                if row[column] != _NOTHING or column == next(iter(names)):
                    label = name + " " * (lead - columns_of(name))
                    self.out.writelines(line + "\n" for line in fold(label, row[column], self.width))

    # --- stderr: talk -----------------------------------------------------------------------------

    def say(self, text: str, color: str | None = None) -> None:
        """One line of talk; silent with ``--quiet``."""
        if not self.style.quiet:
            self.note(text, color)

    def detail(self, text: str) -> None:
        """One line of talk that only ``--verbose`` shows."""
        if self.style.verbose:
            self.note(text, "dim")

    def passing(self, text: str) -> None:
        """A line that holds until something else is said. Only where somebody watches: on a terminal."""
        if self.style.quiet or self.style.json or self.style.dumb or not self.err.isatty():
            return
        self.wipe()
        shown = pieces(visible(text), max(8, self.width - 1))[0]
        self.err.write(self.paint(shown, "dim"))
        self.err.flush()
        self._passing = columns_of(shown)

    def wipe(self) -> None:
        """Take away what was only for the moment: a passing line, the rows below."""
        if self.below is not None:
            self.below.wipe()
        if self._passing:
            self.err.write(f"\r{' ' * self._passing}\r")  # every terminal understands blanks
            self.err.flush()
            self._passing = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is said inside reaches the terminal in one write, so that rows below do not flicker. Streams
        that are not one terminal are left alone."""
        out, err = self.out, self.err
        held = _Held() if self.below is not None and err.isatty() else None
        if held is not None:
            self.err = held
            self.out = held if _same_terminal(out, err) else out
        try:
            yield
        finally:
            self.out, self.err = out, err
            if held is not None and (said := held.getvalue()):
                err.write(said)
                err.flush()

    def note(self, text: str, color: str | None = None) -> None:
        """One line of talk that is always said: questions, errors, the next thing to type."""
        self.wipe()
        for line in self._lines(text, self.err):
            self.err.write(self.paint(line, color) + "\n")
        self.err.flush()

    def error(self, error: RunloopError) -> None:
        """An error, for people on stderr; with ``--json`` also as an object on stdout."""
        for line in error_lines(error):
            self.note(line, "red")
        if self.style.json:
            self.json({"error": error.to_wire()})

    def _lines(self, text: str, stream: TextIO) -> list[str]:
        """One line, safe; on a terminal folded by us, or the terminal would begin a row with foreign text."""
        return fold("", text, self.width) if stream.isatty() else [visible(text)]

    def paint(self, text: str, color: str | None) -> str:
        """Add colour to text that is already safe."""
        if color is None or not self.style.color or not text or self.style.theme == "none":
            return text
        return f"\x1b[{_THEMES.get(self.style.theme, _COLORS)[color]}m{text}\x1b[0m"


class _Held(StringIO):
    """What is said to a terminal, for a moment."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def isatty(self) -> bool:
        return True


def _same_terminal(out: TextIO, err: TextIO) -> bool:
    import os

    try:
        return os.ttyname(out.fileno()) == os.ttyname(err.fileno())
    except (OSError, ValueError):
        return False


def error_lines(error: RunloopError) -> list[str]:
    """``rlp: what and why; hint``; findings, where there are any, one per line before it."""
    findings = error.data.get("findings")
    if isinstance(findings, list) and findings:
        lines = [f"rlp: {finding_words(finding)}" for finding in findings]
        if len(lines) == 1:
            return lines
        return [*lines, f"rlp: {len(lines)} findings; nothing was done"]
    last = f"rlp: {error.message}"
    if trace := error.data.get("run"):
        last += f" (run {trace})"
    return [f"{last}; {error.hint}" if error.hint else last]


def finding_words(finding: Any) -> str:
    """A loader's finding as ``file:line:column: what; why; fix``; any other as the text it is."""
    if not isinstance(finding, Mapping):
        return str(finding)
    place = ":".join(str(finding[part]) for part in ("file", "line", "column") if finding.get(part))
    said = "; ".join(str(finding[part]) for part in ("what", "why", "fix") if finding.get(part))
    warning = "warning: " if finding.get("severity") == "warning" else ""
    return f"{place}: {warning}{said}" if place else f"{warning}{said}"


def words(value: Any) -> str:
    """A cell: text as it is (escaped), lists joined, absence as a dash, objects as JSON."""
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return visible(", ".join(value)) or _NOTHING
    if isinstance(value, list | dict | tuple):
        return json_text(value)
    return visible(str(value))


def _wide(widths: Mapping[str, int]) -> int:
    """Columns of a terminal that a table takes."""
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _narrowed(
    names: Mapping[str, str],
    rows: Sequence[Mapping[str, str]],
    widths: Mapping[str, int],
    room: int,
    prose: Collection[str] = (),
) -> dict[str, int] | None:
    """Widths that fit into ``room``, the widest columns folded between words; None if a word would be cut,
    other than in ``prose``."""
    least = {}
    for column in widths:
        of = (columns_of(word) for row in rows for word in row[column].split(" "))
        longest = _PROSE if column in prose else max(of)
        least[column] = min(widths[column], max(columns_of(names[column]), longest) + 1)
    first = next(iter(widths))
    least[first] = widths[first]
    fitting = dict(widths)
    over = _wide(fitting) - room
    while over > 0:
        column = max(fitting, key=lambda name: fitting[name] if fitting[name] > least[name] else -1)
        if fitting[column] <= least[column]:
            return None
        fitting[column] -= 1
        over -= 1
    return fitting
