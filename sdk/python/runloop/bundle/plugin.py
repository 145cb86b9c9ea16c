"""Plugins of the older kind: ``plugin.manifest.json`` becomes the files of a bundle, or a list of mistakes.

Knows: the fields such a manifest may have, which capability each permission becomes, and what cannot be
carried over (said in the bundle's README, never guessed). Does not know: where the file lay, who signs the
bundle, how a tool is called. Pure.

The manifest is a stranger's. Nothing of it is run, every field is checked, a permission that is not in the
table below is refused by its name, and a tool gets no right that ``permissions`` does not name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from runloop import toml
from runloop.bundle import strict_json
from runloop.bundle.digest import bundle_digest
from runloop.bundle.manifest import Manifest, parse_manifest
from runloop.bundle.sbom import SBOM_FILE, sbom
from runloop.bundle.semver import is_version
from runloop.bundle.statement import BuildFacts, build_package
from runloop.bundle.tools import ToolsError, parse_tools
from runloop.caps.destination import parse_destination
from runloop.caps.grants import GrantError, NetRule, Value, join, parse_hosts
from runloop.caps.policy import CAPABILITIES, Policy, parse_policy
from runloop.errors import RunloopError, UsageError
from runloop.ops import OPS
from runloop.spelling import did_you_mean

__all__ = ["PLUGIN_FILE", "ImportedPlugin", "PluginError", "import_plugin"]

PLUGIN_FILE = "plugin.manifest.json"
MAX_PLUGIN_BYTES = 262_144
MAX_ITEMS = 64

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_TOOL = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63})*\Z")
_KEYS = ("name", "version", "description", "author", "license", "homepage", "tools", "agents", "permissions")
_TOOL_KEYS = (
    *("name", "description", "parameters", "input_schema", "result_schema", "endpoint", "permissions"),
    *("requires_confirmation", "tags"),
)
_ENDPOINT_KEYS = ("url", "method", "query")
_AGENT_KEYS = ("name", "description", "instructions", "prompt", "tools")
_READS = ("GET", "HEAD")


class PluginError(UsageError):
    """The plugin is not imported. ``findings`` lists every mistake: what, and how to fix it.

    ``named_code`` is ``plugin.permission`` when nothing but permissions are missing (``missing`` names them),
    else ``plugin.invalid``.
    """

    code: ClassVar[str] = "plugin.invalid"

    def __init__(self, origin: str, findings: Sequence[str], missing: Sequence[str] = ()) -> None:
        self.findings = list(findings)
        self.missing = list(missing)
        only_missing = bool(missing) and len(missing) == len(findings)
        super().__init__(
            f"{origin}: " + ". ".join(findings),
            hint=f"correct {origin}",
            code="plugin.permission" if only_missing else None,
            findings=self.findings,
            missing=self.missing,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedPlugin:
    """A plugin as a bundle that is not packed yet."""

    manifest: Manifest
    policy: Policy
    files: Mapping[str, bytes]
    left_behind: tuple[str, ...]
    """What could not be carried over, a sentence each; also in the bundle's README."""
    source_digest: str
    """``bundle_digest`` of the plugin's manifest as it was read."""

    def package(self, *, runner_digest: str = "", builder_version: str = "") -> bytes:
        """The unsigned ``.rlb``."""
        facts = BuildFacts(
            language="plugin",
            source_digest=self.source_digest,
            runner_digest=runner_digest,
            builder_version=builder_version,
        )
        files = {**self.files, SBOM_FILE: sbom(self.manifest, self.files, facts)}
        return build_package(self.manifest, files, facts)


def import_plugin(text: str | bytes, *, origin: str = PLUGIN_FILE) -> ImportedPlugin:
    """Read a ``plugin.manifest.json``; raises :class:`PluginError` with every mistake at once."""
    raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    reader = _Reader()
    plugin = reader.plugin(_document(raw, origin))
    if reader.findings:
        raise PluginError(origin, reader.findings, reader.missing)
    files = _files(plugin)
    try:
        parse_tools(files["tools.json"])
    except ToolsError as error:
        raise PluginError(origin, error.findings) from error
    return ImportedPlugin(
        manifest=parse_manifest(files["manifest.toml"]),
        policy=parse_policy(files["policy.caps"]),
        files=files,
        left_behind=tuple(plugin.left_behind),
        source_digest=bundle_digest({PLUGIN_FILE: raw}),
    )


