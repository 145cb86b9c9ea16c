"""Config agents: one file, a prompt with its tools and limits, is a complete agent.

    +++
    name = "summarise"
    version = "0.1.0"
    tools = ["kb.search"]
    kb = ["notes", "mail"]
    +++
    You sum up what the user asks about in three sentences.

Knows: the keys of such a file (``NAME.agent.md`` with TOML between ``+++`` lines, or ``NAME.agent.toml`` with
``prompt = "..."``) and the bundle it stands for. Does not know: how a prompt is carried out
(``sdk/config_agent``), or whether anybody trusts it: it is installed, or refused, like every other bundle.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from runloop import toml
from runloop.bundle.digest import read_plain
from runloop.bundle.manifest import Finding, ManifestError, Reader, manifest_of
from runloop.bundle.tools import parse_tools
from runloop.caps.policy import parse_policy
from runloop.config import shipped
from runloop.digest import canonical
from runloop.errors import RunloopError
from runloop.spelling import did_you_mean

__all__ = ["SUFFIXES", "ConfigAgentError", "expand", "is_config_agent", "read_config_agent", "read_source"]

SUFFIXES = (".agent.md", ".agent.toml")
MAX_BYTES = 128 * 1024
MAX_PROMPT_CHARS = 64_000

TOOLS: dict[str, str | None] = {
    "kb.search": "kb",
    "kb.read": "kb",
    "kb.query": "kb",
    "kb.why": "kb",
    "time.now": None,
    "http.fetch": "net",
    "memory.get": None,
    "memory.put": None,
    "tool.call": None,
}
"""Host calls a prompt may be given as tools -> the key of the file that grants what they need."""

_OWN = (
    "prompt",
    "template",
    "model",
    "max_tokens",
    "temperature",
    "turns",
    "tools",
    "gather",
    "kb",
    "net",
    "output",
    "schema",
    "tool",
)
_MANIFEST = ("name", "version", "variant", "description", "ports", "limits")
_FRONT = re.compile(r"\+\+\+[ \t]*\n(?P<toml>.*?\n)\+\+\+[ \t]*(?:\n|\Z)(?P<prompt>.*)", re.DOTALL)


class ConfigAgentError(ManifestError):
    """The file is not a config agent. ``findings`` holds every mistake, with its line."""

    code: ClassVar[str] = "agent.config"


def is_config_agent(path: Path) -> bool:
    """Whether a file's name says that it is one."""
    return path.name.endswith(SUFFIXES) and not path.name.startswith(".")


def read_config_agent(path: Path) -> dict[str, bytes]:
    """The bundle that the file at ``path`` stands for, as ``{path: bytes}``.

    Raises what :func:`read_source` and :func:`expand` raise.
    """
    return expand(read_source(path), origin=str(path))


def read_source(path: Path) -> bytes:
    """The file as it is; raises :class:`NotFoundError`, :class:`BundleError` for what is no plain file or too
    large."""
    return read_plain(path, MAX_BYTES)


def expand(data: bytes, *, origin: str) -> dict[str, bytes]:
    """The files of the bundle that one config file stands for: the same bytes give the same bundle.

    Raises :class:`ConfigAgentError` with every mistake in the file called ``origin``.
    """
    markdown = origin.endswith(".md")
    front, prompt = _parts(data, markdown=markdown, origin=origin)
    try:
        top = toml.loads(front, times=False)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"at line (\d+)", str(error))
        finding = Finding(line=int(at[1]) if at else 0, what=f"not TOML: {error}", fix="see https://toml.io")
        raise ConfigAgentError(origin, [finding]) from error
    reader = Reader(front)
    reader.unknown((), top, (*_MANIFEST, *_OWN))
    if markdown and "prompt" in top:
        reader.wrong(
            ("prompt",), "the prompt is written twice", "the text below the front matter is the prompt"
        )
    config = _config(reader, {**top, "prompt": prompt} if markdown else top)
    manifest = {key: top[key] for key in _MANIFEST if key in top}
    manifest["ports"] = _ports(reader, top)
    manifest["ops"] = _ops(config)
    manifest_of(reader, manifest)
    if reader.findings:
        raise ConfigAgentError(origin, reader.findings)
    files = {
        "manifest.toml": _toml(manifest).encode(),
        "policy.caps": _policy(config, top).encode(),
        "tools.json": _tools(top).encode(),
        "config.py": _module(config).encode(),
        "agent.py": (shipped("config-agent") / "agent.py").read_bytes(),
        "README.md": _readme(manifest, prompt if markdown else str(top["prompt"])).encode(),
    }
    _check(files, origin)
    return files


