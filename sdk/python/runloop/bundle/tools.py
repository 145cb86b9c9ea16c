"""``tools.json``: what an agent may call by name, read strictly and with every mistake reported at once.

Knows: the shape of a tool, which permissions it must name for what it does, how its arguments become a
request. Does not know: whether the permissions are granted (``runloop.caps``), or how a request travels
(the daemon's broker). Pure.

A tool is part of the signed bundle, so its author vouches for it; but it is run inside the daemon, on
arguments that a guest chose. Arguments therefore only ever fill places of a fixed URL, escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast
from urllib.parse import quote, urlencode

from runloop.bundle import strict_json
from runloop.bundle.digest import BundleError
from runloop.bundle.json_schema import Schema, read_schema
from runloop.caps.destination import Destination, parse_destination
from runloop.caps.grants import GrantError, NetRule, parse_hosts
from runloop.caps.policy import CAPABILITIES
from runloop.digest import canonical
from runloop.errors import RunloopError, UsageError
from runloop.spelling import did_you_mean

__all__ = ["HttpTransport", "Tool", "ToolsError", "TransportKind", "parse_tools"]

TransportKind = Literal["exec", "http", "mcp", "wasm"]

MAX_TOOLS_BYTES = 256 * 1024
MAX_TOOLS = 64

_ID = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63})+\Z")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_SECRET = re.compile(r"runloop/[a-z0-9_-]+/[A-Za-z0-9_.-]+\Z")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}\Z")
_HOLE = re.compile(r"\{([^{}]*)\}")
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_KEYS = (
    "id",
    "description",
    "transport",
    "input_schema",
    "result_schema",
    "capabilities",
    "secrets",
    "budget",
    "requires_confirmation",
    "tags",
)
_TRANSPORTS: dict[str, tuple[str, ...]] = {
    "exec": ("argv",),
    "http": ("method", "query", "url"),
    "mcp": ("server", "tool"),
    "wasm": ("tool",),
}


class ToolsError(BundleError):
    """The tools cannot be used. ``findings`` lists every mistake, in the order of the file."""

    code: ClassVar[str] = "bundle.tools"

    def __init__(self, origin: str, findings: list[str]) -> None:
        self.findings = findings
        more = f" (and {len(findings) - 8} more)" if len(findings) > 8 else ""
        super().__init__(
            f"{origin}: " + "; ".join(findings[:8]) + more, hint=f"correct {origin}", findings=findings[:64]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpTransport:
    """One request to a fixed place."""

    method: str
    url: str
    """With ``{argument}`` where an argument fills a segment of the path."""
    query: tuple[str, ...] = ()
    """Arguments that become query parameters of the same name."""

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
        nowhere = sorted(set(args) - set(self.query) - set(self.holes))
        if nowhere:
            raise _misplaced(f"nothing of the request carries the argument {nowhere[0]!r}")
        url = _HOLE.sub(lambda hole: _segment(hole[1], args), self.url)
        pairs = [(name, text) for name in self.query if name in args for text in _texts(name, args[name])]
        if not pairs:
            return url
        return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs, quote_via=quote, safe='')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """One tool."""

    id: str
    """``family.verb``."""
    description: str
    kind: TransportKind
    http: HttpTransport | None
    """Of the kind ``http``."""
    input_schema: Mapping[str, Any]
    result_schema: Mapping[str, Any] | bool
    accepts: Schema
    """Its arguments."""
    returns: Schema
    """Its result."""
    capabilities: tuple[str, ...] = ()
    """What it needs, each as ``capability`` or ``capability:target``."""
    secrets: tuple[str, ...] = ()
    calls: int | None = None
    """How often a run may call it; None: as often as the run may call anything."""
    requires_confirmation: bool = False
    tags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What an agent, and a person, see of it."""
        return {
            "id": self.id,
            "description": self.description,
            "kind": self.kind,
            "input_schema": self.input_schema,
            "result_schema": self.result_schema,
            "capabilities": list(self.capabilities),
            "requires_confirmation": self.requires_confirmation,
            "tags": list(self.tags),
        }


def _segment(name: str, args: Mapping[str, Any]) -> str:
    if name not in args:
        raise _misplaced(f"the argument {name!r} fills the path and is missing")
    (text, *more) = _texts(name, args[name]) or [""]
    if more or not text or text in (".", ".."):
        raise _misplaced(f"the argument {name!r} fills one segment of the path: one value, no dots alone")
    return quote(text, safe="")


def _texts(name: str, value: Any) -> list[str]:
    """A value as it stands in a URL; a list gives the parameter several times, null none."""
    if value is None:
        return []
    if isinstance(value, list):
        return [text for item in value if not isinstance(item, list) for text in _texts(name, item)]
    if isinstance(value, dict):
        raise _misplaced(f"the argument {name!r} is an object, which no URL can carry")
    return [value if isinstance(value, str) else canonical(value).decode()]


