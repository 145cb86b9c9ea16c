"""How a tool of ``tools.json`` is carried out: a request, a program, another server's tool, an agent's own.

Knows: the shape of each transport, and that arguments only ever fill places its author left: whole segments
of a path, parameters, fields of a JSON body, whole words of an argv. Does not know: the rest of a tool
(``bundle.tools``), whether anything is granted, how a request travels. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from runloop.caps.destination import Destination, parse_destination
from runloop.caps.headers import FRAMING, NAME, VALUE
from runloop.digest import canonical
from runloop.errors import UsageError

__all__ = [
    "KEYS",
    "SECRET",
    "ExecTransport",
    "HttpTransport",
    "McpTransport",
    "WasmTransport",
    "filled",
    "read_exec",
    "read_http",
    "read_mcp",
    "read_wasm",
    "secrets_in",
]

KEYS: Mapping[str, tuple[str, ...]] = {
    "exec": ("argv", "env"),
    "http": ("body", "headers", "method", "query", "url"),
    "mcp": ("server", "tool"),
    "wasm": ("agent", "tool"),
}
"""Kind -> what it may say."""
SECRET = re.compile(r"runloop/[a-z0-9_-]+/[A-Za-z0-9_.-]+\Z")
READS = ("GET", "HEAD")

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_HOLE = re.compile(r"\{([^{}]*)\}")
_SECRET_HOLE = re.compile(r"\{secret:(runloop/[a-z0-9_-]+/[A-Za-z0-9_.-]+)\}")
_SECRET_AT_END = re.compile(_SECRET_HOLE.pattern + r"\Z")
_NOT_THEIRS = FRAMING | {"accept", "content-type", "idempotency-key"}
"""Headers that are the host's to set: of a tool, what it takes and sends as well."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")
_NOT_SET = re.compile(r"(LD_|PATH\Z|HOME\Z|PYTHON|PERL|RUBY|NODE_|BASH_|ENV\Z|IFS\Z|GIT_|SSH_|RUNLOOP)")
"""Variables that make a program run something else."""
_SERVER = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")
_FOREIGN = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_AGENT = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_TOOL = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63})+\Z")

Wrong = Callable[[str], Any]
"""Takes one finding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpTransport:
    """One request to a fixed place."""

    method: str
    url: str
    """With ``{argument}`` where an argument fills a segment of the path."""
    query: tuple[str, ...] = ()
    """Arguments that become query parameters of the same name."""
    headers: tuple[tuple[str, str], ...] = ()
    """With ``{secret:runloop/…}`` where the host puts in a secret."""
    body: tuple[str, ...] | None = None
    """Arguments that are fields of the JSON body; None: all that are nowhere else."""

    @property
    def reads(self) -> bool:
        """Whether its method changes nothing elsewhere."""
        return self.method in READS

    @property
    def destination(self) -> Destination:
        """The place, before its holes are filled."""
        return parse_destination(_HOLE.sub("x", self.url))

    @property
    def holes(self) -> tuple[str, ...]:
        """Arguments that fill the path."""
        return tuple(_HOLE.findall(self.url))

    def fill(self, args: Mapping[str, Any]) -> str:
        """The URL for these arguments; raises :class:`UsageError` (``tool.args``) for one with no place."""
        nowhere = sorted(set(args) - set(self.query) - set(self.holes) - set(self._fields(args)))
        if nowhere:
            raise _misplaced(f"nothing of the request carries the argument {nowhere[0]!r}")
        url = _HOLE.sub(lambda hole: _segment(hole[1], args), self.url)
        pairs = [(name, text) for name in self.query if name in args for text in _texts(name, args[name])]
        if not pairs:
            return url
        return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs, quote_via=quote, safe='')}"

    def content(self, args: Mapping[str, Any]) -> bytes:
        """The JSON body for these arguments, canonical; empty for a method that has none."""
        fields = self._fields(args)
        if self.reads or (self.method == "DELETE" and not fields):
            return b""
        return canonical({name: args[name] for name in fields})

    def _fields(self, args: Mapping[str, Any]) -> tuple[str, ...]:
        if self.reads:
            return ()
        if self.body is not None:
            return tuple(name for name in self.body if name in args)
        return tuple(name for name in args if name not in self.query and name not in self.holes)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecTransport:
    """One program, run without a shell; it reads the arguments as JSON and answers with JSON."""

    argv: tuple[str, ...]
    """The program, then words; ``{argument}`` is a whole word."""
    env: tuple[tuple[str, str], ...] = ()
    """With ``{secret:runloop/…}`` where the host puts in a secret."""

    @property
    def program(self) -> str:
        """What the capability ``exec`` must name."""
        return self.argv[0]

    @property
    def holes(self) -> tuple[str, ...]:
        """Arguments that are words."""
        return tuple(hole[1] for word in self.argv if (hole := _HOLE.fullmatch(word)))

    def words(self, args: Mapping[str, Any]) -> tuple[str, ...]:
        """The argv for these arguments: a list gives several words, null none.

        Raises :class:`UsageError` (``tool.args``) for a word that the program would take for an option, where
        its author did not put ``--`` before it, and for one that no argv can hold.
        """
        made: list[str] = []
        for word in self.argv:
            hole = _HOLE.fullmatch(word)
            if hole is None:
                made.append(word)
                continue
            for text in _texts(hole[1], args.get(hole[1])):
                if text.startswith("-") and "--" not in made:
                    raise _misplaced(f"the argument {hole[1]!r} begins with '-': it would be an option")
                if "\0" in text:
                    raise _misplaced(f"the argument {hole[1]!r} holds a zero byte")
                made.append(text)
        return tuple(made)


@dataclass(frozen=True, kw_only=True, slots=True)
class McpTransport:
    """A tool of an MCP server that the operator added."""

    server: str
    tool: str

    @property
    def offer(self) -> str:
        """Its qualified name."""
        return f"mcp.{self.server}.{self.tool}"


@dataclass(frozen=True, kw_only=True, slots=True)
class WasmTransport:
    """A tool that an agent implements, in a sandbox of its own."""

    tool: str
    agent: str | None = None
    """Who implements it; None: the bundle itself."""


def secrets_in(pairs: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Names of the secrets that headers or variables ask for, in order."""
    return tuple(dict.fromkeys(name for _, value in pairs for name in _SECRET_HOLE.findall(value)))


