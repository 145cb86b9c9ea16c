"""Framing of streams: the same events however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloopd.broker.providers.sse import (
    MAX_LINE,
    JsonLines,
    ServerSentEvent,
    ServerSentEvents,
    StreamTooLargeError,
)

STREAM = (
    "\ufeff: comment\n\nevent: first\ndata: one\ndata: two\n\n"
    "data:no blank\r\n\r\nid: 7\rretry: 10\rdata: grüße 👩\r\rdata\n\nunknown: x\nevent: empty\n\ndata: lost"
).encode()
EVENTS = [
    ServerSentEvent("first", "one\ntwo"),
    ServerSentEvent("message", "no blank"),
    ServerSentEvent("message", "grüße 👩"),
    ServerSentEvent("message", ""),
]


def parse(pieces: list[bytes]) -> list[ServerSentEvent]:
    parser = ServerSentEvents()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_events_are_parsed_as_the_standard_says() -> None:
    assert parse([STREAM]) == EVENTS


def test_events_are_the_same_byte_by_byte() -> None:
    assert parse([STREAM[at : at + 1] for at in range(len(STREAM))]) == EVENTS


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_events_are_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    assert parse([STREAM[a:b] for a, b in pairwise(places)]) == EVENTS


def test_an_endless_line_and_an_endless_event_are_refused() -> None:
    with pytest.raises(StreamTooLargeError):
        parse([b"data: " + b"x" * MAX_LINE + b"x"])
    with pytest.raises(StreamTooLargeError):
        parse([b"data: " + b"x" * 100_000 + b"\n"] * 11)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=4))
def test_json_lines_are_the_same_wherever_they_are_cut(cuts: list[int]) -> None:
    data = b'{"a": 1}\r\n\n  {"b": 2}\n{"c": 3}'
    places = [0, *sorted(cuts), len(data)]
    lines = JsonLines()
    got = [line for a, b in pairwise(places) for line in lines.feed(data[a:b])]
    assert got + lines.end() == [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']
    assert lines.end() == []


def test_an_endless_json_line_is_refused() -> None:
    lines = JsonLines()
    with pytest.raises(StreamTooLargeError):
        lines.feed(b"x" * (MAX_LINE + 1))
