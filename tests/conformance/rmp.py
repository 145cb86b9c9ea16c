"""The probe of ``sdk/conformance/README.md``: one question per line, one answer per line, in every language.

:func:`python` answers for the Python implementation; :class:`Probe` asks a program that stays alive.
"""

from __future__ import annotations

import itertools
import math
import struct
import subprocess
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from runloop import __version__
from runloop.errors import UsageError
from runloop.rmp import hello, topics
from runloop.rmp.envelope import Envelope, encode_envelope, open_frame
from runloop.rmp.frame import NAMED_ERRORS, Duplicate, Frame, FrameReader, Incomplete, WireError, encode_frame
from runloop.rmp.registry import TYPES
from runloopd.bus.dedupe import Dedupe

__all__ = ["Probe", "pieces", "python", "read", "shown", "write"]

GENEROUS = 8 * 1024 * 1024


# --- questions ------------------------------------------------------------------------------------


def read(
    parts: Iterable[bytes],
    *,
    max_body: int = GENEROUS,
    now_ms: int = 0,
    end: bool = False,
    publishers: Sequence[str] = (),
) -> str:
    """Judge a stream that arrives in ``parts``."""
    words = [str(max_body), str(now_ms), str(int(end)), ",".join(publishers) or "-"]
    return " ".join(["read", *words, *(part.hex() or "-" for part in parts)])


def write(header: dict[str, Any], type: str, payload: Any, meta: dict[str, Any]) -> str:
    """Make a frame; ``header`` as in ``golden.json``."""
    fields = (header[key] for key in ("schema_id", "created_at_ms", "ttl_ms", "trace_id", "msg_id"))
    return " ".join(["write", *map(str, fields), shown(type), shown(payload), shown(meta)])


def pieces(stream: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and in two at every place."""
    single = [stream[at : at + 1] for at in range(len(stream))]
    return [[stream], single, *([stream[:at], stream[at:]] for at in range(1, len(stream)))]


def shown(value: Any) -> str:
    """A value in the probe's notation."""
    if value is None:
        return "n"
    if value is True or value is False:
        return "t" if value else "f"
    if isinstance(value, int):
        return f"i{value}"
    if isinstance(value, float):
        return "dnan" if math.isnan(value) else f"d{struct.pack('>d', value).hex()}"
    if isinstance(value, str):
        return f"s{value.encode().hex()}"
    if isinstance(value, bytes):
        return f"b{value.hex()}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{shown(key)}={shown(item)}" for key, item in value.items()) + "}"
    return "[" + ",".join(map(shown, value)) + "]"


# --- answers --------------------------------------------------------------------------------------


def python(question: str) -> str:
    """What the Python implementation answers to ``read``, ``registry``, ``names``, ``topic`` and the like."""
    kind, *words = question.split(" ")
    match kind:
        case "read":
            return _read(words)
        case "registry":
            return f"{__version__} " + ",".join(f"{number}={name}" for number, name in TYPES.items())
        case "names":
            return ",".join(f"{error.__name__}={error.code}" for error in NAMED_ERRORS)
        case "proof":
            return hello.proof(_bytes(words[0]), _bytes(words[1])).hex()
        case "topic" | "pattern":
            try:
                (topics.topic if kind == "topic" else topics.pattern)(_bytes(words[0]).decode())
            except UsageError:
                return "no"
            return "yes"
        case "matches":
            return "yes" if topics.matches(*(_bytes(word).decode() for word in words)) else "no"
    raise AssertionError(question)


def _read(words: list[str]) -> str:
    max_body, now, end, names = int(words[0]), int(words[1]), words[2] == "1", words[3]
    reader, dedupe = FrameReader(max_body=max_body), Dedupe()
    publishers = itertools.chain(() if names == "-" else names.split(","), itertools.repeat("a"))
    frames: list[str] = []
    error = "-"
    try:
        for word in words[4:]:
            for frame in reader.feed(_bytes(word)):
                envelope = open_frame(frame)
                frame.check_expiry(now)
                ids = frame.trace_id.to_bytes(16, "big") + frame.msg_id.to_bytes(8, "big")
                if dedupe.first(next(publishers).encode(), ids, now) is not None:
                    raise Duplicate("seen")
                frames.append(_described(frame, envelope))
            if reader.error is not None:
                raise reader.error
        if end:
            reader.close()
        if reader.pending:
            raise Incomplete("more")
    except WireError as refusal:
        error = type(refusal).__name__
    return " ".join([str(len(frames)), error, *frames])


def _described(frame: Frame, envelope: Envelope) -> str:
    body = encode_envelope(*_one_nan(envelope))
    again = encode_frame(
        schema_id=frame.schema_id, body=body, created_at_ms=frame.created_at_ms, ttl_ms=frame.ttl_ms,
        trace_id=frame.trace_id, msg_id=frame.msg_id,
    )  # fmt: skip
    header = (frame.schema_id, frame.created_at_ms, frame.ttl_ms, f"{frame.trace_id:032x}", frame.msg_id)
    return ";".join([*map(str, header), *map(shown, envelope), again.hex()])


def _one_nan(value: Any) -> Any:
    """The value with every NaN written alike: its bits are not part of the protocol."""
    if isinstance(value, float) and math.isnan(value):
        return struct.unpack(">d", b"\x7f\xf8" + bytes(6))[0]
    if isinstance(value, dict):
        return {_one_nan(key): _one_nan(item) for key, item in value.items()}
    return [_one_nan(item) for item in value] if isinstance(value, list | tuple) else value


def _bytes(word: str) -> bytes:
    return b"" if word == "-" else bytes.fromhex(word)


class Probe:
    """A program that answers, started once."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ask(self, questions: Sequence[str]) -> list[str]:
        """The answers, in order; fails with the program's own words when it dies."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        writer = threading.Thread(target=self._write, args=(questions,), daemon=True)
        writer.start()
        answers = []
        for question in questions:
            answer = process.stdout.readline()
            if not answer.endswith("\n"):
                process.kill()
                raise AssertionError(
                    f"{self._command} died of {question[:2000]}: {process.stderr.read()[-4000:]}"
                )
            answers.append(answer[:-1])
        writer.join()
        return answers

    def _write(self, questions: Sequence[str]) -> None:
        assert self._process.stdin is not None
        try:
            for question in questions:
                self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # the reader says why

    def close(self) -> None:
        """Let it end by itself."""
        self._process.communicate(timeout=30)
