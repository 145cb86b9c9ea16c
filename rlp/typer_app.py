"""The command table as a Typer application: the long help comes from here.

Not on the way of any command that does work: help texts are rendered once, at build time (``generate``), and
the hot path parses by itself (``parse``). Knows how to translate the table; adds no command and no option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rlp.table import COMMANDS, GLOBAL, GROUPS, Argument, Command, Option

__all__ = ["application"]

_TYPES: dict[str, Any] = {"flag": bool, "text": str | None, "number": int, "texts": list[str]}

Runner = Callable[[Command, dict[str, Any]], None]


def application(run: Runner) -> typer.Typer:
    """Build the application; ``run`` is called with the command and the values of all its parameters."""
    app = typer.Typer(
        name="rlp",
        help="Runloop: a terminal-first local agent OS.\n\n"
        'Type what you want in quotes (rlp "write a mail to john about the Q4 plan"), '
        "or a command; -c goes on from there.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "terminal_width": 80,
            "max_content_width": 80,
        },
    )
    groups = {}
    for name, summary in GROUPS.items():
        groups[name] = typer.Typer(name=name, help=summary, no_args_is_help=True, rich_markup_mode=None)
    for command in COMMANDS:
        words = command.path.split()
        home = groups[words[0]] if len(words) == 2 else app
        home.command(
            words[-1],
            help=f"{_sentence(command.summary)}\n\n{command.details}".strip(),
            short_help=command.summary,
        )(_function(command, run))
    for name, group in groups.items():
        app.add_typer(group, name=name)
    return app


def _function(command: Command, run: Runner) -> Callable[..., None]:
    """A function whose signature says what the table says."""

    def call(**values: Any) -> None:
        run(command, values)

    options = [
        *command.options,
        # named apart where a command has an option of the same name: Typer wants distinct parameters
        *(option for option in GLOBAL if option.name not in {own.name for own in command.options}),
    ]
    parameters = [_argument(argument) for argument in command.arguments] + [_option(one) for one in options]
    call.__name__ = command.path.replace(" ", "_")
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _argument(argument: Argument) -> inspect.Parameter:
    kind: Any = list[str] if argument.many else (str | None if argument.optional else str)
    return inspect.Parameter(
        argument.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, typer.Argument(help=argument.help, show_default=False)],
        default=None if argument.optional else inspect.Parameter.empty,
    )


def _option(option: Option) -> inspect.Parameter:
    settings = typer.Option(
        *option.flags,
        help=option.help,
        metavar=option.metavar or None,
        show_default=option.kind == "number" or bool(option.default and option.kind == "text"),
    )
    start: Any = [] if option.kind == "texts" else option.start
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[_TYPES[option.kind], settings],
        default=start,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