def _document(raw: bytes, origin: str) -> dict[str, Any]:
    if len(raw) > MAX_PLUGIN_BYTES:
        raise PluginError(origin, [f"it is larger than {MAX_PLUGIN_BYTES} bytes; shorten it"])
    try:
        value = strict_json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise PluginError(origin, [f"it is not JSON: {error}; see https://json.org"]) from error
    except RunloopError as error:
        raise PluginError(origin, [f"it is not JSON we read: {error.message}"]) from error
    if not isinstance(value, dict):
        raise PluginError(origin, ['it is not an object; write {"name": …, "version": …, "tools": […]}'])
    return value


# --- permissions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Grant:
    """What one permission becomes."""

    capability: str
    value: Value
    any_host: bool = False
    """``network`` alone: the hosts of the plugin's own tools, no others."""


def _flag(capability: str) -> Callable[[str], _Grant]:
    return lambda _: _Grant(capability, True)


def _listed(capability: str) -> Callable[[str], _Grant]:
    return lambda target: _Grant(capability, CAPABILITIES[capability].parse([target]))


_PLAIN: dict[str, Callable[[str], _Grant]] = {
    "network": lambda _: _Grant("net", False, any_host=True),
    "time": _flag("time"),
    "random": _flag("random"),
    "model": _flag("model"),
}
_SCOPED: dict[str, Callable[[str], _Grant]] = {
    "network:": _listed("net"),
    "filesystem:read:": _listed("fs_ro"),
    "filesystem:write:": _listed("fs_rw"),
    "model:": _listed("model"),
}
_KNOWN = (*_PLAIN, "network:HOST", "filesystem:read:/DIR", "filesystem:write:/DIR", "model:PATTERN")
"""Every permission there is."""


def _grant(permission: str) -> _Grant:
    """What it becomes; raises :class:`GrantError` for an unknown one, or a scope without meaning."""
    plain = _PLAIN.get(permission)
    if plain is not None:
        return plain("")
    for prefix, make in _SCOPED.items():
        if permission.startswith(prefix):
            return make(permission.removeprefix(prefix))
    meant = did_you_mean(permission, _PLAIN, "")
    raise GrantError(f"there is no such permission{f'; {meant}' if meant else ''}")


# --- reading --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Plugin:
    name: str
    version: str
    description: str
    credits: dict[str, str]
    tools: list[dict[str, Any]] = field(default_factory=list)
    agents: dict[str, str] = field(default_factory=dict)
    """Name -> instructions."""
    grants: dict[str, Value] = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)


