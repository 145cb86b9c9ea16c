"""One command line of ``agtop``: words in, a feed and a screen, an exit code out.

Knows: the options, which feed serves them, when a terminal is missing. The only module that knows both feeds
and the screen. Heavy parts are imported once the words are understood.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import NamedTuple

from runloop.errors import NotFoundError, RunloopError, UsageError
from runloop.exits import Exit
from runloop.spelling import did_you_mean

__all__ = ["OPTIONS", "Words", "parse", "start", "usage"]


class Words(NamedTuple):
    """What was asked for."""

    run: str | None = None
    home: str | None = None
    ledger: str | None = None
    recorded: bool = False
    plain: bool = False
    theme: str | None = None
    no_color: bool = False
    no_mouse: bool = False
    help: bool = False
    version: bool = False


OPTIONS: tuple[tuple[str, tuple[str, ...], str | None, str], ...] = (
    ("recorded", ("--recorded",), None, "read the ledger only; look for no daemon, change nothing"),
    ("ledger", ("--ledger",), "FILE", "read this ledger: a backup's events.db, say (implies --recorded)"),
    ("plain", ("--plain",), None, "for screen readers: lines of words, no boxes, nothing that moves"),
    ("theme", ("--theme",), "NAME", "colours: runloop, runloop-light, high-contrast, one of Textual's, none"),
    ("no_color", ("--no-color",), None, "no colour; the variable NO_COLOR does the same"),
    ("no_mouse", ("--no-mouse",), None, "leave the mouse to the terminal, to select text with it"),
    ("home", ("--home",), "DIR", "use this home instead of $RUNLOOP_HOME or ~/.runloop"),
    ("help", ("-h", "--help"), None, "show this"),
    ("version", ("--version",), None, "show the version"),
)
"""Field of :class:`Words`, flags, the value's name where there is one, what it does."""


def start(argv: list[str]) -> int:
    """Do what the words say; never raises."""
    try:
        words = parse(argv)
        if words.help:
            sys.stdout.write(usage())
            return int(Exit.OK)
        if words.version:
            from runloop import __version__

            sys.stdout.write(f"agtop {__version__}\n")
            return int(Exit.OK)
        return _run(words)
    except RunloopError as error:
        from runloop.escape import visible

        hint = f"; {error.hint}" if error.hint else ""
        sys.stderr.write(f"agtop: {visible(error.message + hint)}\n")
        return int(error.exit)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)


def parse(argv: list[str]) -> Words:
    """Understand a command line; raises :class:`UsageError` with a suggestion."""
    flags = {flag: (name, value) for name, all_flags, value, _ in OPTIONS for flag in all_flags}
    given: dict[str, str | bool] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            if "run" in given:
                raise UsageError(
                    f"'{word}' is one run too many",
                    hint="agtop takes one; 'r' picks another",
                    code="cli.argument",
                )
            given["run"] = word
            continue
        if flag not in flags:
            raise UsageError(
                f"agtop has no option {flag}",
                hint=did_you_mean(flag, flags, "'agtop --help' lists them"),
                code="cli.option",
            )
        name, takes = flags[flag]
        if takes is None:
            if equals:
                raise UsageError(f"{flag} takes no value", hint=f"write {flag} alone", code="cli.option")
            given[name] = True
        elif equals or rest:
            given[name] = value if equals else rest.pop(0)
        else:
            raise UsageError(f"{flag} needs a value: {takes}", hint="'agtop --help'", code="cli.option")
    return Words(**given)  # type: ignore[arg-type]


def usage() -> str:
    """The help text."""
    rows = [(", ".join(flags) + (f" {value}" if value else ""), does) for _, flags, value, does in OPTIONS]
    width = max(len(row) for row, _ in rows)
    return (
        "Usage: agtop [OPTIONS] [RUN]\n\n"
        "  The cockpit: runs, their logs, agents, messages and what waits for you, in one\n"
        "  terminal. RUN is the id of a run or its beginning; without one, the newest.\n\n"
        "Options:\n" + "".join(f"  {row:<{width}}  {does}\n" for row, does in rows) + "\n"
        "  '?' shows the keys, 'q' leaves. 'rlp top --once' prints figures for scripts.\n"
    )


def _run(words: Words) -> int:
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # Textual draws on stderr
        raise UsageError(
            "agtop needs a terminal",
            hint="'rlp runs', 'rlp trace RUN' and 'rlp top --once --json' are for pipes",
            code="agtop.terminal",
        )
    from runloop.config import Config, ConfigError, Paths, load

    home = Paths.resolve(os.environ, home=words.home)
    recorded = words.ledger is not None or words.recorded
    try:
        configured = load(home=home.home, environ=os.environ, flags={})
    except ConfigError:
        if not recorded:
            raise
        configured = (
            Config()
        )  # what is on record can be looked at, whatever is wrong with the daemon's settings
    theme = words.theme or configured.ui.theme
    if words.no_color or theme == "none":
        os.environ["NO_COLOR"] = "1"  # before Textual is imported: it looks once
    from agtop.app import CockpitApp
    from agtop.feed.live import LiveFeed
    from agtop.feed.recorded import RecordedFeed
    from agtop.looks import chosen

    theme = chosen(theme)
    desk: LiveFeed | RecordedFeed
    if recorded:
        ledger = Path(words.ledger).expanduser() if words.ledger is not None else home.events_db
        if not ledger.is_file():
            raise NotFoundError(
                f"there is no ledger at {ledger}", hint="--ledger names another file", code="agtop.no_ledger"
            )
        desk = RecordedFeed(ledger)
    else:
        socket = configured.runtime.socket_path
        paths = Paths.resolve(os.environ, home=words.home, socket_path=socket)
        desk = LiveFeed(paths, home=words.home)
    app = CockpitApp(desk, run=words.run, plain=words.plain, theme=theme)
    # A long run is a hundred thousand objects that stay: looking through all of them for circles, at every
    # few thousand more, is what would make keys wait.
    sys.setswitchinterval(0.001)  # the thread that reads the ledger gives way to a key sooner
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    app.run(mouse=not words.no_mouse)
    return app.return_code or int(Exit.OK)
