"""A text of a stranger is data, in whichever field it stands (attacks.md P6).

Every hostile text of ``tests/foreign.py`` is put into every field of every foreign document, and what reads
it takes it. It is refused, left out, or kept as it is: nothing else of what was read is another for it, it is
bounded, and every way it is shown escapes it.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from mcp.shared.exceptions import MCPError

from pog.importers import parse
from rlp.output import Console, Style
from runloop.approval import describe
from runloop.bundle.manifest import parse_manifest
from runloop.bundle.tools import parse_tools
from runloop.caps.policy import parse_policy
from runloop.errors import RunloopError
from runloop.escape import visible
from runloopd.broker.mcp.bridge.serving import _failure, _ready
from runloopd.broker.mcp.definitions import accepting, read_listing
from runloopd.broker.mcp.messages import FromBridge, Gone, Progress, decode, encode
from runloopd.broker.mcp.results import called, listed
from runloopd.broker.providers.refusals import status_error
from tests.foreign import FIELDS, PAYLOADS, TYPES, leaves
from tests.hostile_text import assert_harmless

MARK = "mark"
"""An honest text, put where the hostile ones stand."""
LONGEST = 200_000
"""Characters of all that is kept of one document with the longest text in it."""


class Refused(Exception):
    """The document was refused, with these words."""


# --- putting a text somewhere ---------------------------------------------------------------------


def put(sample: Any, leaf: str, text: Any) -> Any:
    """A copy of ``sample`` with the text at the place that ``leaf`` names."""
    made = copy.deepcopy(sample)
    steps = re.findall(r"\{key\}|\{\}|\[\]|[^.\[\]{}]+", leaf)
    at: Any = made
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if step == "{key}":
            at[text] = "v"
            return made
        key: Any = 0 if step == "[]" else "x" if step == "{}" else step
        if isinstance(at, list) and len(at) <= 0:
            at.append(None)
        if last:
            at[key] = text
            return made
        following = steps[number + 1]
        if (at.get(key) if isinstance(at, dict) else at[key]) is None:
            at[key] = [] if following == "[]" else {}
        at = at[key]
    return made


def swapped(value: Any, text: str, instead: str) -> Any:
    """``value`` with another text in the place of one."""
    if isinstance(value, str):
        return value.replace(text, instead)
    if isinstance(value, dict):
        return {swapped(key, text, instead): swapped(one, text, instead) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [swapped(one, text, instead) for one in value]
    return value


# --- what reads each document ---------------------------------------------------------------------

PORT = {"type": "string"}
MANIFEST: dict[str, Any] = {
    "name": "a",
    "version": "1.0.0",
    "language": "python",
    "entrypoint": "agent:handle",
    "ops": [],
    "ports": {"in": {"x": PORT}, "out": {"x": PORT}},
}


def manifest(leaf: str, text: str) -> Any:
    leaf = re.sub(r"^(in|out)puts", r"ports.\1", leaf)
    if leaf.endswith("{key}"):
        sample = copy.deepcopy(MANIFEST)
        sample["ports"][leaf.removesuffix("{key}").removeprefix("ports.")][text] = PORT
    else:
        sample = put(MANIFEST, leaf, text)
    return dataclasses.asdict(parse_manifest("\n".join(toml(sample))))


def toml(table: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[str]:
    if at:
        yield f"[{'.'.join(map(quoted, at))}]"
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    for key, value in plain.items():
        shown = f"[{', '.join(map(quoted, value))}]" if isinstance(value, list) else quoted(value)
        yield f"{quoted(key)} = {shown}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from toml(value, (*at, key))


def quoted(text: str) -> str:
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": PORT}, "required": ["city"]}
TOOLS: dict[str, dict[str, Any]] = {
    "http": {"kind": "http", "method": "GET", "url": "https://a.example/{city}"},
    "exec": {"kind": "exec", "argv": ["/usr/bin/true", "{city}"]},
    "mcp": {"kind": "mcp", "server": "s", "tool": "t"},
    "wasm": {"kind": "wasm", "agent": "other", "tool": "do"},
}
NEEDS = {
    "http": ["net:a.example"],
    "exec": ["exec:/usr/bin/true"],
    "mcp": ["tools:mcp.s.t"],
    "wasm": ["spawn:other"],
}


def tool(leaf: str, text: str) -> Any:
    kind, _, rest = leaf.partition(".")
    kind, leaf = (kind, f"transport.{rest}") if kind in TOOLS else ("http", leaf)
    sample: dict[str, Any] = {
        "id": "a.b",
        "description": "d",
        "transport": TOOLS[kind],
        "input_schema": SCHEMA,
        "result_schema": {"type": "object"},
        "capabilities": NEEDS[kind],
    }
    if leaf == "transport.argv[]":
        made = copy.deepcopy(sample)
        made["transport"]["argv"].append(text)
    elif leaf in ("transport.headers[][]", "transport.env[][]"):
        made = put(sample, leaf.replace("[][]", "{key}"), text)
    elif leaf.endswith("_schema{}"):
        made = put(sample, leaf.replace("{}", ".description"), text)
    elif leaf.endswith("_schema{key}"):
        made = put(sample, leaf.replace("{key}", ".properties{key}"), text)
        made[leaf.removesuffix("{key}")]["properties"][text] = PORT
    elif leaf == "capabilities[]":
        made = {**sample, "capabilities": [*NEEDS[kind], text]}
    else:
        made = put(sample, leaf, text)
    (found,) = parse_tools(json.dumps({"version": 1, "tools": [made]}))
    return {**dataclasses.asdict(found), "definition": "", "accepts": "", "returns": ""}


def mcp_tool(leaf: str, text: str) -> Any:
    sample = {"name": "t", "description": "d", "inputSchema": {"type": "object"}}
    listing = read_listing([put(sample, leaf, text)])
    if listing.refused:
        ((name, why),) = listing.refused
        assert len(name) <= 64 and len(why) <= 300
        raise Refused(why)
    (found,) = listing.tools.values()
    accepting(found.input_schema)
    return {"tool": found.tool, "raw": found.raw}


CONTENT: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": "x"},
    "data": {"type": "image", "data": "AA==", "mimeType": "image/png"},
    "resource": {"type": "resource", "resource": {"uri": "u", "text": "y"}},
    "link": {"type": "resource_link", "uri": "u", "name": "n"},
}


def content_for(leaf: str) -> dict[str, Any]:
    field = leaf.partition("content")[2].lstrip("[].").partition(".")[0].partition("{")[0]
    return CONTENT[{"text": "text", "data": "data", "resource": "resource"}.get(field, "link")]


def mcp_result(leaf: str, text: str) -> Any:
    leaf = "structuredContent.deep.x" if leaf == "structuredContent" else leaf
    return called("s", "t", put({"content": [content_for(leaf)], "structuredContent": {}}, leaf, text))


def of_list(keys: tuple[str, ...], sample: dict[str, Any]) -> Callable[[str, str], Any]:
    return lambda leaf, text: listed("s", "t", put(sample, leaf, text), keys)


def mcp_prompt(leaf: str, text: str) -> Any:
    sample = {"messages": [{"role": "user", "content": content_for(leaf)}]}
    return listed("s", "prompts.get", put(sample, leaf, text), ("description", "messages"))


def mcp_error(leaf: str, text: str) -> Any:
    error = MCPError(
        code=-1, message=text if leaf == "message" else "m", data=text if leaf == "data" else None
    )
    return wired(_failure(1, error))


def mcp_server(leaf: str, text: str) -> Any:
    info = SimpleNamespace(**({"name": "n", "version": "v"} | {leaf.partition("[")[0]: text}))
    can = SimpleNamespace(tools=None, resources=None, prompts=None)
    client = SimpleNamespace(
        server_info=info, server_capabilities=can, protocol_version="p", instructions="i"
    )
    return wired(_ready(client))  # type: ignore[arg-type]


def mcp_ready(leaf: str, text: str) -> Any:
    info = SimpleNamespace(name="n", version="v")
    can = SimpleNamespace(tools=None, resources=None, prompts=None)
    client = SimpleNamespace(
        server_info=info, server_capabilities=can, protocol_version="p", instructions="i"
    )
    match leaf:
        case "name" | "version":
            setattr(info, leaf, text)
        case "protocol":
            client.protocol_version = text
        case _:
            client.instructions = text
    return wired(_ready(client))  # type: ignore[arg-type]


def wired(message: FromBridge) -> Any:
    """As the daemon gets it."""
    return msgspec.to_builtins(decode(encode(message)[4:], FromBridge))


def of_import(kind: str) -> Callable[[str, str], Any]:
    samples: dict[str, dict[str, Any]] = {
        "contact": {"type": "contact", "name": "Ann", "emails": ["a@example.org"]},
        "document": {"type": "note", "text": "t", "title": "n", "id": "1"},
        "calendar": {"type": "event", "title": "t", "start": "2026-01-01T10:00:00Z", "id": "u"},
    }

    def read(leaf: str, text: str) -> Any:
        name = {"uid": "id"}.get(leaf, leaf)
        path = FOLDER / "lines.jsonl"
        path.write_text(json.dumps(put(samples[kind], name, text)) + "\n")
        told: list[str] = []
        found = list(parse([path], on_problem=lambda problem: told.append(str(problem.what))))
        assert all(len(one) <= 1_000 for one in told)
        if not found:
            raise Refused(told[0])
        (one,) = found
        shown = msgspec.to_builtins(one)
        # Ids and digests are made of what was read.
        for own in ("contact", "document", "entry", "content_digest", "source"):
            shown.pop(own, None)
        return shown

    return read


FOLDER = Path()
DRIVERS: dict[str, Callable[[str, str], Any]] = {
    "manifest": manifest,
    "tool": tool,
    "mcp.tool": mcp_tool,
    "mcp.result": mcp_result,
    "mcp.resources": of_list(("resources", "templates"), {"resources": [{"uri": "u", "name": "n"}]}),
    "mcp.resource": of_list(("contents",), {"contents": [{"uri": "u", "text": "t"}]}),
    "mcp.prompts": of_list(("prompts",), {"prompts": [{"name": "n", "arguments": [{"name": "a"}]}]}),
    "mcp.prompt": mcp_prompt,
    "mcp.error": mcp_error,
    "mcp.server": mcp_server,
    "mcp.ready": mcp_ready,
    "mcp.progress": lambda leaf, text: wired(Progress(id=1, progress=0.5, message=text)),
    "mcp.failure": mcp_error,
    "mcp.gone": lambda leaf, text: wired(Gone(message=text)),
    "import.contact": of_import("contact"),
    "import.document": of_import("document"),
    "import.calendar": of_import("calendar"),
}


def fate_of(source: str, leaf: str, text: str) -> tuple[str, Any]:
    """What became of the text, and what was read; of one that is too long the beginning may be kept."""
    try:
        made = DRIVERS[source](leaf, text)
    except (RunloopError, Refused) as error:
        return "refused", error
    return ("kept" if text[:24] in _texts(made) else "dropped"), made


def _texts(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\0\0".join(_texts(one) for pair in value.items() for one in pair)
    return "\0\0".join(map(_texts, value)) if isinstance(value, list | tuple) else ""


# --- the tests ------------------------------------------------------------------------------------

MAY: dict[str, set[str]] = {
    "refused": {"refused"},
    "dropped": {"dropped", "refused"},
    "text": {"kept", "refused"},
    "cleaned": {"kept", "dropped", "refused"},
    "json": {"kept", "refused"},
}
PLACES = [
    (source, leaf) for source in DRIVERS for leaf, fate in sorted(FIELDS[source].items()) if fate != "ours"
]


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    global FOLDER
    FOLDER = tmp_path_factory.mktemp("foreign")


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("source", sorted(TYPES))
def test_every_field_of_a_foreign_type_that_holds_text_has_its_line(source: str) -> None:
    assert set(leaves(TYPES[source])) == set(FIELDS[source])


@pytest.mark.requirement("P6")
def test_every_foreign_document_has_something_that_reads_it() -> None:
    assert FIELDS.keys() == TYPES.keys() == {*DRIVERS, "mcp.question", "model.answer"}


@pytest.mark.requirement("P6")
@pytest.mark.parametrize(("source", "leaf"), PLACES, ids=str)
def test_a_strangers_text_is_data_in_every_field(source: str, leaf: str) -> None:
    fates: dict[str, str] = {}
    for name, text in PAYLOADS.items():
        fate, made = fate_of(source, leaf, text)
        fates[name] = fate
        if fate == "refused":
            assert len(str(made)) <= LONGEST
            assert_harmless(visible(str(made)))
            continue
        assert len(_texts(made)) <= LONGEST
        assert_harmless(visible(_texts(made)))
        if fate == "kept" and text in _texts(made):
            honest = swapped(fate_of(source, leaf, MARK)[1], MARK, MARK)
            assert swapped(made, text, MARK) == honest, "nothing else is another"
    assert set(fates.values()) <= MAY[FIELDS[source][leaf]], fates
    if FIELDS[source][leaf] in ("text", "cleaned", "json"):
        assert fates["orders"] == "kept", "honest words are kept as they are"


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_comment_of_a_policy_grants_nothing(name: str) -> None:
    plain = parse_policy("[capabilities]\nkb_read = true\n")
    text = PAYLOADS[name]
    for line in text.splitlines() or [text]:
        try:
            assert parse_policy(f"# {line}\n[capabilities]\nkb_read = true # {line}\n") == plain
        except RunloopError as error:
            assert_harmless(visible(error.message))  # TOML takes no control characters in comments


@pytest.mark.requirement("P6", "C6")
@pytest.mark.parametrize("field", ["summary", "recipients", "resource", "agent", "body", "subject", "label"])
@pytest.mark.parametrize("name", PAYLOADS)
def test_no_text_in_what_is_to_be_approved_looks_like_a_line_of_ours(name: str, field: str) -> None:
    def shown(text: str) -> list[str]:
        action: dict[str, Any] = {"summary": "send", "recipients": ["a@example.org"], "resource": "outbox"}
        given: dict[str, Any] = {
            "op": "mail.send",
            "expires_ms": 0,
            "run": "r",
            "node": "n",
            "approval": "ap",
        }
        subject, body = "s", "b"
        if field == "recipients":
            action["recipients"] = [text]
        elif field == "label":
            given["label"] = f"import:{text}"
        elif field == "body":
            body = text
        elif field == "subject":
            subject = " ".join(text.splitlines())
        else:
            action[field] = text
        mail = f"To: a@example.org\r\nSubject: {subject}\r\n\r\n{body}\r\n"
        content = mail.encode(errors="replace")
        return describe({**given, "action": action, "content_type": "message/rfc822"}, content, width=80)

    heads = {line[:14] for line in shown(MARK) if not line.startswith("  | ")}
    goes_on = ("  | ", f"{'':14}│ ", "  NOTE        ", "  look alike")
    for line in shown(PAYLOADS[name][:5_000]):
        assert_harmless(line)
        assert line[:14] in heads or line.startswith(goes_on), line


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("status", [400, 401, 402, 413, 429, 500])
def test_the_words_of_a_model_server_that_refuses_are_bounded_and_shown_escaped(
    status: int, name: str
) -> None:
    text = PAYLOADS[name]
    for body in (text, json.dumps({"error": {"message": text, "type": text, "code": text}})):
        error = status_error("far", status, body.encode(errors="replace"), {"retry-after": text})
        assert len(error.message) <= 20_000
        out, err = io.StringIO(), io.StringIO()
        Console(out, err, Style()).note(error.message)
        for line in err.getvalue().splitlines():
            assert_harmless(line)
        assert error.cost_micro_usd == 0 and "retry_after_ms" not in error.data
