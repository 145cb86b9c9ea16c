"""What is read of a stranger's words, without a server: frames, names, definitions, questions, results."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.digest import canonical
from runloop.errors import NotFoundError, RunloopError, UsageError
from runloopd.broker.mcp.definitions import (
    MAX_DEFINITION,
    MAX_LISTING,
    accepting,
    changes,
    own_definitions,
    read_definition,
    read_listing,
)
from runloopd.broker.mcp.messages import (
    MAX_FRAME,
    Answer,
    Ask,
    BridgeError,
    FromBridge,
    FromDaemon,
    Question,
    decode,
    encode,
    size_of,
)
from runloopd.broker.mcp.names import fault_of, lookalikes
from runloopd.broker.mcp.questions import asks_secret
from runloopd.broker.mcp.results import called
from runloopd.broker.mcp.spec import ServerSpec, checked
from runloopd.broker.tool_results import MAX_RESULT_BYTES
from runloopd.broker.toolbox import ToolError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


# --- frames -----------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_a_frame_is_a_message_or_refused_and_nothing_else(body: bytes) -> None:
    try:
        decode(body, FromBridge)
    except BridgeError:
        return


def test_neither_side_says_what_the_other_one_may() -> None:
    asked = encode(Ask(id=1, method="tools/list"))[4:]
    assert decode(asked, FromDaemon) == Ask(id=1, method="tools/list")
    with pytest.raises(BridgeError):
        decode(asked, FromBridge)


def test_a_frame_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(BridgeError):
        size_of(struct.pack(">I", MAX_FRAME + 1))
    with pytest.raises(BridgeError):
        encode(Answer(id=1, value="x" * MAX_FRAME))


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "écho",
        "еcho",
        "e\u200bcho",
        "a/b",
        "../x",
        "x" * 65,
        "1st",
        "resources.read",
        None,
        7,
        "a\n",
    ],
)
def test_a_name_that_can_be_mistaken_is_refused(name: Any) -> None:
    assert fault_of(name) is not None


@pytest.mark.parametrize(
    "twins", [("send_mail", "send-mail"), ("Get", "get"), ("list1", "listl"), ("a", "a")]
)
def test_names_that_look_alike_are_told(twins: tuple[str, str]) -> None:
    assert set(lookalikes([*twins, "other"])) == set(twins)


# --- definitions ------------------------------------------------------------------------------------


@given(st.lists(st.dictionaries(st.sampled_from(["name", "description", "inputSchema", "x"]), JSON) | JSON))
def test_whatever_a_server_lists_is_taken_or_refused_with_a_reason(listed: list[Any]) -> None:
    found = read_listing(listed)
    assert len(found.tools) + len(found.refused) == len(listed)
    again = {name: read_definition(raw) for name, raw in json.loads(found.blob()).items()}
    assert {name: one.digest for name, one in again.items()} == found.digests()


@given(JSON, JSON)
def test_a_digest_covers_every_field_but_the_notes_for_programs(value: Any, other: Any) -> None:
    def of(**more: Any) -> str:
        tool = {"name": "t", "inputSchema": {}, **more}
        return read_listing([tool]).tools["t"].digest

    assert of(annotations=value, _meta=other) == of(annotations=value)
    assert (of(annotations=value) == of(annotations=other)) == (
        json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def tool(name: str, description: str = "") -> dict[str, Any]:
    return {"name": name, "description": description, "inputSchema": {"type": "object", "x": description}}


@pytest.mark.requirement("M1")
def test_of_two_tools_that_could_be_taken_for_each_other_neither_is_taken() -> None:
    found = read_listing([tool("pay"), tool("PAY"), tool("list"), tool("again"), tool("again")])
    assert list(found.tools) == ["list"]
    assert found.refused == (
        ("pay", "it could be taken for 'PAY'"),
        ("PAY", "it could be taken for 'pay'"),
        ("again", "it is there twice"),
        ("again", "it is there twice"),
    )


@pytest.mark.requirement("M1")
def test_a_definition_nobody_could_read_is_refused_alone() -> None:
    long = {**tool("long"), "annotations": {"note": "x" * MAX_DEFINITION}}
    found = read_listing([tool("short"), long])
    assert list(found.tools) == ["short"]
    ((name, why),) = found.refused
    assert name == "long" and why.endswith(f"at most {MAX_DEFINITION} are read")


@pytest.mark.requirement("M1")
def test_what_of_a_list_is_beyond_its_bytes_is_refused() -> None:
    each = MAX_DEFINITION // 2
    many = [{**tool(f"t{number}"), "annotations": {"note": "x" * each}} for number in range(40)]
    found = read_listing(many)
    assert 0 < sum(len(canonical(one.raw)) for one in found.tools.values()) <= MAX_LISTING
    assert len(found.tools) == MAX_LISTING // (each + 100)
    assert {why for _, why in found.refused} == {f"the list is larger than {MAX_LISTING} bytes"}


def test_a_difference_is_shown_field_by_field() -> None:
    shown = changes({"name": "t", "description": "a"}, {"name": "t", "description": "b"})
    assert '-  "description": "a",' in shown
    assert '+  "description": "b",' in shown


def test_what_cannot_be_evaluated_of_a_schema_is_left_to_the_server() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "pattern": "(a+)+$"},
            "count": {"type": "integer", "minimum": 1},
        },
        "required": ["pattern"],
        "additionalProperties": False,
    }
    shown, accepts = accepting(schema)
    assert "pattern" not in shown["properties"]["pattern"]
    assert accepts.misfit({"pattern": "a" * 10_000 + "b", "count": 3}) is None
    assert accepts.misfit({"count": 3}) is not None
    assert accepts.misfit({"pattern": "x", "count": 0}) is not None
    assert accepts.misfit({"pattern": "x", "more": 1}) is not None


@given(JSON)
def test_no_schema_of_a_stranger_breaks_the_reader(schema: Any) -> None:
    accepting({"type": "object", "properties": {"a": schema}} if not isinstance(schema, dict) else schema)


def test_a_servers_resources_and_prompts_have_definitions_of_ours() -> None:
    assert set(own_definitions(resources=True, prompts=False)) == {"resources.list", "resources.read"}


# --- questions --------------------------------------------------------------------------------------


@pytest.mark.requirement("C11")
@pytest.mark.parametrize(
    "question",
    [
        {"message": "Please enter your password"},
        {"message": "One step left", "schema": {"properties": {"apiKey": {"type": "string"}}}},
        {"message": "Go on", "schema": {"properties": {"x": {"title": "PIN", "type": "string"}}}},
        {"message": "Go on", "schema": {"properties": {"x": {"description": "your 2FA code"}}}},
        {"message": "Go on", "schema": {"properties": {"userPassword": {}}}},
        {"message": "Go on", "schema": {"properties": {"access_token": {}}}},
        {"message": "Your seed phrase, please"},
        {"message": "Karte", "schema": {"properties": {"card_number": {}}}},
        {"message": "Your p\u0430ssword"},  # Cyrillic a
        {"message": "Your \u0440\u0430\u0455\u0455word"},
        {"message": "Your \u03a1ASSW\u039fRD"},  # Greek capitals
        {"message": "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44"},  # full width
        {"message": "\U0001d429\U0001d41a\U0001d42c\U0001d42cword"},  # mathematical bold
        {"message": "\u1d18\u1d00\ua731\ua731\u1d21\u1d0f\u0280\u1d05"},  # small capitals
        {"message": "\U0001f1f5\U0001f1ee\U0001f1f3"},  # regional indicators: P I N
        {"message": "\u24df\u24d0\u24e2\u24e2\u24e6\u24de\u24e1\u24d3"},  # in circles
        {"message": "pass\u200bword"},
        {"message": "pa\u00ads\u2060sw\u034ford"},
        {"message": "p\u0301a\u0300ssword"},
        {"message": "pa$$w0rd"},
        {"message": "P4SSW0RD"},
        {"message": "t0k3n"},
        {"message": "1ogin"},
        {"message": "your P1N"},
        {"message": "p a s s w o r d"},
        {"message": "P.I.N"},
        {"message": "passw ord"},
        {"message": "Go on", "schema": {"properties": {"\u0440assWord": {}}}},
        {"message": "Go on", "schema": {"properties": {"x": {"enum": ["s\u0435cret"]}}}},
        {"message": "Ваш пароль"},
        {"message": "Votre mot de passe"},
        {"message": "Su contrase\u00f1a"},
        {"message": "请输入密码"},
        {"message": "x" * 70_000},
        {"message": "\ufdfa" * 4_000},
        {"message": "Type your TAN"},
        {"message": "Enter the verification code we texted you"},
    ],
    ids=range(37),
)
def test_a_question_for_a_secret_is_known_by_any_of_its_words(question: dict[str, Any]) -> None:
    assert asks_secret(Question(question=1, ask=1, **question))


@pytest.mark.parametrize(
    "message",
    [
        "Which colour?",
        "Delete 3 files?",
        "Which spinning wheel?",
        "How many?",
        "Which of the 10 items at 14:35?",
        "Какой цвет?",
        "Quelle couleur préférez-vous, à 19 € ou 25 £?",
        "どの色ですか",
        "A, B or C?",
    ],
)
def test_an_ordinary_question_is_asked(message: str) -> None:
    schema = {"type": "object", "properties": {"choice": {"type": "string", "enum": ["red", "blue"]}}}
    assert not asks_secret(Question(question=1, ask=1, message=message, schema=schema))


# --- results ----------------------------------------------------------------------------------------


@given(JSON)
def test_a_result_is_content_or_an_error_with_a_code(answer: Any) -> None:
    try:
        value = called("s", "t", answer)
    except ToolError as error:
        assert error.named_code in ("tool.result", "tool.failed")
    else:
        assert set(value) <= {"content", "structured"}


def test_a_result_that_is_too_large_is_refused() -> None:
    with pytest.raises(ToolError) as caught:
        called("s", "t", {"content": [{"type": "text", "text": "x" * (MAX_RESULT_BYTES + 1)}]})
    assert caught.value.named_code == "tool.result"


# --- servers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"argv": ("/usr/bin/true",), "url": "https://a.example/"},
        {"argv": ("/usr/bin/true", "a\0b")},
        {"argv": ("/usr/bin/true",), "env": {"LD_PRELOAD": "/x.so"}},
        {"argv": ("/usr/bin/true",), "env": {"HTTPS_PROXY": "http://x"}},
        {"argv": ("/usr/bin/true",), "env": {"a=b": "x"}},
        {"argv": ("/usr/bin/true",), "secrets": {"TOKEN": "plain-value"}},
        {"argv": ("/usr/bin/true",), "env": {"A": "x"}, "secrets": {"A": "runloop/mcp/a"}},
        {"argv": ("/usr/bin/true",), "ro": ("relative",)},
        {"argv": ("/usr/bin/true",), "rw": ("/",)},
        {"argv": ("/usr/bin/true",), "net": ("https://a.example/path?x",)},
        {"url": "https://a.example/", "ro": ("/usr",)},
        {"url": "https://a.example/", "secrets": {"OTHER": "runloop/mcp/a"}},
        {"url": "https://a.example/", "net": ("b.example",)},
    ],
)
def test_a_server_that_makes_no_sense_or_widens_quietly_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        checked(ServerSpec(**given))


def test_a_program_or_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        checked(ServerSpec(argv=(str(tmp_path / "absent"),)))
    with pytest.raises(NotFoundError):
        checked(ServerSpec(argv=("/usr/bin/true",), ro=(str(tmp_path / "absent"),)))


def test_a_program_outside_of_its_sandbox_is_told_what_to_add(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(UsageError) as caught:
        checked(ServerSpec(argv=(str(program),)))
    assert caught.value.hint == f"add --ro {tmp_path}"
    assert checked(ServerSpec(argv=(str(program),), ro=(str(tmp_path),))).argv == (str(program),)


def test_a_folder_behind_a_link_is_shown_as_what_it_is(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    spec = checked(ServerSpec(argv=("/usr/bin/true",), ro=(str(tmp_path / "link"),)))
    assert spec.ro == (str(real),)


@given(JSON)
def test_a_spec_from_anywhere_is_a_spec_or_refused(value: Any) -> None:
    try:
        ServerSpec.from_json(value)
    except RunloopError:
        return
