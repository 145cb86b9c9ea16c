"""One command line from words to exit code.

Knows: how a call finds its function, how errors become words and exit codes. Does not know: what commands do,
or how a daemon is reached (``session``).
"""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO

from rlp.__main__ import show_help
from rlp.output import Console, Style
from rlp.parse import Call, Prompt, WantsHelp, parse
from runloop.errors import RunloopError
from runloop.exits import Exit

__all__ = ["run"]


def run(argv: list[str]) -> int:
    """Do what the words say; never raises."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that cannot write a character must not turn an answer into a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    console = _console({"json": "--json" in argv, "no_color": "--no-color" in argv})
    try:
        asked = parse(argv)
        if isinstance(asked, WantsHelp):
            code = show_help(asked.path)
        else:
            console = _console(asked.globals)
            code = int(_perform(asked, console))
        sys.stdout.flush()
        return code
    except RunloopError as error:
        console.error(error)
        return int(error.exit)
    except KeyboardInterrupt:
        console.note("rlp: interrupted")
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader went away, as `| head` does. Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except Exception as error:
        if console.style.verbose:
            import traceback

            for line in traceback.format_exc().splitlines():
                console.note(line, "dim")
        wrapped = RunloopError(
            f"internal error: {type(error).__name__}: {error}",
            hint="this is a fault of rlp; run it again with --verbose to see where",
        )
        console.error(wrapped)
        return int(Exit.FAILED)


def _perform(asked: Call | Prompt, console: Console) -> Exit:
    from importlib import import_module

    from rlp.session import Session

    with Session(
        console=console,
        environ=os.environ,
        home=asked.globals["home"],
        stdin=sys.stdin,
        may_ask=not asked.globals["no_input"],
        # Who wishes something in a folder that was cloned means nothing that somebody put there.
        here=not isinstance(asked, Prompt) and asked.command.target not in ("why:why", "why:route"),
    ) as session:
        if isinstance(asked, Prompt):
            from rlp.commands.prompt import prompt

            return prompt(session, text=asked.text, **asked.values)
        module, _, function = asked.command.target.partition(":")
        command = getattr(import_module(f"rlp.commands.{module}"), function)
        done: Exit = command(session, **asked.values)
        return done


def _console(options: dict[str, Any]) -> Console:
    plain = options.get("no_color") or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    style = Style(
        json=bool(options.get("json")),
        quiet=bool(options.get("quiet")),
        verbose=bool(options.get("verbose")),
        color=not plain and _is_terminal(sys.stderr) and _is_terminal(sys.stdout),
        dumb=os.environ.get("TERM") == "dumb",
    )
    return Console(sys.stdout, sys.stderr, style, width=_width())


def _is_terminal(stream: TextIO) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())


def _width() -> int:
    try:
        return max(24, os.get_terminal_size(2).columns or 80)
    except OSError:
        return 80