def _parts(data: bytes, *, markdown: bool, origin: str) -> tuple[str, str]:
    """Front matter and prompt; blank lines keep the lines of the front matter where they are."""
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        finding = Finding(line=line, what="not UTF-8", fix="save it as UTF-8")
        raise ConfigAgentError(origin, [finding]) from error
    if not markdown:
        return text, ""
    found = _FRONT.match(text)
    if found is None:
        finding = Finding(
            line=1, what="there is no front matter", fix="begin with '+++', TOML, and a second '+++'"
        )
        raise ConfigAgentError(origin, [finding])
    return "\n" + found["toml"], found["prompt"].strip()


# --- the keys of its own --------------------------------------------------------------------------


def _config(reader: Reader, top: Mapping[str, Any]) -> dict[str, Any]:
    """What ``sdk/config_agent`` reads: complete, with every default written out."""
    prompt = top.get("prompt", "")
    if not isinstance(prompt, str) or not 0 < len(prompt.strip()) <= MAX_PROMPT_CHARS:
        fix = f"say what the agent is to do, in 1 to {MAX_PROMPT_CHARS} letters"
        reader.wrong(("prompt",), "there is no prompt", fix)
        prompt = ""
    template = reader.text(("template",), top, "", lambda it: len(it) <= MAX_PROMPT_CHARS) or None
    tools = _names(reader, "tools", top, TOOLS)
    for name in tools:
        key = TOOLS[name]
        if key is not None and not top.get(key):
            reader.wrong(("tools",), f"the tool {name} needs {key!r}", f"write {key} = [...]")
    declared = top.get("tool", [])
    if not isinstance(declared, list) or not all(isinstance(tool, dict) for tool in declared):
        reader.wrong(("tool",), "'tool' must be a list of tables", "write [[tool]]")
    if top.get("tool") and "tool.call" not in tools:
        reader.wrong(("tool",), "tools are declared that the prompt may not call", 'add "tool.call" to tools')
    gather = _names(reader, "gather", top, None)
    if gather and not top.get("kb"):
        reader.wrong(("gather",), "to gather is to search the knowledge base", "write kb = [...]")
    schema = reader.table(("schema",), top) or None
    if schema is not None and top.get("output", "json") != "json":
        reader.wrong(("schema",), 'a schema is for output = "json"', "remove one of them")
    return {
        "prompt": prompt.strip(),
        "template": template,
        "max_tokens": _number(reader, "max_tokens", top, 1_024, 1, 100_000),
        "temperature": _number(reader, "temperature", top, 0.0, 0, 2),
        "turns": _number(reader, "turns", top, 6, 1, 50),
        "tools": tools,
        "gather": gather,
        "output": "json"
        if schema is not None
        else reader.text(("output",), top, "text", ("text", "json").__contains__, 'write "text" or "json"'),
        "schema": schema,
    }


def _number(
    reader: Reader, key: str, top: Mapping[str, Any], default: float, low: float, high: float
) -> float | int:
    value = top.get(key, default)
    kinds = (int, float) if isinstance(default, float) else (int,)
    if type(value) in kinds and low <= value <= high:
        return value  # type: ignore[no-any-return]
    reader.wrong((key,), f"{key!r} cannot be {value!r}", f"use a number from {low} to {high}")
    return default


