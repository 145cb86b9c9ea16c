"""A run in one file, and the stranger who looks at every byte of it."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from pog.sealed.check import examine, fingerprint, opened
from pog.sealed.seal import Content, pack, read_run, seal_statement
from runloop.bundle.digest import bundle_digest
from runloop.bundle.tar import write_tar
from runloop.digest import blob_digest, canonical
from runloop.errors import FailedError, NotFoundError, UsageError
from runloop.events import RunParent
from runloop.ids import child_run_id
from runloop.sealed.container import SealedError, bundle_tar, take_apart

from . import facts
from .conftest import Store

FILES = {"manifest.toml": b'name = "writer"\n', "agent.py": b"def handle(task, host): ...\n"}
BUNDLE = bundle_digest(FILES)
PIN = msgspec.structs.replace(facts.PIN, bundle_digest=BUNDLE)
CHILD = child_run_id(facts.RUN, "draft", 1)
INPUT, HEARD = b'{"ports":{},"with":{"to":"john"}}', b'{"hits":[]}'


def nothing_known(provider: str, version: str) -> None:
    return None


def content(store: Store) -> Content:
    """A run with another nested in it, and facts of others before, between and behind."""
    parent = RunParent(run=facts.RUN, node="draft", attempt=1, root=facts.RUN)
    own = {"agents": {"draft": PIN}}
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.contact())])
        ledger.append([facts.draft(facts.run_started(**own), run=facts.RUN)])
        ledger.append([facts.draft(facts.scheduled(input_blob=INPUT), run=facts.RUN)], [INPUT])
        ledger.append([facts.draft(facts.note(text="nobody's business"))])
        ledger.append([facts.draft(facts.run_started(parent=parent, **own), run=CHILD)])
        ledger.append([facts.draft(facts.delivered(result=HEARD), run=CHILD)], [HEARD, b"{}"])
        ledger.append([facts.draft(facts.run_finished(), run=CHILD)])
        ledger.append([facts.draft(facts.finished(), run=facts.RUN)])
        ledger.append([facts.draft(facts.run_finished(), run=facts.RUN)])
        ledger.append([facts.draft(facts.contact("c2"))])
    with store.reader() as reader:
        return read_run(
            reader, facts.RUN, bundles=lambda name: FILES if name == BUNDLE else None, prices=nothing_known
        )


@pytest.fixture
def sealed(store: Store) -> bytes:
    return pack(content(store), build="1.0", key=store.key)


def flipped(data: bytes, at: int, mask: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def first_finding(data: bytes) -> dict[str, Any]:
    examined = examine(data)
    assert examined.sealed is None
    return examined.findings[0].to_json()


@pytest.mark.requirement("I5.seal.1")
def test_a_sealed_run_holds_its_tree_and_only_hashes_of_what_lay_between(sealed: bytes) -> None:
    found = opened(sealed)
    assert found.manifest.runs == [facts.RUN, CHILD]
    assert [event.id for event in found.content.events] == [2, 3, 5, 6, 7, 8, 9]
    assert found.blob(blob_digest(INPUT)) == INPUT
    assert found.content.bundles == {BUNDLE: FILES}
    assert len(found.content.chain) == 8, "one hash for each event from the first to the signed head"
    assert b"nobody's business" not in sealed
    with pytest.raises(NotFoundError):
        found.blob("0" * 64)


@pytest.mark.requirement("I5.seal.1")
def test_the_same_run_gives_the_same_bytes(store: Store, sealed: bytes) -> None:
    with store.reader() as reader:
        again = read_run(reader, facts.RUN, bundles=lambda _: FILES, prices=nothing_known)
    assert pack(again, build="1.0", key=store.key) == sealed


@pytest.mark.requirement("I5.seal.2")
def test_no_byte_of_the_file_can_be_changed_unnoticed(sealed: bytes) -> None:
    """Every byte, each with a mask of its own: none is padding that nobody looks at."""
    unnoticed = [
        at for at in range(len(sealed)) if examine(flipped(sealed, at, 1 << at % 8)).sealed is not None
    ]
    assert unnoticed == []


@pytest.mark.requirement("I5.seal.2")
@pytest.mark.parametrize(
    ("member", "inside"),
    [
        ("manifest.json", b'"opening"'),
        ("signature.json", b'"signature":"'),
        ("columns.txt", b"2 "),
        ("chain.bin", b""),
        (f"bundles/{BUNDLE}.tar", b"def handle"),
        (f"blobs/{blob_digest(INPUT)}", b"john"),
    ],
    ids=["manifest", "signature", "columns", "chain", "bundle", "blob"],
)
def test_damage_is_named_by_its_member(sealed: bytes, member: str, inside: bytes) -> None:
    slices = take_apart(sealed)
    at = slices.offsets[member] + bytes(slices.bodies[member]).index(inside) + len(inside) // 2
    found = first_finding(flipped(sealed, at))
    assert found["member"] == member
    assert slices.offsets[member] <= found["offset"] <= at < found["offset"] + 4096
    assert found["blob"] == (blob_digest(INPUT) if member.startswith("blobs/") else None)


@pytest.mark.requirement("I5.seal.2")
@pytest.mark.parametrize(
    ("column", "index"),
    [(name, i) for i, name in enumerate(("id", "ts_ms", "actor", "kind", "version", "scope", "run"))]
    + [("payload", 7), ("provenance", 8), ("hash", 9), ("prev_hash", 10)],
)
def test_damage_in_an_event_is_named_by_its_column(sealed: bytes, column: str, index: int) -> None:
    slices = take_apart(sealed)
    line = bytes(slices.bodies["events.jsonl"]).split(b"\n")[1]
    cells = json.loads(line)
    cell = canonical(cells[index])
    before = len(canonical(cells[:index])) if index else 1
    at = slices.offsets["events.jsonl"] + len(bytes(slices.bodies["events.jsonl"]).split(b"\n")[0]) + 1
    # A digit or letter becomes its neighbour, a brace a letter: still JSON, still of its type.
    place = before + max((i for i, byte in enumerate(cell) if chr(byte).isalnum()), default=1)
    found = first_finding(flipped(sealed, at + place))
    assert (found["event"], found["column"]) == (3, column)


@pytest.mark.requirement("I5.seal.2")
def test_a_manifest_or_signature_that_was_made_anew_shows_another_key(store: Store, sealed: bytes) -> None:
    """Whoever changes the file may sign it again, with a key of their own: the head is not signed with it."""
    with store.reader() as reader:
        own = read_run(reader, facts.RUN, bundles=lambda _: FILES, prices=nothing_known)
    theirs = pack(own, build="1.0", key=Ed25519PrivateKey.from_private_bytes(b"x" * 32))
    assert first_finding(theirs)["what"] == "the head was signed with another key than the file"
    assert fingerprint(opened(sealed).key) != fingerprint("0" * 64)


def resealed(store: Store, sealed: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The file as the holder of the key could make it: everything consistent, but what ``change`` did."""
    members = {name: bytes(body) for name, body in take_apart(sealed).bodies.items()}
    change(members)
    manifest = json.loads(members.pop("manifest.json"))
    members.pop("signature.json")
    manifest["members"] = [
        [name, len(data), blob_digest(data), [blob_digest(data[at : at + 4096])[:8] for at in starts(data)]]
        for name, data in members.items()
    ]
    text = canonical(manifest)
    signature = {
        "manifest": blob_digest(text),
        "public_key": store.public_key.public_bytes_raw().hex(),
        "signature": store.key.sign(seal_statement(text)).hex(),
    }
    return write_tar([("manifest.json", text), ("signature.json", canonical(signature)), *members.items()])


