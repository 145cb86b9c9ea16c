"""``runloopd``: start the daemon for one home and serve until told to stop.

Knows: arguments, signals, the log file, exit codes. Everything else is :mod:`runloopd.daemon`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from runloop import __version__
from runloop.config import Config, Paths, load
from runloop.errors import RunloopError
from runloop.exits import Exit

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns an exit code of :class:`runloop.exits.Exit`."""
    arguments = _parser().parse_args(argv)
    os.umask(0o077)
    try:
        paths = Paths.resolve(os.environ, home=arguments.home)
        config = load(home=paths.home, environ=os.environ)
        paths = Paths.resolve(os.environ, home=arguments.home, socket_path=config.runtime.socket_path)
        _configure_logging(config.logging.level)
        asyncio.run(_serve(config, paths))
    except RunloopError as error:
        hint = f"; {error.hint}" if error.hint else ""
        print(f"runloopd: {error.message}{hint}", file=sys.stderr)
        return int(error.exit)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    return int(Exit.OK)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runloopd", description="The Runloop daemon: serves one home over one Unix socket."
    )
    parser.add_argument("--home", type=Path, help="home directory (default: $RUNLOOP_HOME or ~/.runloop)")
    parser.add_argument("--version", action="version", version=f"runloopd {__version__}")
    return parser


async def _serve(config: Config, paths: Paths) -> None:
    from runloopd.daemon import Daemon

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Daemon(config, paths, stop):
        await stop.wait()


def _configure_logging(level: str) -> None:
    import logging

    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
