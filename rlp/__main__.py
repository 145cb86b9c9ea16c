"""Entry of ``rlp``, in two stages: what needs no work is answered before anything is imported.

Stage one knows ``--help`` (texts rendered at build time), ``--version`` and the completion protocol of the
shells; everything else is for :mod:`rlp.app`. Imports nothing but ``sys`` at the top: start-up time is a
feature.
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
    from rlp.app import run

    return run(words)


def show_help(path: str) -> int:
    """Print the help text of a command (``""``: of the whole) to stdout."""
    with open(f"{__file__.rpartition('/')[0]}/_help.txt", encoding="utf-8") as file:  # noqa: PTH123
        pages = file.read().split("\x0c")
    for page in pages:
        name, _, text = page.partition("\n")
        if page and name == path:
            sys.stdout.write(text)
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
