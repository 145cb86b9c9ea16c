"""Words into calls: a small parser over the command table.

Knows: options anywhere, ``--name=value``, ``-n5``, joined flags (``-qv``), ``--`` ends options, ``many``
arguments, suggestions for what it does not know. Does not know: what a command does, or how help looks. It
exists because the libraries that parse and render so well cost 100 ms before the first useful instruction
(typer renders the long help, from the same table).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rlp.table import COMMANDS, CONTINUE, DETACH, GLOBAL, GROUPS, Command, Option, find
from runloop.errors import UsageError

__all__ = ["Call", "Prompt", "WantsHelp", "parse"]


class Call(NamedTuple):
    """A command and its values, complete."""

    command: Command
    values: dict[str, Any]
    globals: dict[str, Any]


class Prompt(NamedTuple):
    """No command: a wish in plain words."""

    text: str
    globals: dict[str, Any]
    values: dict[str, Any] = {}


class WantsHelp(NamedTuple):
    """``--help`` was asked, for a command, a group, or (empty) the whole."""

    path: str


def parse(argv: list[str]) -> Call | Prompt | WantsHelp:
    """Understand a command line; raises :class:`UsageError` with a suggestion where it cannot."""
    words, rest = _leading(argv)
    found = find(words) if words else None
    if found is None:
        return _unnamed(argv, words)
    command, named = found
    # rest: (position, word); the words that name the command are taken out, whatever stood between them
    taken = {position for position, _ in rest[:named]}
    tail = [word for position, word in enumerate(argv) if position not in taken]
    options = {flag: option for option in (*GLOBAL, *command.options) for flag in option.flags}
    given, positional, wants_help = _split(tail, options, command.path)
    if wants_help:
        return WantsHelp(command.path)
    values = {option.name: given.pop(option.name, option.start) for option in command.options}
    values.update(_arguments(command, positional))
    shared = {option.name: given.get(option.name, option.start) for option in GLOBAL}
    return Call(command, values, shared)


def _leading(argv: list[str]) -> tuple[list[str], list[tuple[int, str]]]:
    """The first two words that are not options, before any ``--``; global options may stand between."""
    valued = {flag for option in GLOBAL if option.kind != "flag" for flag in option.flags}
    found: list[tuple[int, str]] = []
    skip = False
    for position, word in enumerate(argv):
        if skip:
            skip = False
        elif word == "--" or len(found) == 2:
            break
        elif word in valued:
            skip = True
        elif not word.startswith("-"):
            found.append((position, word))
    return [word for _, word in found], found


def _unnamed(argv: list[str], words: list[str]) -> Prompt | WantsHelp:
    options = {flag: option for option in GLOBAL for flag in option.flags}
    extra = {flag: option for option in (_param(), CONTINUE, DETACH) for flag in option.flags}
    first = words[0] if words else ""
    prompting = any(char.isspace() for char in first) or argv[-2:-1] == ["--"]
    given, positional, wants_help = _split(argv, {**options, **extra} if prompting else options, "")
    if wants_help or not positional:
        return WantsHelp(positional[0] if positional and positional[0] in GROUPS else "")
    first = positional[0]
    if first in GROUPS:
        members = [c.path.split()[1] for c in COMMANDS if c.path.startswith(first + " ")]
        named = positional[1] if len(positional) > 1 else None
        raise UsageError(
            f"'{first} {named}' is not a command" if named else f"'{first}' needs one more word",
            hint=_nearest(named, members, prefix=f"rlp {first} ") or f"one of: {', '.join(members)}",
            code="cli.command",
        )
    # One word is a prompt where it is said to be: behind "--".
    if len(positional) == 1 and (any(char.isspace() for char in first.strip()) or argv[-2:-1] == ["--"]):
        shared = {option.name: given.get(option.name, option.start) for option in GLOBAL}
        own = {
            "params": given.get("params", ()),
            "continued": given.get("continued", False),
            "detach": given.get("detach", False),
        }
        return Prompt(first, shared, own)
    verbs = [command.path for command in COMMANDS]
    raise UsageError(
        f"'{first}' is not a command",
        hint=_nearest(first, [*verbs, *GROUPS], prefix="rlp ")
        or (
            'quote the whole prompt: rlp "..."'
            if len(positional) > 1
            else "'rlp --help' lists the commands; a prompt has several words, in quotes"
        ),
        code="cli.command",
    )


def _param() -> Option:
    return next(option for option in COMMANDS[0].options if option.name == "params")


def _nearest(word: str | None, known: list[str], *, prefix: str) -> str | None:
    if not word:
        return None
    from runloop.spelling import nearest

    close = nearest(word, known, cutoff=0.65)
    return f"did you mean '{prefix}{close}'?" if close else None


def _split(argv: list[str], options: dict[str, Option], path: str) -> tuple[dict[str, Any], list[str], bool]:
    """Options with their values, positional words, and whether help was asked."""
    given: dict[str, Any] = {}
    positional: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            positional += words
        elif word in ("-h", "--help"):
            return given, positional, True
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            option = _known(name, options, path)
            _set(given, option, name, value if equals else None, words, path)
        elif word.startswith("-") and len(word) > 1 and not word[1].isdigit():
            _short(word, given, options, words, path)
        else:
            positional.append(word)
    return given, positional, False


def _short(word: str, given: dict[str, Any], options: dict[str, Option], words: Any, path: str) -> None:
    letters = word[1:]
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        option = _known(name, options, path)
        if option.kind == "flag":
            _set(given, option, name, None, words, path)
        else:
            _set(given, option, name, letters.removeprefix("=") if letters else None, words, path)
            return


def _known(name: str, options: dict[str, Option], path: str) -> Option:
    option = options.get(name)
    if option is None:
        said = f"rlp {path}".strip()
        raise UsageError(
            f"'{said}' has no option {name}",
            hint=_nearest(name, list(options), prefix="") or f"'{said} --help' lists its options",
            code="cli.option",
        )
    return option


def _set(given: dict[str, Any], option: Option, name: str, value: str | None, words: Any, path: str) -> None:
    if option.kind == "flag":
        if value is not None:
            raise UsageError(f"{name} takes no value", hint=f"write {name} alone", code="cli.option")
        given[option.name] = True
        return
    if value is None:
        value = next(words, None)
    if value is None:
        raise UsageError(
            f"{name} needs a value", hint=f"{name} {option.metavar or 'VALUE'}", code="cli.option"
        )
    if option.kind == "texts":
        given[option.name] = (*given.get(option.name, ()), value)
    elif option.kind == "number":
        if not (value.isascii() and value.isdigit() and 0 < int(value) <= 1_000_000):
            raise UsageError(f"{name} needs a number, not {value!r}", hint="1 to 1000000", code="cli.option")
        given[option.name] = int(value)
    else:
        given[option.name] = value


def _arguments(command: Command, positional: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    left = list(positional)
    for argument in command.arguments:
        if argument.many:
            values[argument.name], left = tuple(left), []
            missing = not values[argument.name] and not argument.optional
        else:
            values[argument.name] = left.pop(0) if left else None
            missing = values[argument.name] is None and not argument.optional
        if missing:
            raise UsageError(
                f"'rlp {command.path}' needs {argument.name.upper()}: {argument.help}",
                hint=f"'rlp {command.path} --help' shows how it is used",
                code="cli.argument",
            )
    if left:
        raise UsageError(
            f"'rlp {command.path}' does not take {left[0]!r}",
            hint="quote values that contain spaces" if command.arguments else "leave it out",
            code="cli.argument",
        )
    return values
