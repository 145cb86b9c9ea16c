"""Entry of ``rlp``, in two stages: what needs no work is answered before anything is imported.

Stage one knows ``--help`` (texts rendered at build time) and ``--version``; everything else is for
:mod:`rlp.app`. Imports nothing but ``sys`` at the top: start-up time is a feature.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command line; return its exit code (``runloop.exits``)."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words in (["--help"], ["-h"], ["help"]):
        return show_help("")
    if words == ["--version"]:
        from runloop import __version__

        sys.stdout.write(f"rlp {__version__}\n")
        return 0
    try:
        from rlp.app import run

        return run(words)
    except KeyboardInterrupt:
        # While the parts are being loaded: later on, rlp.app says what an interruption left behind.
        sys.stderr.write("rlp: interrupted\n")
        return 130


def show_help(path: str) -> int:
    """Print the help text of a command (``""``: of the whole) to stdout."""
    with open(f"{__file__.rpartition('/')[0]}/_help.txt", encoding="utf-8") as file:  # noqa: PTH123
        pages = file.read().split("\x0c")
    for page in pages:
        name, _, text = page.partition("\n")
        if page and name == path:
            sys.stdout.write(_fitted(text) if sys.stdout.isatty() else text)
            return 0
    return 1


def _fitted(text: str) -> str:
    """A page, rendered for 80 columns, without words cut by a narrower terminal."""
    import os

    try:
        width = os.get_terminal_size(1).columns
    except OSError:
        return text
    return text if not 24 <= width < 80 else "\n".join(hung(line, width) for line in text.split("\n"))


def hung(line: str, width: int) -> str:
    """A line of help cut between words; what goes on stands below the begin of its last column."""
    column = line.rstrip().rfind("  ") + 2
    blank = " " * (column if column < width - 20 else 4)
    rows = []
    while len(line) > width:
        cut = line.rfind(" ", len(blank) + 1, width + 1)
        if cut < 0:
            break
        rows.append(line[:cut].rstrip())
        line = blank + line[cut + 1 :].lstrip()
    return "\n".join([*rows, line])


if __name__ == "__main__":
    sys.exit(main())
