"""JavaScript and Rust run the vectors of RMP v0 through one probe, and are asked the same as Python."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import clients
from tests.conformance.rmp import Probe, pieces, python, read, write
from tests.conformance.test_vectors import load, plain

LANGUAGES = [
    pytest.param("javascript", marks=clients.javascript),
    pytest.param("rust", marks=clients.rust),
]
LONG = 5_000
"""Bytes of a stream that is not cut at every place."""


@pytest.fixture(scope="module", params=LANGUAGES)
def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    if request.param == "javascript":
        started = Probe(clients.node() or "", str(clients.JS / "probe/rmp.mjs"))
    else:
        started = Probe(str(clients.rust_programs(tmp_path_factory) / "probe"))
    yield started
    started.close()


def cuts(stream: bytes) -> list[list[bytes]]:
    return pieces(stream) if len(stream) < LONG else [[stream], [stream[:67], stream[67:]]]


def differing(probe: Probe, questions: list[str], wanted: list[str]) -> list[tuple[str, str, str]]:
    rows = zip(questions, probe.ask(questions), wanted, strict=True)
    return [(asked[:500], got[:500], want[:500]) for asked, got, want in rows if got != want]


@pytest.mark.requirement("I4.clients.1")
def test_a_golden_frame_is_read_alike_however_it_is_cut(probe: Probe) -> None:
    for vector in load("golden"):
        stream = bytes.fromhex(vector["hex"])
        wanted = python(read([stream]))
        assert wanted.startswith("1 - "), vector["name"]
        questions = [read(parts) for parts in cuts(stream)]
        assert not differing(probe, questions, [wanted] * len(questions)), vector["name"]


@pytest.mark.requirement("I4.clients.1")
def test_a_golden_frame_is_written_byte_for_byte(probe: Probe) -> None:
    vectors = [vector for vector in load("golden") if vector["writer"]]
    questions = []
    for vector in vectors:
        envelope = plain(vector["envelope"])
        questions.append(write(vector["frame"], envelope["type"], envelope["payload"], envelope["meta"]))
    assert not differing(probe, questions, [vector["hex"] for vector in vectors])


@pytest.mark.requirement("I4.clients.1")
@pytest.mark.parametrize("name", ["errors", "accepted"])
def test_every_refusal_has_its_name_however_the_stream_is_cut(probe: Probe, name: str) -> None:
    for case in load(name):
        stream = bytes.fromhex(case["stream"])
        asked = {key: case[key] for key in ("max_body", "now_ms", "end", "publishers") if key in case}
        questions = [read(parts, **asked) for parts in cuts(stream)]
        wanted = python(questions[0])
        assert wanted.split(" ")[:2] == [str(case["accepted"]), case.get("error", "-")], case["name"]
        assert not differing(probe, questions, [wanted] * len(questions)), case["name"]


@pytest.mark.requirement("I4.clients.1")
def test_what_cannot_be_written_is_refused_by_its_name(probe: Probe) -> None:
    generic, deep = "observation.generic.v1", None
    for _ in range(64):
        deep = [deep]
    header = {"schema_id": 1, "created_at_ms": 1, "ttl_ms": 1, "trace_id": "0" * 32, "msg_id": 1}
    cases: list[tuple[str, dict[str, Any], Any, dict[str, Any]]] = [
        ("UnknownSchema", {"schema_id": 0}, 1, {}),
        ("InvalidTtl", {"ttl_ms": 0}, 1, {}),
        ("InvalidExpiry", {"created_at_ms": 2**64 - 1}, 1, {}),
        ("BodyTooLarge", {}, bytes(8 * 1024 * 1024), {}),
        ("BodyDecodeError", {}, deep, {}),
        ("BodyDecodeError", {}, 2**64, {}),
        ("BodyDecodeError", {}, -(2**63) - 1, {}),
        ("BodyDecodeError", {}, 1, {"priority": 256}),
        ("BodyDecodeError", {}, 1, {"priority": 1.0}),
        ("BodyDecodeError", {}, 1, {"topic": "x" * 1025}),
        ("BodyDecodeError", {}, [[]] * 65 + [None] * 262_144, {}),
        *(
            ("BodyDecodeError", {}, [bytes([head])] + [None] * 262_144, {})
            for head in (0xC1, 0xC7, 0xC9, 0xD4, 0xD8)
        ),
    ]
    questions = [write({**header, **fields}, generic, payload, meta) for _, fields, payload, meta in cases]
    assert not differing(probe, questions, [name for name, *_ in cases])
    many, long = probe.ask(
        [write(header, generic, [None] * 262_144, {}), write(header, generic, 1, {"topic": "𝄞" * 1024})]
    )
    assert len(many) > 2 * 262_144, "many values are no offence by themselves"
    assert len(long) > 2 * 4096, "characters are code points"


@pytest.mark.requirement("I4.clients.1")
def test_proofs_and_keyed_hashes_are_the_ones_everybody_computes(probe: Probe) -> None:
    rows = load("hello")
    assert probe.ask([f"proof {row['credential']} {row['nonce']}" for row in rows]) == [
        r["proof"] for r in rows
    ]
    key = b"whats the Elvish word for friend".hex()
    rows = load("keyed")
    inputs = [bytes(at % 251 for at in range(row["input_len"])).hex() or "-" for row in rows]
    assert probe.ask([f"keyed {key} {data}" for data in inputs]) == [row["keyed_hash"] for row in rows]


@pytest.mark.requirement("I4.clients.1")
def test_registry_names_and_topics_are_the_same(probe: Probe) -> None:
    questions, wanted = ["registry", "names"], [python("registry"), python("names")]
    for row in load("topics"):
        word = row["text"].encode().hex() or "-"
        questions += [f"topic {word}", f"pattern {word}"]
        wanted += ["yes" if row[key] else "no" for key in ("topic", "pattern")]
        for other, covered in row.get("matches", {}).items():
            questions.append(f"matches {word} {other.encode().hex()}")
            wanted.append("yes" if covered else "no")
    assert not differing(probe, questions, wanted)
    assert [python(question) for question in questions] == wanted


# --- made-up streams --------------------------------------------------------------------------------

TYPE = b"\xb6observation.generic.v1"
HEADS = st.sampled_from([bytes([head]) for head in range(256)])
EQUALS = st.sampled_from(
    [
        *(b"\x01", b"\xc3", b"\xcc\x01", b"\xcb\x3f\xf0" + bytes(6), b"\xca\x3f\x80\0\0"),
        *(b"\0", b"\xc2", b"\xd0\0", b"\xcb" + bytes(8), b"\xcb\x80" + bytes(7)),
        *(b"\xa1a", b"\xd9\1a", b"\xc4\1a", b"\xc5\0\1a", b"\xc0", b"\xcb\x7f\xf8" + bytes(6)),
        *(b"\xcf\x80" + bytes(7), b"\xcb\x43\xe0" + bytes(6), b"\xcb\x3f\xe0" + bytes(6), b"\xca\x3f\0\0\0"),
    ]
)
"""Scalars of which some are equal as keys: by value, whatever their bytes and kind."""
SCALARS = st.one_of(
    HEADS,
    st.integers(0, 2**64 - 1).map(lambda number: b"\xcf" + struct.pack(">Q", number)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b"\xd3" + struct.pack(">q", number)),
    st.floats(width=64).map(lambda number: b"\xcb" + struct.pack(">d", number)),
    st.floats(width=32).map(lambda number: b"\xca" + struct.pack(">f", number)),
    EQUALS,
    st.text(max_size=5).map(lambda text: b"\xd9" + bytes([len(text.encode())]) + text.encode()),
    st.binary(max_size=5).map(lambda data: b"\xc4" + bytes([len(data)]) + data),
    st.binary(max_size=5).map(lambda data: bytes([0xA0 | len(data)]) + data),
)


def containers(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    lists = st.lists(inner, max_size=4).map(lambda items: bytes([0x90 | len(items)]) + b"".join(items))
    pairs = st.lists(st.tuples(EQUALS | SCALARS | inner, inner), max_size=4)
    maps = pairs.map(lambda rows: bytes([0x80 | len(rows)]) + b"".join(a + b for a, b in rows))
    deep = st.tuples(st.integers(60, 66), inner).map(lambda row: b"\x91" * row[0] + row[1])
    same = st.lists(st.tuples(EQUALS, EQUALS), min_size=2, max_size=6).map(
        lambda rows: bytes([0x80 | len(rows)]) + b"".join(a + b for a, b in rows)
    )
    return lists | maps | same | deep


VALUES = st.recursive(SCALARS, containers, max_leaves=12)
KEYS = ["topic", "reply_to", "priority", "max_hops", "tags", "opening_id", "receipt", "own"]
METAS = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=3).map(
    lambda rows: (
        bytes([0x80 | len(rows)])
        + b"".join(bytes([0xA0 | len(key)]) + key.encode() + value for key, value in rows)
    )
)
BODIES = st.one_of(
    VALUES.map(lambda value: b"\x82\xa4type" + TYPE + b"\xa7payload" + value),
    st.tuples(VALUES, METAS | VALUES).map(
        lambda row: b"\x83\xa4type" + TYPE + b"\xa7payload" + row[0] + b"\xa4meta" + row[1]
    ),
    VALUES,
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame that is legal, but for a field or a byte or two."""
    body = draw(BODIES)
    fields = {"schema": 1, "created": 1_000, "ttl": 500, "trace": 0, "msg": draw(st.integers(1, 3))}
    for _ in range(draw(st.integers(0, 1))):
        fields[draw(st.sampled_from(sorted(fields)))] = draw(st.sampled_from([0, 1, 99, 2001, 0x8001]))
    header = struct.pack(
        ">4sHHIHHIQQ16sQI", b"RMP0", 0, 64, 0, fields["schema"], 0, len(body), fields["created"],
        fields["ttl"], fields["trace"].to_bytes(16, "big"), fields["msg"], 0,
    )  # fmt: skip
    data = bytearray(struct.pack(">I", 64 + len(body)) + header + body)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


