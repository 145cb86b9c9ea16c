"""The Python implementation runs the vectors of ``sdk/conformance``, as every other one does."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runloop.rmp import hello
from runloop.rmp.envelope import decode_envelope, encode_envelope, open_frame
from runloop.rmp.frame import (
    MAX_BODY,
    NAMED_ERRORS,
    Duplicate,
    FrameReader,
    Incomplete,
    WireError,
    encode_frame,
)
from runloop.rmp.registry import TYPES
from runloopd.bus.dedupe import Dedupe

VECTORS = Path(__file__).resolve().parents[2] / "sdk/conformance"


def load(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return rows


def named(rows: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(row, id=f"{row.get('error', 'legal')}: {row['name']}") for row in rows]


def plain(value: Any) -> Any:
    """Undo ``{"$bin": hex}``."""
    if isinstance(value, dict):
        if set(value) == {"$bin"}:
            return bytes.fromhex(value["$bin"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def judge(case: dict[str, Any], pieces: Iterator[bytes]) -> tuple[int, WireError | None]:
    """Frames accepted, and the refusal, of one connection that delivers ``pieces``."""
    reader, dedupe, now = FrameReader(max_body=case.get("max_body", MAX_BODY)), Dedupe(), case["now_ms"]
    publishers = iter(case.get("publishers", ()))
    count = 0
    try:
        for piece in pieces:
            for frame in reader.feed(piece):
                open_frame(frame)
                frame.check_expiry(now)
                ids = frame.trace_id.to_bytes(16, "big") + frame.msg_id.to_bytes(8, "big")
                if dedupe.first(next(publishers, "a").encode(), ids, now) is not None:
                    raise Duplicate("seen")
                count += 1
            if reader.error is not None:
                raise reader.error
        if case.get("end"):
            reader.close()
        if reader.pending:
            raise Incomplete("more")
    except WireError as error:
        return count, error
    return count, None


def cut(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[at : at + size] for at in range(0, len(stream), size))


@pytest.mark.requirement("I2.wire.7")
@pytest.mark.parametrize("vector", named(load("golden")))
def test_a_golden_frame_is_read_and_written_byte_for_byte(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    (frame,) = FrameReader().feed(data)
    header = {**vector["frame"], "trace_id": int(vector["frame"]["trace_id"], 16)}
    assert {key: getattr(frame, key) for key in header} == header
    envelope = open_frame(frame)
    wanted = plain(vector["envelope"])
    assert envelope._asdict() == wanted
    assert list(envelope.meta) == list(wanted["meta"])
    if vector["writer"]:
        body = encode_envelope(wanted["type"], wanted["payload"], wanted["meta"])
        assert encode_frame(body=body, **header) == data


@pytest.mark.requirement("B4", "I2.wire.1", "I2.wire.7")
@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("case", named([row for row in load("errors") if len(row["stream"]) < 10_000]))
def test_a_refusal_has_its_name_however_the_stream_is_cut(case: dict[str, Any], size: int) -> None:
    accepted, error = judge(case, cut(bytes.fromhex(case["stream"]), size))
    assert (type(error).__name__, accepted) == (case["error"], case["accepted"])


@pytest.mark.parametrize("case", named([row for row in load("errors") if len(row["stream"]) >= 10_000]))
def test_a_large_refusal_has_its_name(case: dict[str, Any]) -> None:
    accepted, error = judge(case, iter([bytes.fromhex(case["stream"])]))
    assert (type(error).__name__, accepted) == (case["error"], case["accepted"])


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("case", named(load("accepted")))
def test_what_only_looks_suspicious_is_accepted(case: dict[str, Any], size: int) -> None:
    assert judge(case, cut(bytes.fromhex(case["stream"]), size)) == (case["accepted"], None)


@pytest.mark.requirement("B4", "I2.wire.1", "I2.wire.7")
def test_every_named_error_has_a_fixture() -> None:
    assert {row["error"] for row in load("errors")} == {error.__name__ for error in NAMED_ERRORS}


@pytest.mark.requirement("I2.wire.2")
def test_every_schema_has_a_golden_frame() -> None:
    seen = {row["frame"]["schema_id"]: row["envelope"]["type"] for row in load("golden")}
    assert {number: seen.get(number) for number in TYPES} == TYPES


def test_the_proof_of_the_hello_is_the_one_everybody_computes() -> None:
    for row in load("hello"):
        credential, nonce = bytes.fromhex(row["credential"]), bytes.fromhex(row["nonce"])
        assert hello.proof(credential, nonce).hex() == row["proof"]


def program(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.parent.name + "_generate", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.requirement("I2.wire.2", "I2.wire.7")
@pytest.mark.parametrize("directory", ["conformance", "schema"])
def test_what_is_generated_is_not_stale(directory: str) -> None:
    made = program(VECTORS.parent / directory / "generate.py").artefacts()
    stale = [path.name for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    assert not stale, f"run: python sdk/{directory}/generate.py"


@pytest.mark.requirement("I2.wire.2")
def test_the_registry_refuses_an_id_given_out_twice() -> None:
    generate = program(VECTORS.parent / "schema/generate.py")
    source = (VECTORS.parent / "schema/registry.toml").read_text(encoding="utf-8")
    for spoiled in (
        source.replace("id = 2\n", "id = 1\n"),
        source.replace("intent.generic.v1", "wish.generic.v1"),
        source.replace("id = 4001", "id = 40001"),
        source.replace("id = 110\n", "id = 90\n"),
    ):
        with pytest.raises(SystemExit):
            generate.load(spoiled)


def test_a_body_decoded_alone_gives_the_same_envelope() -> None:
    body = encode_envelope("observation.generic.v1", {"a": [1, b"x"]}, {"topic": "a/b", "own": 1})
    assert decode_envelope(body) == ("observation.generic.v1", {"a": [1, b"x"]}, {"topic": "a/b", "own": 1})