class _Reader:
    """Collects findings while it reads."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.missing: list[str] = []
        self._grants: dict[str, _Grant] = {}
        """Permission -> what it became."""

    def plugin(self, top: Mapping[str, Any]) -> _Plugin:
        self._known("", top, _KEYS)
        name = self._text("name", top, _NAME.match, "use lower-case letters, digits and underscores")
        made = _Plugin(
            name=name,
            version=self._text("version", top, is_version, "write MAJOR.MINOR.PATCH"),
            description=self._prose("description", top, 1_000),
            credits={key: self._prose(key, top, 200) for key in ("author", "license", "homepage")},
        )
        for permission in self._texts("permissions", top.get("permissions", [])):
            self._permission(permission)
        for number, item in enumerate(self._items("tools", top)):
            self._tool(f"tools[{number}]", item, made)
        for number, item in enumerate(self._items("agents", top)):
            self._agent(f"agents[{number}]", item, made)
        if not made.tools and not made.agents and not self.findings:
            self._wrong(
                "nothing in it can be carried over", "give a tool an endpoint, or an agent instructions"
            )
        self._settle(made)
        return made

    def _permission(self, permission: str) -> None:
        try:
            if permission in self._grants:
                self._wrong(f"the permission {permission!r} is there twice", "keep one")
            self._grants[permission] = _grant(permission)
        except GrantError as error:
            self._wrong(
                f"the permission {permission[:128]!r} is refused: {error}", f"known: {', '.join(_KNOWN)}"
            )

    def _tool(self, at: str, item: Any, made: _Plugin) -> None:
        if not isinstance(item, dict):
            return self._wrong(f"{at} must be an object", 'write {"name": …, "endpoint": {"url": …}}')
        self._known(f"{at}.", item, _TOOL_KEYS)
        id = self._tool_id(at, item, made)
        for permission in self._texts(f"{at}.permissions", item.get("permissions", [])):
            if permission not in self._grants:
                self._lacks(id, permission)
        if "endpoint" not in item:
            made.left_behind.append(
                f"The tool {id} has no endpoint: it was code of the plugin, and code is not carried over."
            )
            return None
        if any(tool["id"] == id for tool in made.tools):
            return self._wrong(f"{at}: the tool {id} is there twice", "rename one of them")
        schema = self._schema(at, item)
        transport, host = self._endpoint(f"{at}.endpoint", item["endpoint"], schema)
        if host is not None and not self._reaches(host):
            self._lacks(id, f"network:{_authority(host)}")
        confirm = item.get("requires_confirmation", transport.get("method") not in _READS)
        if not isinstance(confirm, bool):
            self._wrong(f"{at}.requires_confirmation must be true or false", "correct it")
        made.tools.append(
            {
                "id": id,
                "description": self._prose(f"{at}.description", item, 2_000) or id,
                "transport": transport,
                "input_schema": schema,
                "result_schema": item.get("result_schema", True),
                "capabilities": [] if host is None else [f"net:{_authority(host)}"],
                "secrets": [],
                "requires_confirmation": confirm is True,
                "tags": self._texts(f"{at}.tags", item.get("tags", [])),
            }
        )
        return None

    def _tool_id(self, at: str, item: Mapping[str, Any], made: _Plugin) -> str:
        """``PLUGIN.TOOL``: no plugin names a tool of another."""
        name = self._text(f"{at}.name", item, _TOOL.match, f"write it as '{made.name}.get_something'")
        if "." not in name:
            return f"{made.name}.{name}"
        if not name.startswith(f"{made.name}."):
            self._wrong(f"{at}: {name!r} is not a tool of {made.name}", f"begin its name with '{made.name}.'")
        return name

    def _schema(self, at: str, item: Mapping[str, Any]) -> dict[str, Any]:
        if "parameters" in item and "input_schema" in item:
            self._wrong(f"{at} has 'parameters' and 'input_schema'", "keep one; they mean the same")
        found = item.get("input_schema", item.get("parameters", {"type": "object", "properties": {}}))
        if isinstance(found, dict) and found.get("type") == "object":
            return found
        self._wrong(
            f"{at}: its parameters are no schema of an object", 'write {"type": "object", "properties": …}'
        )
        return {"type": "object", "properties": {}}

    def _endpoint(
        self, at: str, item: Any, schema: Mapping[str, Any]
    ) -> tuple[dict[str, Any], NetRule | None]:
        """The transport and the host it needs; None after a finding."""
        if not isinstance(item, dict):
            self._wrong(f"{at} must be an object", 'write {"url": "https://…", "method": "GET"}')
            return {}, None
        self._known(f"{at}.", item, _ENDPOINT_KEYS)
        url, method = item.get("url"), item.get("method", "GET")
        try:
            place = parse_destination(_filled(url)) if isinstance(url, str) else None
        except UsageError as error:
            self._wrong(f"{at}.url: {error.message}", "write an https URL")
            return {}, None
        if place is None or place.scheme != "https":
            self._wrong(f"{at}.url cannot be {str(url)[:128]!r}", "write an https URL")
            return {}, None
        given = schema.get("properties", {})
        arguments = list(given) if isinstance(given, dict) else []
        own = [name for name in arguments if f"{{{name}}}" not in str(url)] if method in _READS else []
        query = self._texts(f"{at}.query", item["query"]) if "query" in item else own
        rule = NetRule(host=place.host, port=0 if place.port == 443 else place.port)
        try:
            parse_hosts([_authority(rule)])
        except GrantError as error:
            self._wrong(f"{at}.url: {error}", "use a host a permission can name")
            return {}, None
        return {"kind": "http", "method": method, "url": url, "query": query}, rule

    def _reaches(self, host: NetRule) -> bool:
        """Whether a permission covers the host."""
        for grant in self._grants.values():
            rules = grant.value if isinstance(grant.value, tuple) else ()
            if grant.any_host or any(isinstance(rule, NetRule) and rule.covers(host) for rule in rules):
                return True
        return False

    def _agent(self, at: str, item: Any, made: _Plugin) -> None:
        if not isinstance(item, dict):
            return self._wrong(f"{at} must be an object", 'write {"name": …, "instructions": …}')
        self._known(f"{at}.", item, _AGENT_KEYS)
        name = self._text(f"{at}.name", item, _NAME.match, "use lower-case letters, digits and underscores")
        if "instructions" in item and "prompt" in item:
            self._wrong(f"{at} has 'instructions' and 'prompt'", "keep one; they mean the same")
        key = "prompt" if "prompt" in item else "instructions"
        instructions = item.get(key)
        if not isinstance(instructions, str) or not 0 < len(instructions.strip()) <= 32_768:
            self._wrong(
                f"{at}.{key} must be a text", "write what the model is told, in at most 32768 letters"
            )
            instructions = ""
        if name in made.agents:
            self._wrong(f"{at}: the agent {name} is there twice", "rename one of them")
        made.agents[name] = instructions
        if not any(grant.capability == "model" for grant in self._grants.values()):
            self._lacks(name, "model", kind="agent")
        if self._texts(f"{at}.tools", item.get("tools", [])):
            made.left_behind.append(
                f"The agent {name} let its model choose tools by itself; here it answers without tools."
            )
        if self._prose(f"{at}.description", item, 1_000):
            made.left_behind.append(f"The description of the agent {name} has no place of its own.")
        return None

    def _settle(self, made: _Plugin) -> None:
        """Turn the permissions into the bundle's capabilities: never more than they say."""
        hosts = [tool["capabilities"][0].removeprefix("net:") for tool in made.tools if tool["capabilities"]]
        for permission, grant in self._grants.items():
            value = grant.value
            if grant.any_host:
                value = parse_hosts(hosts) if hosts else False
                if not hosts:
                    made.left_behind.append("The permission network is not granted: no tool has an endpoint.")
            covers = CAPABILITIES[grant.capability].covers
            made.grants[grant.capability] = join(made.grants.get(grant.capability, False), value, covers)
            if grant.capability in ("fs_ro", "fs_rw"):
                made.left_behind.append(
                    f"The permission {permission} is asked for; no tool of it uses files."
                )

    # --- small hands ------------------------------------------------------------------------------

    def _lacks(self, who: str, permission: str, kind: str = "tool") -> None:
        self.missing.append(permission)
        self._wrong(
            f"the {kind} {who} needs the permission {permission!r}, which 'permissions' does not have",
            f'add "{permission}" to permissions',
        )

    def _items(self, key: str, top: Mapping[str, Any]) -> list[Any]:
        value = top.get(key, [])
        if isinstance(value, list) and len(value) <= MAX_ITEMS:
            return value
        self._wrong(f"{key!r} must be a list of at most {MAX_ITEMS}", f'write "{key}": […]')
        return []

    def _texts(self, at: str, value: Any) -> list[str]:
        if (
            isinstance(value, list)
            and len(value) <= MAX_ITEMS
            and all(isinstance(item, str) for item in value)
        ):
            return value
        self._wrong(f"{at} must be a list of at most {MAX_ITEMS} texts", "correct it")
        return []

    def _text(self, at: str, table: Mapping[str, Any], fits: Callable[[str], object], fix: str) -> str:
        value = table.get(at.rpartition(".")[2])
        if isinstance(value, str) and fits(value):
            return value
        self._wrong(f"{at} cannot be {value!r:.128}" if value is not None else f"{at} is missing", fix)
        return "x"

    def _prose(self, at: str, table: Mapping[str, Any], most: int) -> str:
        """One line for people; characters that act on a terminal are refused, not cleaned."""
        value = table.get(at.rpartition(".")[2], "")
        if isinstance(value, str) and len(value) <= most and value.isprintable():
            return value
        self._wrong(f"{at} is no text of one line", f"use at most {most} printable characters")
        return ""

    def _known(self, at: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
        known = list(known)
        for key in table:
            if key not in known:
                self._wrong(f"unknown key {at + key[:64]!r}", did_you_mean(key, known))

    def _wrong(self, what: str, fix: str) -> None:
        self.findings.append(f"{what}; {fix}")


def _filled(url: str) -> str:
    """The URL with something in the places of its path; nothing fills a place in the host."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{slash}" + re.sub(r"\{[^{}]*\}", "x", path)


def _authority(host: NetRule) -> str:
    shown = f"[{host.host}]" if ":" in host.host else host.host
    return f"{shown}:{host.port}" if host.port else shown


# --- writing --------------------------------------------------------------------------------------


def _files(plugin: _Plugin) -> dict[str, bytes]:
    policy = Policy(plugin.grants)
    ops = ["tool.call"] if plugin.tools else []
    ops += [op.name for op in OPS.values() if op.capability in policy.grants and op.name in _CARRIED]
    tools = json.dumps({"version": 1, "tools": plugin.tools}, ensure_ascii=False, indent=1, sort_keys=True)
    head = f"# Imported from {PLUGIN_FILE}: what its 'permissions' say, no more.\n"
    return {
        "README.md": _readme(plugin).encode(),
        "agent.py": _SOURCE.encode(),
        "imported.py": _imported(plugin).encode(),
        "manifest.toml": _manifest(plugin, ops).encode(),
        "policy.caps": (head + policy.to_toml()).encode(),
        "tools.json": (tools + "\n").encode(),
    }


_CARRIED = ("time.now", "random.bytes", "model.complete")
"""Host calls a permission stands for, beside the tools themselves."""


def _manifest(plugin: _Plugin, ops: Sequence[str]) -> str:
    lines = [
        f"# Imported from {PLUGIN_FILE}.",
        f"name = {toml.value(plugin.name)}",
        f"version = {toml.value(plugin.version)}",
        'language = "python"',
        'entrypoint = "agent:handle"',
        f"description = {toml.value(plugin.description)}",
        f"ops = {toml.value(list(ops))}",
        "",
        "[ports.in.args]",
        'type = "object"',
        "description = \"Arguments of the tool; the node's 'with' may have them instead\"",
        "",
        "[ports.out.out]",
        "required = true",
        'description = "The tool\'s result, or the text of an agent of the plugin"',
    ]
    return "\n".join(lines) + "\n"


def _imported(plugin: _Plugin) -> str:
    """Data as Python literals in ASCII: nothing of the plugin becomes code."""
    lines = [
        f'"""What came from {PLUGIN_FILE}: data only."""',
        "",
        "TOOLS = [",
        *(f"    {tool['id']!a}," for tool in plugin.tools),
        "]",
        "AGENTS = {",
        *(f"    {name!a}: {text!a}," for name, text in plugin.agents.items()),
        "}",
    ]
    return "\n".join(lines) + "\n"


_SOURCE = '''"""Serves what was imported: a tool by its name, or an agent of the plugin by its name."""

from imported import AGENTS, TOOLS
from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    agent = task.param("agent", "")
    if agent:
        return Result.of(out=_answer(str(agent), task, host))
    tool = str(task.param("tool", TOOLS[0] if len(TOOLS) == 1 else ""))
    if tool not in TOOLS:
        raise Fail("plugin.tool", f"there is no tool {tool!r}; there are: {', '.join(TOOLS) or 'none'}")
    args = task.port("args", task.param("args", {}))
    return Result.of(out=host.call_tool(tool, args))


def _answer(agent: str, task: Task, host: Host) -> str:
    if agent not in AGENTS:
        raise Fail("plugin.agent", f"there is no agent {agent!r}; there are: {', '.join(AGENTS) or 'none'}")
    messages = [
        {"role": "system", "content": AGENTS[agent]},
        {"role": "user", "content": str(task.param("text"))},
    ]
    return host.complete(messages).text
'''


def _readme(plugin: _Plugin) -> str:
    lines = [f"# {plugin.name}", "", f"Imported from `{PLUGIN_FILE}`.", ""]
    lines += [f"- tool `{tool['id']}`" for tool in plugin.tools]
    lines += [f"- agent `{name}`" for name in plugin.agents]
    lines += [f"- {key}: `{_plain(value)}`" for key, value in plugin.credits.items() if value]
    lines += ["", "## What was left behind", ""]
    lines += [f"- {_plain(line)}" for line in plugin.left_behind] or ["Nothing."]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Foreign words in Markdown, without what Markdown acts on."""
    return re.sub(r"[`<>\[\]!|\\]", "", text)
