"""Entry of ``agtop``: what needs no terminal is answered before anything heavy is imported."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the cockpit; return its exit code (``runloop.exits``)."""
    from agtop.start import start

    return start(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
