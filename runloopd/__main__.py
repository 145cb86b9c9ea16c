"""``runloopd``: start the daemon for one home and serve until told to stop.

Knows: arguments, signals, the log file, exit codes. Everything else is :mod:`runloopd.daemon`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from runloop import __version__
from runloop.config import Config, Paths, load
from runloop.errors import RunloopError, UsageError
from runloop.exits import Exit
from runloopd.broker.secrets import Known
from runloopd.privacy import guard_process, take_keys
from runloopd.systemd import Notifier, take_listener

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script; returns an exit code of :class:`runloop.exits.Exit`."""
    arguments = _parser().parse_args(argv)
    os.umask(0o077)
    try:
        if arguments.check:
            return check()
        paths = Paths.resolve(os.environ, home=arguments.home)
        config = load(home=paths.home, environ=os.environ)
        notifier, listener = Notifier(os.environ), take_listener(os.environ)
        environ = take_keys(os.environ, config.key_variables())
        guard_process()
        known = Known()
        paths = Paths.resolve(os.environ, home=arguments.home, socket_path=config.runtime.socket_path)
        _configure_logging(config.logging.level, known)
        with asyncio.Runner(loop_factory=_loop_factory(os.environ.get("RUNLOOP_LOOP"))) as runner:
            runner.run(_serve(config, paths, environ, known, notifier, listener))
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
    parser.add_argument(
        "--check",
        action="store_true",
        help="come up in an empty home of its own and go down again; the exit code says whether it went well",
    )
    parser.add_argument("--version", action="version", version=f"runloopd {__version__}")
    return parser


def _loop_factory(wish: str | None) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (the extra ``fast``) and not forbidden by ``RUNLOOP_LOOP=asyncio``.

    It takes a quarter of the CPU off every frame and every hop (docs/internals/bus.md).
    """
    if wish == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if wish == "uvloop":
            raise UsageError(
                "RUNLOOP_LOOP=uvloop, and uvloop is not installed", hint="pip install 'runloop[fast]'"
            ) from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def check() -> int:
    """Does this build come up here at all? What an upgrade asks before it ends the daemon that works.

    The same road as every start, with the system's settings, in a home that is gone afterwards; of the home
    it is asked about, it touches nothing.
    """
    _configure_logging("warning", known := Known())
    with tempfile.TemporaryDirectory(prefix="runloop-check-") as folder:
        home = Path(folder)
        paths = Paths.resolve({}, home=home, socket_path=str(home / "rmp.sock"))
        config = load(home=home, environ={})
        # Whoever upgrades stands in a control group of his own, not in the one that the unit hands over.
        config = config._replace(security=config.security._replace(control_groups="auto"))
        with asyncio.Runner(loop_factory=_loop_factory(os.environ.get("RUNLOOP_LOOP"))) as runner:
            runner.run(_serve(config, paths, {}, known, Notifier({}), None, at_once=True))
    return int(Exit.OK)


async def _serve(
    config: Config,
    paths: Paths,
    environ: Mapping[str, str],
    known: Known,
    notifier: Notifier,
    listener: socket.socket | None,
    *,
    at_once: bool = False,
) -> None:
    from runloopd.daemon import Daemon

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if at_once:
        stop.set()
    try:
        async with Daemon(
            config, paths, stop, environ=environ, known=known, listener=listener, longer=notifier.longer
        ):
            notifier.ready()
            await stop.wait()
            notifier.stopping()
    finally:
        await notifier.close()


def _configure_logging(level: str, known: Known) -> None:
    import logging

    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _masked,
            structlog.processors.JSONRenderer(),
            # Last of all, over the whole line: whatever went wrong, a secret that was used is not in it.
            lambda _, __, line: known.text(str(line)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _masked(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A log outlives what it tells of, and is sent to strangers with bug reports: no addresses, no keys."""
    from pog.redact import mask

    masked: MutableMapping[str, Any] = mask(dict(line))
    return masked


if __name__ == "__main__":
    sys.exit(main())