def starts(data: bytes) -> range:
    return range(0, len(data), 4096) if len(data) > 4096 else range(0)


def smuggle(members: dict[str, bytes], files: dict[str, bytes]) -> None:
    """Put one more agent where it belongs by its name."""
    rest = {name: members.pop(name) for name in ("chain.bin", "columns.txt", "events.jsonl")}
    every = [(name, data) for name, data in members.items() if name.startswith("bundles/")]
    every.append((f"bundles/{bundle_digest(files)}.tar", bundle_tar(files)))
    for name, data in sorted(every):
        members.pop(name, None)
        members[name] = data
    members.update(rest)


def edit_line(members: dict[str, bytes], number: int, change: Callable[[list[Any]], None]) -> None:
    lines = members["events.jsonl"].split(b"\n")
    cells = json.loads(lines[number])
    change(cells)
    lines[number] = canonical(cells)
    members["events.jsonl"] = b"\n".join(lines)
    checks = members["columns.txt"].split(b"\n")
    short = "".join(blob_digest(canonical(cell))[:8] for cell in cells)
    checks[number] = f"{cells[0]} {short}".encode()
    members["columns.txt"] = b"\n".join(checks)


@pytest.mark.requirement("I5.seal.2")
def test_even_the_holder_of_the_key_cannot_put_other_words_into_an_event(store: Store, sealed: bytes) -> None:
    def lie(cells: list[Any]) -> None:
        cells[7] = cells[7].replace('"attempt":1', '"attempt":2')

    told = resealed(store, sealed, lambda members: edit_line(members, 1, lie))
    found = first_finding(told)
    assert (found["event"], found["column"]) == (3, "hash")


