"""What the coverage-guided fuzzer checks (tests/fuzz), on some streams in every run of the suite."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloop.rmp.frame import FrameReader
from tests.fuzz import streams
from tests.fuzz.streams import judge, stream


@pytest.mark.requirement("B4")
@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=7))
def test_a_stream_of_nearly_legal_frames_is_read_alike_in_every_way(seed: bytes, cuts: bytes) -> None:
    judge(stream(seed), cuts)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=7))
def test_any_bytes_are_read_alike_in_every_way(data: bytes, cuts: bytes) -> None:
    judge(data, cuts)


def test_a_reader_that_forgets_one_rule_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lenient(FrameReader):
        def feed(self, data: bytes) -> list[streams.Frame]:
            return super().feed(data.replace(b"RMP1", b"RMP0"))

    monkeypatch.setattr(streams, "FrameReader", Lenient)
    with pytest.raises(AssertionError, match="the specification"):
        judge(stream(b"\x00").replace(b"RMP0", b"RMP1"), b"")