STREAMS = st.tuples(st.lists(frames(), min_size=1, max_size=3), st.binary(max_size=6)).map(
    lambda row: b"".join(row[0]) + row[1]
)


@st.composite
def questions(draw: st.DrawFn) -> str:
    stream = draw(STREAMS)
    places = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=3)))
    parts = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    return read(parts, max_body=draw(st.sampled_from([64, 1 << 20])), now_ms=1_200, end=draw(st.booleans()))


@pytest.mark.requirement("I4.clients.2")
@settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=st.lists(questions(), min_size=5, max_size=10))
def test_made_up_streams_are_judged_alike_by_all(probe: Probe, asked: list[str]) -> None:
    assert not differing(probe, asked, [python(question) for question in asked])


# --- the packages themselves ------------------------------------------------------------------------


@clients.rust
@pytest.mark.requirement("I4.clients.2")
def test_the_crates_own_tests_pass_without_a_registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    clients.rust_programs(tmp_path_factory)
    done = clients.cargo(clients.base_of(tmp_path_factory), "test", "--lib")
    assert done.returncode == 0, done.stderr
    assert "4 passed" in done.stdout, done.stdout


@clients.javascript
def test_the_packages_own_tests_pass() -> None:
    done = subprocess.run(
        [clients.node() or "", "--test", str(clients.JS / "probe/rmp.test.mjs")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("tsc") is None, reason="needs Debian: node-typescript")
def test_the_types_of_the_package_are_sound_and_name_every_export(tmp_path: Path) -> None:
    names = subprocess.run(
        [clients.node() or "", "--input-type=module", "-e", EXPORTS.format(path=clients.JS / "rmp/index.js")],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout.split()  # fmt: skip
    assert len(names) > 40
    (tmp_path / "use.ts").write_text(
        f'import {{ {", ".join(names)} }} from "runloop-rmp";\n'
        f"export const all: unknown[] = [{', '.join(names)}];\n" + USE
    )
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/runloop-rmp").symlink_to(clients.JS / "rmp")
    done = subprocess.run(
        ["tsc", "--noEmit", "--strict", "--target", "es2020", "--moduleResolution", "node", "use.ts"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


EXPORTS = "console.log(Object.keys(await import('{path}')).join(' '))"
USE = """
export async function use(): Promise<number> {
  const client = await connect({ path: "/x", credential: new Uint8Array(32), about: { serves: ["demo/*"] } });
  const news = await client.subscribe<{ n: number }>("demo/*");
  const { receivers, seq } = await client.publish("demo/a", "observation.generic.v1", { n: 1, big: 2n });
  for await (const { payload, seq: place } of news) return payload.n + place + receivers + seq;
  const books = await client.consume<string>("books", "durable/*", { start: "next" });
  for await (const order of books) books.ack(order);
  await books.close({ forget: true });
  try {
    await client.call("status", {}, { idempotent: true });
  } catch (error) {
    if (error instanceof BodyTooLarge) return error.code.length + (error.hint ?? "").length;
  }
  return Number(topics.matches("a/*", "a/b"));
}
"""
