"""What an error says to type next can be typed: every command in a hint is read by the real parser."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from rlp.parse import Call, parse
from runloop.errors import UsageError

ROOT = Path(__file__).parents[2]
PACKAGES = ("rlp", "runloopd", "pog", "openings", "sdk/python")
COMMAND = re.compile(r"'rlp ([a-z][^']*)'|^rlp ([a-z][^;]*)$|: rlp ([a-z][^;()]*)$")
"""In quotes, or the whole hint, or what follows a colon."""


def hints() -> Iterator[tuple[str, str]]:
    """``file:line`` and text of every ``hint=`` in the code; what is filled in at run time reads as ``x``."""
    listed = subprocess.run(["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        source = (ROOT / name).read_text() if name.endswith(".py") and (ROOT / name).is_file() else ""
        if "hint=" in source:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.keyword) and node.arg == "hint":
                    yield from ((f"{name}:{node.value.lineno}", text) for text in texts(node.value))


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from texts(child)


def test_every_command_in_a_hint_can_be_typed() -> None:
    commands = sorted(
        {
            (place, next(group for group in found.groups() if group))
            for place, text in hints()
            for found in COMMAND.finditer(re.sub("<[^>]*>", "x", text))
        }
    )
    assert len(commands) > 50
    wrong = [f"{place}: 'rlp {words}': {why}" for place, words in commands if (why := refused(words))]
    assert wrong == []


def refused(command: str) -> str:
    """Why the parser does not take a command; empty when it does."""
    words = shlex.split(command)
    try:
        asked = parse(words)
    except UsageError as error:
        if "needs" not in error.message:
            return error.message
        try:
            asked = parse([*words, "x"])  # named without its argument
        except UsageError as again:
            return again.message
    return "" if isinstance(asked, Call) or "--help" in words else f"it is read as {asked}"
