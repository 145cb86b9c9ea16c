"""From a draft to its texts: two ways, one result, and nothing that cannot be read back."""

from __future__ import annotations

import datetime
import types
import typing
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pog.chain import payload_decoder
from pog.prepare import prepare
from pog.shapes import integer_fields, plain_fields, plain_shape
from runloop.digest import MAX_SAFE, canonical
from runloop.errors import UsageError
from runloop.events import KINDS, Draft, MessageSent, Payload, Provenance, encode_payload

from . import facts

PLAIN = sorted(kind for kind, payload in KINDS.items() if plain_shape(payload) is not None)

MESSAGE = MessageSent(
    sender="daemon",
    receiver="agent:writer",
    topic="agent/w",
    type="intent.data.v1",
    schema_id=1,
    msg_id=7,
    size=300,
    body_digest="0" * 64,
    node="draft",
    attempt=1,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Whatever a plain field may hold."""
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return st.one_of(*map(values, typing.get_args(hint)))
    return {
        str: st.text(),
        int: st.integers(-MAX_SAFE, MAX_SAFE),
        bool: st.booleans(),
        type(None): st.none(),
    }[hint]


def payloads(kind: str) -> st.SearchStrategy[Payload]:
    hints = typing.get_type_hints(KINDS[kind])
    fields = {field.name: values(hints[field.name]) for field in msgspec.structs.fields(KINDS[kind])}
    return st.builds(KINDS[kind], **fields)


def test_the_kinds_that_are_stated_most_are_plain() -> None:
    assert {"message.sent", "hostcall.admitted", "hostcall.delivered", "model.called", "cap.audit"} <= set(
        PLAIN
    )
    assert "memory.updated" not in PLAIN
    assert "run.started" not in PLAIN


@pytest.mark.requirement("I4.step.1")
@given(st.sampled_from(PLAIN).flatmap(payloads))
def test_the_quick_way_writes_what_the_walk_writes(payload: Payload) -> None:
    prepared = prepare(Draft(payload=payload, actor="daemon"))
    assert prepared.payload_text == canonical(encode_payload(payload))
    assert payload_decoder(type(payload)).decode(prepared.payload_text) == payload
    assert prepared.payload == payload


@pytest.mark.requirement("I4.step.1")
def test_every_character_is_written_as_the_walk_writes_it() -> None:
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    payload = msgspec.structs.replace(MESSAGE, topic=every)
    assert prepare(facts.draft(payload)).payload_text == canonical(encode_payload(payload))


@pytest.mark.requirement("I4.step.1")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", True),
        ("size", 5.0),
        ("size", "5"),
        ("size", None),
        ("size", MAX_SAFE + 1),
        ("size", -MAX_SAFE - 1),
        ("size", 2**70),
        ("attempt", 0.5),
        ("topic", 5),
        ("topic", b"bytes"),
        ("topic", None),
        ("topic", "\ud800"),
        ("topic", datetime.datetime(2026, 1, 1)),
        ("topic", uuid.UUID(int=0)),
        ("topic", msgspec.Raw(b'"\\u0041"')),
        ("topic", ["a"]),
        ("node", {}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_the_quick_way_takes_nothing_but_the_very_types_of_the_schema(field: str, value: Any) -> None:
    with pytest.raises(UsageError):
        prepare(facts.draft(msgspec.structs.replace(MESSAGE, **{field: value})))


@given(
    st.builds(Provenance, causes=st.lists(st.integers(1, MAX_SAFE)).map(tuple), label=st.text() | st.none())
)
def test_provenance_is_canonical_too(stamp: Provenance) -> None:
    prepared = prepare(Draft(payload=MESSAGE, actor="daemon", provenance=stamp))
    assert prepared.provenance_text == canonical(msgspec.to_builtins(stamp))


def test_causes_may_be_a_list() -> None:
    stamp = Provenance(causes=[3, 1])  # type: ignore[arg-type]
    assert (
        prepare(Draft(payload=MESSAGE, actor="daemon", provenance=stamp)).provenance_text
        == b'{"causes":[3,1]}'
    )


@pytest.mark.parametrize(
    "stamp",
    [
        {"node": 5},
        {"attempt": "1"},
        {"causes": (2**53,)},
        {"causes": ("1",)},
        {"call": -(2**53)},
        {"label": "\ud800"},
    ],
    ids=["node", "attempt", "cause", "text", "call", "surrogate"],
)
def test_provenance_that_could_not_be_read_back_is_refused(stamp: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        prepare(Draft(payload=MESSAGE, actor="daemon", provenance=Provenance(**stamp)))


def test_shapes_tell_fields_apart() -> None:
    assert integer_fields(MessageSent) == {"schema_id", "msg_id", "size"}
    assert "attempt" in plain_fields(MessageSent)
    assert "recipients" not in plain_fields(KINDS["email.sent"])
    assert "error" not in plain_fields(KINDS["node.finished"])
