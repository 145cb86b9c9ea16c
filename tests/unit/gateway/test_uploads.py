"""Bundle files on their way in: bounded, whole, and their owner's alone."""

from __future__ import annotations

import hashlib

import pytest

from runloop.bundle.archive import MAX_ARCHIVE_BYTES
from runloop.errors import ConflictError, NotFoundError, RefusedError, UsageError
from runloop.rmp.frame import MAX_BODY
from runloop.testing import ManualClock
from runloopd.gateway.agents import MAX_UPLOADS, PIECE_BYTES, UPLOAD_MS, Uploads

DATA = b"bundle" * 100


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def uploads(clock: ManualClock) -> Uploads:
    return Uploads(clock)


def test_a_file_arrives_in_pieces_and_is_taken_once(uploads: Uploads) -> None:
    name = uploads.begin("me", len(DATA), sha256(DATA))
    assert uploads.add("me", name, 0, DATA[:10]) == 10
    assert uploads.add("me", name, 10, DATA[10:]) == len(DATA)
    assert uploads.take("me", name) == DATA
    with pytest.raises(NotFoundError):
        uploads.take("me", name)


def test_a_piece_fits_a_frame() -> None:
    assert PIECE_BYTES * 4 // 3 + 4096 < MAX_BODY


def test_a_file_that_is_too_large_is_refused_before_a_byte_of_it(uploads: Uploads) -> None:
    with pytest.raises(RefusedError) as caught:
        uploads.begin("me", MAX_ARCHIVE_BYTES + 1, sha256(b""))
    assert caught.value.named_code == "archive.total_size"


@pytest.mark.parametrize("offset", [-1, 1, 10**9])
def test_pieces_follow_each_other(uploads: Uploads, offset: int) -> None:
    name = uploads.begin("me", len(DATA), sha256(DATA))
    with pytest.raises(UsageError):
        uploads.add("me", name, offset, DATA)
    with pytest.raises(NotFoundError):
        uploads.add("me", name, 0, DATA)


def test_more_than_was_announced_is_refused(uploads: Uploads) -> None:
    name = uploads.begin("me", 10, sha256(DATA))
    with pytest.raises(UsageError):
        uploads.add("me", name, 0, DATA)


def test_a_file_that_is_not_whole_or_another_is_refused(uploads: Uploads) -> None:
    name = uploads.begin("me", len(DATA), sha256(DATA))
    uploads.add("me", name, 0, DATA[:-1])
    with pytest.raises(UsageError):
        uploads.take("me", name)
    name = uploads.begin("me", len(DATA), sha256(b"other"))
    uploads.add("me", name, 0, DATA)
    with pytest.raises(UsageError):
        uploads.take("me", name)


def test_nobody_touches_anothers_upload(uploads: Uploads) -> None:
    name = uploads.begin("me", len(DATA), sha256(DATA))
    with pytest.raises(NotFoundError):
        uploads.add("eve", name, 0, DATA)
    with pytest.raises(NotFoundError):
        uploads.take("eve", name)


def test_few_are_held_at_once_and_the_idle_are_forgotten(uploads: Uploads, clock: ManualClock) -> None:
    for number in range(MAX_UPLOADS):
        uploads.begin(f"session {number}", 10, sha256(b""))
    with pytest.raises(ConflictError):
        uploads.begin("one more", 10, sha256(b""))
    clock.advance(UPLOAD_MS + 1)
    uploads.begin("one more", 10, sha256(b""))


def test_a_clock_that_is_set_back_blocks_nobody(uploads: Uploads, clock: ManualClock) -> None:
    clock.advance(10 * UPLOAD_MS)
    for number in range(MAX_UPLOADS):
        uploads.begin(f"session {number}", 10, sha256(b""))
    clock.advance(-5 * UPLOAD_MS)
    uploads.begin("one more", 10, sha256(b""))


def test_a_session_has_one_upload_at_a_time(uploads: Uploads) -> None:
    first = uploads.begin("me", len(DATA), sha256(DATA))
    second = uploads.begin("me", len(DATA), sha256(DATA))
    with pytest.raises(NotFoundError):
        uploads.add("me", first, 0, DATA)
    assert uploads.add("me", second, 0, DATA) == len(DATA)