def _names(reader: Reader, key: str, top: Mapping[str, Any], known: Mapping[str, Any] | None) -> list[str]:
    value = top.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        reader.wrong((key,), f"{key!r} must be a list of names", f'write {key} = ["..."]')
        return []
    for item in value:
        if known is not None and item not in known:
            reader.wrong((key,), f"{key!r} cannot name {item!r}", did_you_mean(item, known))
    return [item for item in dict.fromkeys(value) if known is None or item in known]


def _ports(reader: Reader, top: Mapping[str, Any]) -> dict[str, Any]:
    """Any input the author names, or ``text``; the answer always leaves by ``out``."""
    ports: dict[str, Any] = dict(reader.table(("ports",), top))
    ports.setdefault("in", {"text": {"type": "any"}})
    out = ports.setdefault("out", {"out": {"type": "any"}})
    if isinstance(out, dict) and set(out) != {"out"}:
        reader.wrong(("ports", "out"), "the answer leaves by the port 'out' alone", "declare [ports.out.out]")
    return ports


def _ops(config: Mapping[str, Any]) -> list[str]:
    """Every host call it makes: the ceiling of what it may ever be granted."""
    ops = {"model.complete", *config["tools"]}
    ops |= {"kb.search"} if config["gather"] else set()
    ops |= {"tool.list"} if "tool.call" in config["tools"] else set()
    return sorted(ops)


# --- the files ------------------------------------------------------------------------------------


def _policy(config: Mapping[str, Any], top: Mapping[str, Any]) -> str:
    grants: dict[str, Any] = {"model": top.get("model", True)}
    if "kb" in top:
        grants["kb_read"] = top["kb"]
    if "net" in top:
        grants["net"] = top["net"]
    if "time.now" in config["tools"]:
        grants["time"] = True
    if top.get("tool"):
        grants["tools"] = [tool["id"] for tool in top["tool"] if isinstance(tool, dict) and "id" in tool]
    lines = [f"{key} = {toml.value(value)}\n" for key, value in sorted(grants.items())]
    return "[capabilities]\n" + "".join(lines)


def _tools(top: Mapping[str, Any]) -> str:
    tools = top.get("tool") or []
    return json.dumps({"version": 1, "tools": tools}, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _module(config: Mapping[str, Any]) -> str:
    text = canonical(dict(config)).decode()
    return f'"""What the author wrote."""\n\nimport json\n\nCONFIG = json.loads({text!r})\n'


def _readme(manifest: Mapping[str, Any], prompt: str) -> str:
    title = f"# {manifest['name']}\n\n{manifest.get('description', '')}".rstrip()
    quoted = "\n".join(f"> {line}".rstrip() for line in prompt.strip().splitlines())
    return f"{title}\n\nA config agent: one prompt, carried out by Runloop's own interpreter.\n\n{quoted}\n"


def _check(files: Mapping[str, bytes], origin: str) -> None:
    """Policy and tools by their own strict readers, their words under the author's file name."""
    try:
        parse_policy(files["policy.caps"].decode(), origin=origin)
        parse_tools(files["tools.json"], origin=origin)
    except RunloopError as error:
        finding = Finding(line=0, what=error.message, fix=error.hint or "correct it")
        raise ConfigAgentError(origin, [finding]) from error


def _toml(document: Mapping[str, Any]) -> str:
    """A TOML document of plain values and tables, keys in order."""
    lines: list[str] = []
    _table(document, (), lines)
    return "\n".join(lines) + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if path and (plain or not table):
        lines += ["", f"[{'.'.join(map(toml.key, path))}]"]
    lines += [f"{toml.key(key)} = {toml.value(value)}" for key, value in sorted(plain.items())]
    for key, value in sorted(table.items()):
        if isinstance(value, dict):
            _table(value, (*path, key), lines)