def _misplaced(why: str) -> UsageError:
    return UsageError(why, hint="'tool.list' shows what the tool takes", code="tool.args")


# --- reading --------------------------------------------------------------------------------------


def parse_tools(text: str | bytes, *, origin: str = "tools.json") -> tuple[Tool, ...]:
    """Read and validate; raises :class:`ToolsError` with every finding. ``origin`` names the file."""
    if len(text) > MAX_TOOLS_BYTES:
        raise ToolsError(origin, [f"larger than {MAX_TOOLS_BYTES} bytes"])
    try:
        document = strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ToolsError(origin, [f"not JSON: {error}"]) from error
    except RunloopError as error:
        raise ToolsError(origin, [error.message]) from error
    if not isinstance(document, dict) or not isinstance(document.get("tools"), list):
        raise ToolsError(origin, ['not a list of tools; write {"version": 1, "tools": []} for none'])
    findings: list[str] = []
    if document.get("version") != 1 or isinstance(document.get("version"), bool):
        findings.append(f"'version' is {document.get('version')!r}; this Runloop reads 1")
    _unknown("", document, ("version", "tools"), findings)
    if len(document["tools"]) > MAX_TOOLS:
        raise ToolsError(origin, [*findings, f"more than {MAX_TOOLS} tools"])
    made = [_Reader(n, given, findings).tool() for n, given in enumerate(document["tools"])]
    ids = [tool.id for tool in made if tool is not None]
    findings += [f"{id} is there twice" for id in sorted({id for id in ids if id and ids.count(id) > 1})]
    if findings:
        raise ToolsError(origin, findings)
    return tuple(tool for tool in made if tool is not None)


def _unknown(at: str, table: Mapping[str, Any], known: Iterable[str], findings: list[str]) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            findings.append(f"{at}unknown key {key[:64]!r}; {did_you_mean(key, known)}")


