"""Three mechanical kinds of TODO, carried out on one Python source; what is not certain is refused.

    # TODO(rename): old -> new            a name of this file
    # TODO(remove): unused import         on an import: the names that nothing uses
    # TODO(type): a: int, b: str -> bool  on a ``def``

Knows: Python's tokens and syntax. Does not know: files, other agents.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import io
import keyword
import re
import tokenize
from collections.abc import Callable, Iterable, Sequence
from tokenize import TokenInfo
from typing import Any

__all__ = ["Refused", "carry_out", "unified"]


class Refused(Exception):
    """This one is left to a person."""


def carry_out(
    source: str, todos: Sequence[dict[str, Any]]
) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """The new source, the TODOs that were done, and those that were refused, each with its line.

    From the last line up, so that the lines above keep their numbers.
    """
    done, refused = [], []
    for todo in sorted(todos, key=lambda one: -int(one["line"])):
        told = {"line": todo["line"], "kind": todo["kind"]}
        try:
            if "\r" in source or "\f" in source:
                raise Refused("the file has other line ends than \\n")
            made = KINDS[todo["kind"]](source, int(todo["line"]), str(todo["text"]))
            ast.parse(made)
        except Refused as why:
            refused.append({**told, "why": str(why)})
        except (SyntaxError, tokenize.TokenError, ValueError) as error:
            refused.append({**told, "why": f"what came of it would be no Python: {error}"})
        else:
            source = made
            done.append({**told, "text": todo["text"]})
    return source, done[::-1], refused[::-1]


# --- the three kinds ------------------------------------------------------------------------------


def rename(source: str, line: int, text: str) -> str:
    """Every use of a name of this file, the names inside f-strings included."""
    old, arrow, new = (part.strip() for part in text.partition("->"))
    if not arrow or not _plain(old) or not _plain(new) or old == new:
        raise Refused(f"{text!r} is not 'old -> new'")
    tokens = _tokens(source)
    code = [token for token in tokens if token.type not in (tokenize.COMMENT, tokenize.NL)]
    places = [at for at, token in enumerate(code) if token.type == tokenize.NAME and token.string == old]
    if not places:
        raise Refused(f"there is no name {old}")
    if any(token.type == tokenize.NAME and token.string == new for token in code):
        raise Refused(f"{new} is a name here already")
    imported = {name for first, last in _imports(tokens) for name in _names(tokens, first, last)}
    for at in places:
        before, after = code[at - 1].string if at else "", code[at + 1].string
        if before == ".":
            raise Refused(f"{old} is also an attribute")
        if after == "=" and before in ("(", ","):
            raise Refused(f"{old} is also a keyword or has a default; callers may name it")
    if old in imported:
        raise Refused(f"{old} is imported: it has its name elsewhere")
    if any(_says(token, old) for token in tokens):
        raise Refused(f"a text says {old}")
    return _uncommented(_put(source, ((code[at].start, code[at].end, new) for at in places)), line)


def remove(source: str, line: int, text: str) -> str:
    """The names of an import that nothing uses; the whole statement when that is all of them."""
    tokens = _tokens(source)
    found = next(((a, b) for a, b in _imports(tokens) if a <= line <= b), None)
    if found is None:
        raise Refused("this is not on an import")
    first, last = found
    lines = _lines(source)
    segment = "".join(lines[first - 1 : last])
    indent = segment[: len(segment) - len(segment.lstrip(" \t"))]
    statements = ast.parse(segment.strip() + "\n").body
    if len(statements) != 1 or not isinstance(statements[0], ast.Import | ast.ImportFrom):
        raise Refused("more than one statement is on this line")
    statement = statements[0]
    if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
        raise Refused("this import is a switch of the language")
    used = {
        token.string
        for token in tokens
        if token.type == tokenize.NAME and not first <= token.start[0] <= last
    }
    kept = []
    for alias in statement.names:
        name = alias.asname or alias.name.partition(".")[0]
        if name == "*":
            raise Refused("nobody can tell what * brings in")
        if name in used or any(_says(token, name) for token in tokens):
            kept.append(alias)
    if len(kept) == len(statement.names):
        raise Refused("everything it brings in is used")
    if not kept:
        return _without(lines, first, last)
    return "".join([*lines[: first - 1], f"{indent}{_import(statement, kept)}\n", *lines[last:]])


def annotate(source: str, line: int, text: str) -> str:
    """Types of parameters and of the result, where there are none."""
    params, _, result = (part.strip() for part in text.partition("->"))
    header = f"def _({params}){' -> ' + result if result else ''}: pass"
    try:
        asked = ast.parse(header).body[0]
    except SyntaxError as error:
        raise Refused(f"{text!r} is not 'a: type, b: type -> type'") from error
    assert isinstance(asked, ast.FunctionDef)
    wanted = {arg.arg: arg.annotation for arg in _args(asked)}
    if None in wanted.values() or (not wanted and not result):
        raise Refused(f"{text!r} gives no type")
    tokens = _tokens(source)
    function = _function_at(source, tokens, line)
    has = {arg.arg: arg for arg in _args(function)}
    edits: list[tuple[tuple[int, int], tuple[int, int], str]] = []
    types = [kind for kind in [*wanted.values(), asked.returns] if kind is not None]
    _insist_known(types, tokens)
    lines = _lines(source)
    for name, kind in wanted.items():
        if name not in has or kind is None:
            raise Refused(f"{function.name} has no parameter {name}")
        if has[name].annotation is not None:
            raise Refused(f"{name} has a type already")
        row, column = has[name].end_lineno or 0, has[name].end_col_offset or 0
        at = len(lines[row - 1].encode()[:column].decode())
        default = lines[row - 1][at : at + 2]
        tight = default.startswith("=") and not default.startswith("==")
        edits.append(
            (
                (row, at),
                (row, at + tight),
                f": {ast.get_source_segment(header, kind)}" + (" = " if tight else ""),
            )
        )
    if asked.returns is not None:
        if function.returns is not None:
            raise Refused("it has a type of its result already")
        close = _closing(tokens, function.lineno)
        edits.append((close.end, close.end, f" -> {result}"))
    return _uncommented(_put(source, edits), line)


KINDS: dict[str, Callable[[str, int, str], str]] = {"rename": rename, "remove": remove, "type": annotate}


# --- the difference -------------------------------------------------------------------------------


def unified(path: str, before: str, after: str) -> str:
    """A unified diff that ``git apply`` and ``patch -p1`` take; empty where nothing changed."""
    end = "\t" if " " in path else ""
    rows = difflib.unified_diff(_lines(before), _lines(after), f"a/{path}{end}", f"b/{path}{end}")
    return "".join(row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n" for row in rows)


# --- tokens ---------------------------------------------------------------------------------------


def _tokens(source: str) -> list[TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(source, newline="").readline))


def _lines(source: str) -> list[str]:
    """As the tokenizer counts them, each with its end."""
    return re.findall(r"[^\n]*\n|[^\n]+", source)


def _put(source: str, edits: Iterable[tuple[tuple[int, int], tuple[int, int], str]]) -> str:
    lines = _lines(source)
    for (row, start), (_, end), text in sorted(edits, reverse=True):
        lines[row - 1] = lines[row - 1][:start] + text + lines[row - 1][end:]
    return "".join(lines)


def _uncommented(source: str, line: int) -> str:
    """Without the comment on a line; without the line, when it was nothing else."""
    comment = next(t for t in _tokens(source) if t.type == tokenize.COMMENT and t.start[0] == line)
    lines = _lines(source)
    rest = lines[line - 1][: comment.start[1]].rstrip()
    if not rest:
        return _without(lines, line, line)
    lines[line - 1] = rest + lines[line - 1][comment.end[1] :]
    return "".join(lines)


def _without(lines: Sequence[str], first: int, last: int) -> str:
    """Without these lines; of blank ones on both sides, one goes with them."""
    above, below = lines[: first - 1], lines[last:]
    alone = below and not below[0].strip() and (not above or not above[-1].strip())
    return "".join([*above, *(below[1:] if alone else below)])


def _imports(tokens: Sequence[TokenInfo]) -> list[tuple[int, int]]:
    """First and last line of every logical line that begins with an import."""
    found, begin = [], None
    for token in tokens:
        if token.type in (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT):
            continue
        begin = token if begin is None else begin
        if token.type == tokenize.NEWLINE:
            if begin.string in ("import", "from"):
                found.append((begin.start[0], token.start[0]))
            begin = None
    return found


def _import(statement: ast.Import | ast.ImportFrom, names: Sequence[ast.alias]) -> str:
    """The statement with these names only; without ``ast.unparse``, which the sandbox does not have."""
    listed = ", ".join(f"{one.name} as {one.asname}" if one.asname else one.name for one in names)
    if isinstance(statement, ast.Import):
        return f"import {listed}"
    return f"from {'.' * statement.level}{statement.module or ''} import {listed}"


def _names(tokens: Sequence[TokenInfo], first: int, last: int) -> set[str]:
    return {t.string for t in tokens if t.type == tokenize.NAME and first <= t.start[0] <= last}


def _says(token: TokenInfo, name: str) -> bool:
    """A text that is the name and nothing else (``__all__``, ``getattr``), or one that is evaluated."""
    if token.type != tokenize.STRING:
        return False
    prefix = re.match(r"[A-Za-z]*", token.string)
    if prefix and "f" in prefix[0].lower():  # before Python 3.12 an f-string is one token
        return re.search(rf"\b{re.escape(name)}\b", token.string) is not None
    try:
        return bool(ast.literal_eval(token.string) == name)
    except (ValueError, SyntaxError):
        return True


def _plain(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not hasattr(builtins, name)


def _args(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    given = function.args
    more = [arg for arg in (given.vararg, given.kwarg) if arg is not None]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *more]


def _function_at(
    source: str, tokens: Sequence[TokenInfo], line: int
) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The function whose header has the line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            header = next(
                t
                for t in tokens
                if t.type == tokenize.NEWLINE and t.start >= _closing(tokens, node.lineno).end
            )
            if node.lineno <= line <= header.start[0]:
                return node
    raise Refused("this is not on a def")


def _closing(tokens: Sequence[TokenInfo], line: int) -> TokenInfo:
    """The parenthesis that ends the parameters of the ``def`` in a line."""
    depth = 0
    begun = False
    for token in tokens:
        if token.start[0] < line or token.type != tokenize.OP:
            continue
        begun = begun or (token.string == "(" and depth == 0)
        depth += (token.string in "([{") - (token.string in ")]}")
        if begun and depth == 0:
            return token
    raise Refused("this is not on a def")


def _insist_known(types: Iterable[ast.expr], tokens: Sequence[TokenInfo]) -> None:
    """A type that the file does not know would break it."""
    known = {token.string for token in tokens if token.type == tokenize.NAME}
    for kind in types:
        for part in ast.walk(kind):
            if isinstance(part, ast.Name) and part.id not in known and not hasattr(builtins, part.id):
                raise Refused(f"the file does not know {part.id}")