def filled(value: str, secrets: Mapping[str, Callable[[], str]]) -> str:
    """A header or variable with its secrets in it. Call it in the expression that sends it."""
    return _SECRET_HOLE.sub(lambda hole: secrets[hole[1]](), value)


# --- arguments ------------------------------------------------------------------------------------


def _segment(name: str, args: Mapping[str, Any]) -> str:
    if name not in args:
        raise _misplaced(f"the argument {name!r} fills the path and is missing")
    (text, *more) = _texts(name, args[name]) or [""]
    if more or not text or text in (".", ".."):
        raise _misplaced(f"the argument {name!r} fills one segment of the path: one value, no dots alone")
    return quote(text, safe="")


def _texts(name: str, value: Any) -> list[str]:
    """A value as it stands in a URL or an argv; a list gives it several times, null none."""
    if value is None:
        return []
    if isinstance(value, list):
        return [text for item in value if not isinstance(item, list) for text in _texts(name, item)]
    if isinstance(value, dict):
        raise _misplaced(f"the argument {name!r} is an object, which no URL and no word can carry")
    return [value if isinstance(value, str) else canonical(value).decode()]


def _misplaced(why: str) -> UsageError:
    return UsageError(why, hint="'tool.list' shows what the tool takes", code="tool.args")


# --- reading --------------------------------------------------------------------------------------


def read_http(given: Mapping[str, Any], wrong: Wrong) -> HttpTransport | None:
    """Read the table of the kind ``http``; None after a finding."""
    method, url = given.get("method"), given.get("url")
    findings: list[str] = []
    if not isinstance(method, str) or method not in _METHODS:
        findings.append(f"transport.method is {method!r}; use {', '.join(_METHODS)}")
    query = _names(given.get("query"))
    if query is None:
        findings.append("transport.query must be a list of names of arguments")
    body = _names(given["body"]) if "body" in given else None
    if "body" in given and (body is None or method in READS):
        findings.append("transport.body must be a list of names of arguments, for a method that has a body")
    if not isinstance(url, str):
        findings.append("transport.url must be an https URL")
    headers = _pairs(given.get("headers"), "headers", NAME, findings)
    findings += [
        f"transport.headers: {name!r} is not the author's to set"
        for name, _ in headers
        if name.lower() in _NOT_THEIRS or name.lower().startswith(("proxy-", "sec-"))
    ]
    for finding in findings:
        wrong(finding)
    if findings:
        return None
    made = HttpTransport(method=str(method), url=str(url), query=query or (), headers=headers, body=body)
    return made if _good_url(made, wrong) else None