class _Reader:
    """Reads one tool and collects what is wrong with it."""

    def __init__(self, number: int, given: Any, findings: list[str]) -> None:
        self._given = given
        self._findings = findings
        id = given.get("id") if isinstance(given, dict) else None
        self._at = f"{id}: " if isinstance(id, str) and _ID.match(id) else f"tools[{number}]: "

    def tool(self) -> Tool | None:
        if not isinstance(self._given, dict):
            self._wrong("a tool is an object")
            return None
        _unknown(self._at, self._given, _KEYS, self._findings)
        self._missing("id", "description", "transport", "input_schema")
        transport = self._object("transport")
        kind = transport.get("kind", "http")
        if not isinstance(kind, str) or kind not in _TRANSPORTS:
            self._wrong(f"transport.kind is {kind!r}; known: {', '.join(_TRANSPORTS)}")
            kind = "http"
        else:
            _unknown(f"{self._at}transport: ", transport, ("kind", *_TRANSPORTS[kind]), self._findings)
        http = self._http(transport) if kind == "http" and "kind" in transport else None
        capabilities = self._words("capabilities", lambda word: len(word) <= 512, "capability[:target]")
        if http is not None:
            self._arguments(http)
        self._permissions(http, capabilities)
        return Tool(
            id=self._text("id", _ID.match, "write family.verb, as 'weather.get_forecast'"),
            description=self._text("description", lambda it: 0 < len(it) <= 2_000, "use 1 to 2000 letters"),
            kind=cast(TransportKind, kind),
            http=http,
            input_schema=self._object("input_schema"),
            result_schema=self._given.get("result_schema", True),
            accepts=self._schema("input_schema", {}),
            returns=self._schema("result_schema", True),
            capabilities=capabilities,
            secrets=self._words("secrets", _SECRET.match, "runloop/<scope>/<name>"),
            calls=self._budget(),
            requires_confirmation=self._flag("requires_confirmation"),
            tags=self._words("tags", _TAG.match, "plain words"),
        )

    # --- parts ------------------------------------------------------------------------------------

    def _http(self, transport: Mapping[str, Any]) -> HttpTransport | None:
        method, url, query = (transport.get(key) for key in ("method", "url", "query"))
        good = True
        if not isinstance(method, str) or method not in _METHODS:
            good = self._wrong(f"transport.method is {method!r}; use {', '.join(_METHODS)}")
        query = [] if query is None else query
        if not isinstance(query, list) or not all(isinstance(q, str) and _ARGUMENT.match(q) for q in query):
            good = self._wrong("transport.query must be a list of names of arguments")
        if not isinstance(url, str):
            good = self._wrong("transport.url must be an https URL")
        if not good:
            return None
        made = HttpTransport(method=str(method), url=str(url), query=tuple(dict.fromkeys(query or ())))
        try:
            place = made.destination
        except UsageError as error:
            self._wrong(f"transport.url: {error.message}")
            return None
        fixed = str(url).partition("://")[2].partition("/")[0] + str(url).partition("?")[2]
        if _HOLE.search(fixed) or not all(map(_ARGUMENT.match, made.holes)):
            self._wrong(
                "transport.url: arguments as {name} fill segments of the path only; others go to query"
            )
            return None
        if any("{" in part and not _HOLE.fullmatch(part) for part in str(url).partition("?")[0].split("/")):
            self._wrong(f"transport.url: in {place.path!r} an argument must be a whole segment")
            return None
        return made

    def _arguments(self, http: HttpTransport) -> None:
        schema = self._object("input_schema")
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            return  # the schema's own finding
        for name in (*http.query, *http.holes):
            if name not in properties:
                self._wrong(f"the argument {name!r} of the request is no property of input_schema")
        for name in http.holes:
            if name not in required:
                self._wrong(f"the argument {name!r} fills the path: input_schema must require it")
        for name in properties:
            if name not in (*http.query, *http.holes) and http.method in ("GET", "HEAD"):
                self._wrong(
                    f"nothing of the request carries the argument {name!r}; name it in transport.query"
                )

    def _permissions(self, http: HttpTransport | None, capabilities: tuple[str, ...]) -> None:
        """Every capability exists, and the tool asks for what its own request needs."""
        hosts: list[NetRule] = []
        for word in capabilities:
            name, colon, target = word.partition(":")
            if name not in CAPABILITIES:
                meant = did_you_mean(name, CAPABILITIES, "")
                self._wrong(f"there is no capability {name[:64]!r}" + (f"; {meant}" if meant else ""))
            elif colon and not target:
                self._wrong(f"the capability {word[:64]!r} names no target")
            elif name == "net":
                hosts += self._hosts(target)
        if http is None:
            return
        place = http.destination
        rule = NetRule(host=place.host, port=place.port)
        if not any(host.covers(rule) for host in hosts):
            self._wrong(f"it calls {place.authority} and does not ask for 'net:{place.authority}'")

    def _hosts(self, target: str) -> list[NetRule]:
        try:
            rules = parse_hosts([target])
        except GrantError as error:
            self._wrong(f"the capability 'net:{target[:128]}': {error}")
            return []
        return [rule for rule in rules if isinstance(rule, NetRule)] if isinstance(rules, tuple) else []

    def _schema(self, key: str, default: Any) -> Schema:
        findings: list[str] = []
        schema = read_schema(self._given.get(key, default), findings)
        self._findings += [f"{self._at}{key} at {finding}" for finding in findings]
        return schema

    def _budget(self) -> int | None:
        if "budget" not in self._given:
            return None
        budget = self._object("budget")
        _unknown(f"{self._at}budget: ", budget, ("calls",), self._findings)
        calls = budget.get("calls")
        if type(calls) is int and 0 < calls <= 100_000:
            return calls
        self._wrong(f"budget.calls is {calls!r}; use a number from 1 to 100000")
        return None

    # --- small hands ------------------------------------------------------------------------------

    def _wrong(self, what: str) -> bool:
        self._findings.append(self._at + what)
        return False

    def _missing(self, *keys: str) -> None:
        for key in keys:
            if key not in self._given:
                self._wrong(f"{key!r} is missing")
        if "transport" in self._given and "kind" not in self._object("transport"):
            self._wrong(f"transport.kind is missing; known: {', '.join(_TRANSPORTS)}")

    def _text(self, key: str, fits: Callable[[str], object], fix: str) -> str:
        value = self._given.get(key)
        if key in self._given and not (isinstance(value, str) and fits(value)):
            self._wrong(f"{key} cannot be {str(value)[:64]!r}; {fix}")
        return value if isinstance(value, str) else ""

    def _object(self, key: str) -> dict[str, Any]:
        value = self._given.get(key, {})
        if isinstance(value, dict):
            return value
        finding = f"{self._at}{key} must be an object"
        if finding not in self._findings:
            self._findings.append(finding)
        return {}

    def _flag(self, key: str) -> bool:
        value = self._given.get(key, False)
        if not isinstance(value, bool):
            self._wrong(f"{key} must be true or false")
        return value is True

    def _words(self, key: str, fits: Callable[[str], object], what: str) -> tuple[str, ...]:
        value = self._given.get(key, [])
        if isinstance(value, list) and all(isinstance(word, str) and fits(word) for word in value):
            return tuple(dict.fromkeys(value))
        self._wrong(f"{key} must be a list of {what}")
        return ()
