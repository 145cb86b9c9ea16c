"""Every format there ever was can be read, for ever; and none changes without a version of its own."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.connection import LEDGER
from pog.ledger import Ledger
from pog.maintain import verify
from pog.maintain.migrate import migrate
from pog.materializer import Materializer
from pog.reader import Reader
from runloop import events
from runloop.clock import SystemClock
from runloop.errors import UsageError
from runloop.events import KINDS, UPCASTS, ContactUpserted, Event, Payload, decode_payload, encode_payload
from tests.histories.formats import FOLDER, place, samples, schema

FORMATS = sorted(FOLDER.glob("*.json"))
LEDGERS = sorted((Path(__file__).parent / "ledgers").glob("*.db.gz"))
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def recorded(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.requirement("L9")
@pytest.mark.parametrize("path", FORMATS, ids=[path.stem for path in FORMATS])
def test_a_payload_of_every_format_there_was_is_read(path: Path) -> None:
    format = recorded(path)
    assert path == place(format["kind"], format["version"])
    for payload in format["payloads"]:
        found = decode_payload(format["kind"], payload, format["version"])
        assert type(found) is KINDS[format["kind"]]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_does_not_change_without_a_new_version(kind: str) -> None:
    payload = KINDS[kind]
    path = place(kind, payload.version)
    assert path.exists(), f"{kind} v{payload.version} is new: python -m tests.histories.formats"
    format = recorded(path)
    assert schema(payload) == format["schema"], (
        f"{kind} changed and is still version {payload.version}: give it the next version and an upcast "
        f"(runloop.events), then python -m tests.histories.formats"
    )
    whole, least = format["payloads"]
    assert [whole, least] == list(samples(payload))
    assert encode_payload(decode_payload(kind, whole, payload.version)) == whole


def test_every_step_between_versions_is_there_and_none_too_many() -> None:
    wanted = {(kind, step) for kind, payload in KINDS.items() for step in range(1, payload.version)}
    assert set(UPCASTS) == wanted
    assert {path.name for path in FORMATS} == {
        place(kind, version).name
        for kind, payload in KINDS.items()
        for version in range(1, payload.version + 1)
    }


# --- a kind that changed twice --------------------------------------------------------------------


class Third(Payload, frozen=True, kw_only=True):
    """What a contact may look like two versions on: names apart, e-mail addresses with their kind."""

    kind: ClassVar[str] = ContactUpserted.kind
    version: ClassVar[int] = 3
    contact: str
    names: list[str]
    emails: dict[str, str]


def _names_apart(fields: dict[str, Any]) -> dict[str, Any]:
    return {"contact": fields.pop("contact"), "names": fields.pop("name").split(), "emails": fields["emails"]}


def _emails_by_kind(fields: dict[str, Any]) -> dict[str, Any]:
    fields["emails"] = {f"email{number}": text for number, text in enumerate(fields["emails"])}
    return fields


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, Third.kind, Third)
    monkeypatch.setattr(events, "UPCASTS", {(Third.kind, 1): _names_apart, (Third.kind, 2): _emails_by_kind})


FIRST = {"contact": "c", "name": "John Doe", "emails": ["a@example.org"], "note": "gone"}


@pytest.mark.requirement("L9")
@pytest.mark.usefixtures("changed")
def test_an_old_version_is_brought_up_one_step_at_a_time_and_left_as_it_was() -> None:
    given = dict(FIRST)
    assert decode_payload(Third.kind, given, 1) == Third(
        contact="c", names=["John", "Doe"], emails={"email0": "a@example.org"}
    )
    assert given == FIRST
    second = {"contact": "c", "names": ["J"], "emails": []}
    assert decode_payload(Third.kind, second, 2) == Third(contact="c", names=["J"], emails={})
    assert decode_payload(Third.kind, {**second, "emails": {}}) == Third(contact="c", names=["J"], emails={})


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize(
    ("version", "value", "code"),
    [
        (4, FIRST, "event.version"),
        (0, FIRST, "event.version"),
        (1, {"contact": "c"}, "event.shape"),
        (1, [], "event.shape"),
        (1, None, "event.shape"),
        (2, FIRST, "event.shape"),
        (3, FIRST, "event.shape"),
    ],
)
def test_what_cannot_be_brought_up_is_refused_by_name(version: int, value: Any, code: str) -> None:
    with pytest.raises(UsageError) as refused:
        decode_payload(Third.kind, value, version)
    assert refused.value.named_code == code


@pytest.mark.usefixtures("changed")
def test_a_missing_step_is_said_and_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "UPCASTS", {(Third.kind, 1): _names_apart})
    with pytest.raises(UsageError, match="no way from version 2"):
        decode_payload(Third.kind, FIRST, 1)


def _stored(path: Path, text: bytes) -> None:
    """A ledger whose first event is a contact as version 1 wrote it."""
    with Ledger.open(path, signing_key=KEY) as ledger:
        payload = ContactUpserted(**msgspec.json.decode(text))
        ledger.append([events.Draft(payload=payload, actor="daemon")])


@pytest.mark.requirement("L9")
def test_a_ledger_with_events_of_an_old_version_verifies_and_is_read_as_the_newest(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "events.db"
    _stored(path, msgspec.json.encode(FIRST))
    before = path.read_bytes()
    request.getfixturevalue("changed")
    with Reader(path) as reader:
        (event,) = reader.events()
    assert event.payload == Third(contact="c", names=["John", "Doe"], emails={"email0": "a@example.org"})
    assert verify(path, public_key=KEY.public_key()).ok  # the chain is over the bytes as they were written
    assert path.read_bytes() == before
    assert event.to_json()["version"] == 3
    assert Event.from_json(event.to_json()) == event
    old = {**event.to_json(), "payload": FIRST}
    del old["version"]  # as builds wrote events before versions were told
    assert Event.from_json(old).payload == event.payload


# --- ledger files ---------------------------------------------------------------------------------


@pytest.fixture(params=LEDGERS, ids=[path.name.partition(".")[0] for path in LEDGERS])
def laid(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Path]:
    def lay() -> Path:
        path = tmp_path / "pog" / "events.db"
        path.parent.mkdir(mode=0o700)
        path.write_bytes(gzip.decompress(request.param.read_bytes()))
        return path

    return lay


@pytest.mark.requirement("L9")
def test_a_ledger_file_of_every_version_there_was_opens_verifies_and_folds(laid: Callable[[], Path]) -> None:
    path = laid()
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        history = connection.execute("SELECT id, hash FROM events ORDER BY id").fetchall()
    done = migrate(path, key=KEY, clock=SystemClock())
    assert (done.before, done.after) == (version, LEDGER.version)
    with (
        Ledger.open(path, signing_key=KEY) as ledger,
        Materializer.open(path.with_name("v.db"), path) as views,
    ):
        assert (ledger.head.id, ledger.head.hash) == history[-1]
        views.catch_up()
        assert views.quarantined() == []
    report = verify(path, public_key=KEY.public_key(), views_path=path.with_name("v.db"))
    assert report.ok and report.events == len(history) > 30, report.findings


def test_there_is_a_ledger_file_of_every_version() -> None:
    assert [path.name for path in LEDGERS] == [f"v{number}.db.gz" for number in range(1, LEDGER.version + 1)]