@pytest.mark.requirement("I5.seal.2")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda members: members.pop(f"blobs/{blob_digest(HEARD)}"), "are missing"),
        (lambda members: members.update({f"blobs/{'0' * 64}": b"more"}), "not list the members"),
        (lambda members: members.update({"chain.bin": members["chain.bin"][:-32]}), "chain"),
        (lambda members: members.update({"events.jsonl": b"[" * 100_000 + b"\n"}), "no row of a ledger"),
        (lambda members: members.update({"events.jsonl": b""}), "no end|no row"),
        (lambda members: smuggle(members, {"agent.py": b"nobody's"}), "no run names this agent"),
    ],
    ids=["a-blob-less", "a-blob-more", "chain-cut", "deep-json", "no-events", "an-agent-more"],
)
def test_what_the_key_signed_is_still_looked_into(
    store: Store, sealed: bytes, change: Callable[[dict[str, bytes]], None], what: str
) -> None:
    assert re.search(what, first_finding(resealed(store, sealed, change))["what"])


@pytest.mark.requirement("I5.seal.3", "W8")
@pytest.mark.parametrize("damaged", [False, True], ids=["as-signed", "with-another-digest"])
def test_a_file_of_nothing_but_line_ends_takes_no_more_than_a_few_times_its_size(
    store: Store, sealed: bytes, damaged: bool
) -> None:
    """Split into a list, each of the ends would take eight times the memory that it has in the file."""
    size = 256 * 1024
    ends = b"\n" * size
    data = resealed(
        store, sealed, lambda members: members.update({"columns.txt": ends, "events.jsonl": ends})
    )
    if damaged:
        data = data[: data.rindex(ends)] + b"x" + data[data.rindex(ends) + 1 :]
    tracemalloc.start()
    try:
        assert examine(data).sealed is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * size


@pytest.mark.requirement("I5.seal.3", "W8")
@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda data: data[:-1], "archive.truncated"),
        (lambda data: data[: len(data) // 2], "archive.truncated"),
        (lambda data: data + b"x", "archive.appended"),
        (lambda data: data + bytes(512), "archive.padding"),
        (lambda data: data + data, "archive.appended"),
        (lambda data: b"\x1f\x8b" + data, "archive.checksum"),
        (lambda _: write_tar([("../../etc/passwd", b"x")]), "archive.traversal"),
        (lambda _: b"", "archive.truncated"),
    ],
    ids=["a-byte-less", "half", "a-byte-more", "zeros-behind", "twice", "gzip", "slip", "empty"],
)
def test_a_container_that_is_not_whole_is_refused_by_name(
    sealed: bytes, made: Callable[[bytes], bytes], code: str
) -> None:
    try:
        data = made(sealed)
    except Exception as error:  # the writer refuses what the reader does
        assert getattr(error, "named_code", "") == code
        return
    assert examine(data).findings
    with pytest.raises(SealedError) as refused:
        take_apart(data)
    assert refused.value.named_code == code


@pytest.mark.requirement("I5.seal.3")
def test_members_in_another_order_or_twice_are_noticed(sealed: bytes) -> None:
    members = [(name, bytes(body)) for name, body in take_apart(sealed).bodies.items()]
    swapped = [*members[:2], members[3], members[2], *members[4:]]
    assert "not the member that belongs there" in first_finding(write_tar(swapped))["what"]
    twice = write_tar(members[:3])[:-1024] + write_tar(members[2:])
    assert first_finding(twice)["what"].count("the same name stands there twice") == 1
    assert "missing" in first_finding(write_tar(members[:-1]))["what"]


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=2000))
@pytest.mark.requirement("I5.seal.3")
def test_whatever_bytes_come_the_answer_is_a_finding(data: bytes) -> None:
    assert examine(data).findings


@pytest.mark.requirement("I5.seal.1")
def test_a_run_that_goes_on_or_is_nested_or_unsigned_is_not_sealed(store: Store) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.run_started(), run=facts.OTHER)])
    with store.reader() as reader, pytest.raises(UsageError, match="is not over"):
        read_run(reader, facts.OTHER, bundles=lambda _: FILES, prices=nothing_known)
    content(store)
    with store.reader() as reader, pytest.raises(UsageError, match="nested in another") as refused:
        read_run(reader, CHILD, bundles=lambda _: FILES, prices=nothing_known)
    assert refused.value.hint == f"rlp export-run {facts.RUN}"


@pytest.mark.requirement("I5.seal.1")
def test_bytes_that_the_ledger_lost_are_named(store: Store) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.run_started(), run=facts.RUN)])
        ledger.append([facts.draft(facts.scheduled(), run=facts.RUN)])
        ledger.append([facts.draft(facts.run_finished(), run=facts.RUN)])
    with store.reader() as reader, pytest.raises(FailedError, match="are not in this ledger") as refused:
        read_run(reader, facts.RUN, bundles=lambda _: FILES, prices=nothing_known)
    assert refused.value.named_code == "seal.blob"
