"""``tools.json``: what an agent may call by name, read strictly and with every mistake reported at once.

Knows: the shape of a tool, and which permissions it must name for what it does. Does not know: the transports
themselves (``bundle.transports``), whether the permissions are granted (``runloop.caps``), or how a request
travels (the daemon's broker). Pure.

A tool is part of the signed bundle, so its author vouches for it; but it is run inside the daemon, on
arguments that a guest chose. Arguments therefore only ever fill places that the author left for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from runloop.bundle import strict_json
from runloop.bundle.digest import BundleError
from runloop.bundle.json_schema import Schema, read_schema
from runloop.bundle.transports import (
    KEYS,
    SECRET,
    ExecTransport,
    HttpTransport,
    McpTransport,
    WasmTransport,
    read_exec,
    read_http,
    read_mcp,
    read_wasm,
    secrets_in,
)
from runloop.caps.grants import GrantError, NetRule, parse_hosts
from runloop.caps.policy import CAPABILITIES
from runloop.digest import digest
from runloop.errors import RunloopError
from runloop.spelling import did_you_mean

__all__ = ["Effect", "Tool", "ToolsError", "TransportKind", "parse_tools"]

TransportKind = Literal["exec", "http", "mcp", "wasm"]
Effect = Literal["read", "write", "send"]

MAX_TOOLS_BYTES = 256 * 1024
MAX_TOOLS = 64

_ID = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63})+\Z")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}\Z")
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
    "effect",
    "tags",
)
_EFFECTS = ("read", "write", "send")


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
    effect: Effect | None = None
    """What its author says it does at most; None: nothing is said, and it is taken for the worst."""
    tags: tuple[str, ...] = ()
    exec: ExecTransport | None = None
    """Of the kind ``exec``; as the next two of theirs."""
    mcp: McpTransport | None = None
    wasm: WasmTransport | None = None
    definition: str = ""
    """Digest of all that ``tools.json`` says of it."""

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
        if not isinstance(kind, str) or kind not in KEYS:
            self._wrong(f"transport.kind is {kind!r}; known: {', '.join(KEYS)}")
            kind = "http"
        else:
            _unknown(f"{self._at}transport: ", transport, ("kind", *KEYS[kind]), self._findings)
        if "kind" not in transport:
            kind = ""
        http = read_http(transport, self._wrong) if kind == "http" else None
        program = read_exec(transport, self._wrong) if kind == "exec" else None
        foreign = read_mcp(transport, self._wrong) if kind == "mcp" else None
        served = read_wasm(transport, self._wrong) if kind == "wasm" else None
        capabilities = self._words("capabilities", lambda word: len(word) <= 512, "capability[:target]")
        secrets = self._words("secrets", SECRET.match, "runloop/<scope>/<name>")
        if http is not None:
            self._arguments(http)
        if program is not None:
            self._holes(program.holes, "is a word of argv")
        self._permissions(http, capabilities)
        self._needs(program, served, capabilities)
        self._places_of_secrets(http, program, secrets)
        return Tool(
            id=self._text("id", _ID.match, "write family.verb, as 'weather.get_forecast'"),
            description=self._text("description", lambda it: 0 < len(it) <= 2_000, "use 1 to 2000 letters"),
            kind=cast(TransportKind, kind or "http"),
            http=http,
            exec=program,
            mcp=foreign,
            wasm=served,
            definition=digest(self._given),
            input_schema=self._object("input_schema"),
            result_schema=self._given.get("result_schema", True),
            accepts=self._schema("input_schema", {}),
            returns=self._schema("result_schema", True),
            capabilities=capabilities,
            secrets=secrets,
            calls=self._budget(),
            requires_confirmation=self._flag("requires_confirmation"),
            effect=self._effect(http),
            tags=self._words("tags", _TAG.match, "plain words"),
        )

    # --- parts ------------------------------------------------------------------------------------

    def _arguments(self, http: HttpTransport) -> None:
        schema = self._object("input_schema")
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            return  # the schema's own finding
        for name in (*http.query, *http.holes, *(http.body or ())):
            if name not in properties:
                self._wrong(f"the argument {name!r} of the request is no property of input_schema")
        for name in http.holes:
            if name not in required:
                self._wrong(f"the argument {name!r} fills the path: input_schema must require it")
        for name in properties:
            if name not in (*http.query, *http.holes, *(http.body or ())) and (
                http.reads or http.body is not None
            ):
                where = "transport.query" if http.reads else "transport.query or transport.body"
                self._wrong(f"nothing of the request carries the argument {name!r}; name it in {where}")

    def _holes(self, holes: Iterable[str], what: str) -> None:
        properties = self._object("input_schema").get("properties", {})
        for name in holes:
            if isinstance(properties, dict) and name not in properties:
                self._wrong(f"the argument {name!r} {what} and is no property of input_schema")

    def _needs(
        self, program: ExecTransport | None, served: WasmTransport | None, capabilities: tuple[str, ...]
    ) -> None:
        """A program and another agent are named among the permissions, as they are called."""
        if program is not None and f"exec:{program.program}" not in capabilities:
            self._wrong(f"it runs {program.program} and does not ask for 'exec:{program.program}'")
        if served is not None and served.agent and f"spawn:{served.agent}" not in capabilities:
            self._wrong(f"{served.agent} serves it, and it does not ask for 'spawn:{served.agent}'")

    def _places_of_secrets(
        self, http: HttpTransport | None, program: ExecTransport | None, secrets: tuple[str, ...]
    ) -> None:
        """What is sent is named, and what is named is sent, or handed to a program."""
        places = http.headers if http is not None else program.env if program is not None else ()
        used = secrets_in(places)
        for name in used:
            if name not in secrets:
                self._wrong(f"it sends {name} and does not name it under 'secrets'")
        for name in secrets if http is not None else ():
            if name not in used:
                self._wrong(
                    f"nothing of the request carries {name}; write {{secret:{name}}} in transport.headers"
                )

    def _effect(self, http: HttpTransport | None) -> Effect | None:
        given = self._given.get("effect")
        if given is None:
            return None
        if given not in _EFFECTS:
            self._wrong(f"effect is {given!r}; use {', '.join(_EFFECTS)}")
            return None
        if http is not None and given == "write":
            self._wrong("effect: a request changes nothing here; use 'read' or 'send'")
        return cast(Effect, given)

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
            self._wrong(f"transport.kind is missing; known: {', '.join(KEYS)}")

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