def _good_url(made: HttpTransport, wrong: Wrong) -> bool:
    url = made.url
    try:
        place = made.destination
    except UsageError as error:
        wrong(f"transport.url: {error.message}")
        return False
    fixed = url.partition("://")[2].partition("/")[0] + url.partition("?")[2]
    if _HOLE.search(fixed) or not all(map(_ARGUMENT.match, made.holes)):
        wrong("transport.url: arguments as {name} fill segments of the path only; others go to query")
        return False
    if any("{" in part and not _HOLE.fullmatch(part) for part in url.partition("?")[0].split("/")):
        wrong(f"transport.url: in {place.path!r} an argument must be a whole segment")
        return False
    if secrets_in(made.headers) and place.scheme != "https":
        wrong("transport.headers: a secret is sent over https only")
        return False
    return True


def read_exec(given: Mapping[str, Any], wrong: Wrong) -> ExecTransport | None:
    """Read the table of the kind ``exec``; None after a finding."""
    argv = given.get("argv")
    findings: list[str] = []
    if (
        not isinstance(argv, list)
        or not 0 < len(argv) <= 64
        or not all(isinstance(word, str) and 0 < len(word) <= 4_096 and "\0" not in word for word in argv)
    ):
        findings.append("transport.argv must be a list of 1 to 64 words, the program first")
    elif _HOLE.search(argv[0]) or argv[0].startswith("-") or not re.fullmatch(r"[^\s*?]+", argv[0]):
        findings.append("transport.argv: the program itself is fixed: a name, or an absolute path")
    elif any("{" in w and not ((h := _HOLE.fullmatch(w)) and _ARGUMENT.match(h[1])) for w in argv[1:]):
        findings.append("transport.argv: an argument as {name} is a whole word")
    env = _pairs(given.get("env"), "env", _VARIABLE, findings)
    findings += [
        f"transport.env: {name} is not the author's to set" for name, _ in env if _NOT_SET.match(name)
    ]
    for finding in findings:
        wrong(finding)
    return None if findings else ExecTransport(argv=tuple(argv), env=env)  # type: ignore[arg-type]


def read_mcp(given: Mapping[str, Any], wrong: Wrong) -> McpTransport | None:
    """Read the table of the kind ``mcp``; None after a finding."""
    server, tool = given.get("server"), given.get("tool")
    if not isinstance(server, str) or not _SERVER.match(server):
        wrong("transport.server must be the name the operator gave the server ('rlp mcp ls')")
    elif not isinstance(tool, str) or not _FOREIGN.match(tool):
        wrong("transport.tool must be the name of a tool of that server")
    else:
        return McpTransport(server=server, tool=tool)
    return None


def read_wasm(given: Mapping[str, Any], wrong: Wrong) -> WasmTransport | None:
    """Read the table of the kind ``wasm``; None after a finding."""
    tool, agent = given.get("tool"), given.get("agent")
    if not isinstance(tool, str) or not _TOOL.match(tool):
        wrong("transport.tool must be a tool as its agent names it: family.verb")
    elif agent is not None and not (isinstance(agent, str) and _AGENT.match(agent)):
        wrong("transport.agent must be the name of an agent")
    else:
        return WasmTransport(tool=tool, agent=agent)
    return None


def _names(value: Any) -> tuple[str, ...] | None:
    value = [] if value is None else value
    if isinstance(value, list) and all(isinstance(name, str) and _ARGUMENT.match(name) for name in value):
        return tuple(dict.fromkeys(value))
    return None


def _pairs(value: Any, key: str, named: re.Pattern[str], findings: list[str]) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > 32:
        findings.append(f"transport.{key} must be an object of at most 32 texts")
        return ()
    for name, text in value.items():
        if not named.match(name) or not isinstance(text, str) or not VALUE.match(text):
            findings.append(f"transport.{key}: {name[:64]!r} cannot be written: plain ASCII, no line breaks")
        elif key == "headers" and "{" in _SECRET_AT_END.sub("", text):
            findings.append(f"transport.headers: {name!r}: one {{secret:runloop/<scope>/<name>}}, at its end")
        elif "{" in _SECRET_HOLE.sub("", text):
            findings.append(f"transport.{key}: {name!r}: only {{secret:runloop/<scope>/<name>}} is filled in")
    if key == "headers" and len({name.lower() for name in value}) < len(value):
        findings.append("transport.headers: the same header twice")
    return tuple(value.items()) if not findings else ()
