"""Who may publish here: read strictly, widened by a person only, narrowed at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runloop.bundle.installed import Installation
from runloop.bundle.trust import TrustFileError, parse_trust
from runloop.errors import NotFoundError, RefusedError, RunloopError, UsageError
from runloop.testing import ManualClock
from runloopd.authority.anchors import Anchors
from runloopd.authority.approvals import Approvals
from runloopd.authority.desk import Desk, Outcome
from runloopd.bus.principal import Principal
from tests.bundles import ACME, EVE, trust_toml

from .journal import MemoryJournal

OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)
KEY = str(ACME.public)


class Town:
    def __init__(self, home: Path) -> None:
        self.file, self.system = home / "trust.toml", home / "system.toml"
        self.clock = ManualClock()
        self.journal = MemoryJournal(self.clock)
        self.approvals = Approvals(self.journal, self.clock)
        self.desk = Desk(self.approvals)
        self.anchors = Anchors(self.file, self.journal, self.approvals, self.desk, system_file=self.system)

    def write(self, text: str) -> None:
        self.file.write_text(text)
        self.file.chmod(0o600)

    async def ask(self, publisher: str = "acme", key: str = KEY, **more: Any) -> dict[str, Any]:
        wanted: dict[str, Any] = {"names": ["acme_*"], "capabilities": None, "expires": None, **more}
        return await self.anchors.ask_add(publisher, key, **wanted)

    async def decide(self, asked: dict[str, Any], decision: str = "approve") -> Outcome:
        approval = self.approvals.find(asked["approval"])
        digest = approval.action_digest
        await self.approvals.decide(OPERATOR, approval.id, digest, decision, confirm=digest)
        outcome = await self.desk.outcome(approval.id, 10.0)
        assert outcome is not None
        return outcome

    async def add(self, *words: str, **more: Any) -> Outcome:
        outcome = await self.decide(await self.ask(*words, **more))
        assert outcome.error is None, outcome.error
        return outcome


@pytest.fixture
async def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def code(caught: pytest.ExceptionInfo[RunloopError]) -> str:
    return caught.value.named_code


async def test_without_files_nobody_is_trusted(town: Town) -> None:
    assert town.anchors.trust().anchors == {}


@pytest.mark.requirement("C8")
async def test_a_publisher_is_trusted_after_a_yes_and_not_before(town: Town) -> None:
    asked = await town.ask()
    assert town.anchors.trust().anchors == {}
    assert not town.file.exists()
    await town.decide(asked)
    anchor = town.anchors.trust().anchors["acme"]
    assert [str(key) for key in anchor.keys] == [KEY]
    assert anchor.names == ("acme_*",)
    assert town.file.stat().st_mode & 0o777 == 0o600
    (fact,) = town.journal.payloads("trust.changed")
    assert (fact.change, fact.subject, fact.before) == ("add", "acme", {})
    assert fact.approval == asked["approval"]


async def test_a_no_trusts_nobody(town: Town) -> None:
    await town.decide(await town.ask(), "deny")
    assert not town.file.exists()
    assert town.journal.payloads("trust.changed") == []


async def test_the_question_shows_key_and_bounds(town: Town) -> None:
    await town.ask(capabilities=["net"], expires="2090-01-31")
    text = town.journal.blobs[0].decode()
    for words in ("acme", ACME.key_id, KEY, "acme_*", "net", "2090-01-31"):
        assert words in text


async def test_bounds_are_written_and_read_back(town: Town) -> None:
    await town.add(capabilities=["net", "time"], expires="2090-01-31")
    anchor = town.anchors.trust().anchors["acme"]
    assert anchor.capabilities == frozenset({"net", "time"})
    assert town.anchors.shown()["anchors"][0]["expires"] == "2090-01-31"


async def test_a_second_key_is_added_beside_the_first(town: Town) -> None:
    await town.add()
    await town.add("acme", str(EVE.public))
    assert len(town.anchors.trust().anchors["acme"].keys) == 2
    assert (await town.ask("acme", str(EVE.public)))["state"] == "current"


async def test_other_entries_survive_a_change(town: Town) -> None:
    town.write(
        trust_toml("eve", EVE, ["eve_*"]) + f'[[revoked]]\nbundle = "{"0" * 64}"\nreason = "bad \\"one\\""\n'
    )
    await town.add()
    trust = town.anchors.trust()
    assert set(trust.anchors) == {"acme", "eve"}
    assert [row.reason for row in trust.revoked] == ['bad "one"']


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("acme", "rubbish"), {}),
        (("dev", KEY), {}),
        (("runloop", KEY), {}),
        (("acme", KEY), {"names": ["A B"]}),
        (("acme", KEY), {"capabilities": ["nte"]}),
        (("acme", KEY), {"expires": "soon"}),
    ],
)
async def test_an_entry_no_reader_would_take_is_not_asked_about(
    town: Town, words: tuple[str, str], more: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        await town.ask(*words, **more)
    assert town.journal.events == []


async def test_one_key_cannot_be_two_publishers(town: Town) -> None:
    await town.add()
    with pytest.raises(TrustFileError):
        await town.ask("eve", KEY, names=["eve_*"])


async def test_a_file_changed_between_question_and_yes_is_not_overwritten(town: Town) -> None:
    asked = await town.ask()
    town.write(trust_toml("acme", EVE))
    outcome = await town.decide(asked)
    assert outcome.error is not None
    assert outcome.error.named_code == "trust.changed"
    assert [str(key) for key in town.anchors.trust().anchors["acme"].keys] == [str(EVE.public)]


async def test_the_system_file_cannot_be_widened_by_its_user(town: Town) -> None:
    town.system.write_text("version = 1\nonly = true\n")
    with pytest.raises(RefusedError) as caught:
        await town.ask()
    assert code(caught) == "trust.system"
    town.write(trust_toml())
    assert town.anchors.trust().anchors == {}


async def test_removing_and_revoking_need_no_yes_and_are_recorded(town: Town) -> None:
    await town.add()
    await town.anchors.remove(OPERATOR, "acme")
    assert town.anchors.trust().anchors == {}
    done = await town.anchors.revoke(OPERATOR, KEY, "stolen")
    assert done["subject"] == ACME.key_id
    again = await town.anchors.revoke(OPERATOR, ACME.key_id, "stolen")
    assert again["event"] is None
    assert [fact.change for fact in town.journal.payloads("trust.changed")] == ["add", "remove", "revoke"]
    with pytest.raises(NotFoundError):
        await town.anchors.remove(OPERATOR, "acme")


@pytest.mark.parametrize("subject", ["", "rubbish", "ed25519:xx", "A" * 64, "0" * 63])
async def test_only_a_key_or_a_bundle_can_be_revoked(town: Town, subject: str) -> None:
    with pytest.raises(UsageError):
        await town.anchors.revoke(OPERATOR, subject, "why")
    assert not town.file.exists()


HOSTILE = ['"\n[anchors.eve]\nkeys = []', "\x1b[2J", "a\\", "'''", "\u202e", "\x7f", "=\n\n[[revoked]]"]


@pytest.mark.parametrize("reason", HOSTILE)
async def test_a_reason_stays_a_reason_whatever_is_in_it(town: Town, reason: str) -> None:
    await town.add()
    await town.anchors.revoke(OPERATOR, "0" * 64, reason)
    trust = town.anchors.trust()
    assert [row.reason for row in trust.revoked] == [reason]
    assert set(trust.anchors) == {"acme"}


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
async def test_a_file_others_may_write_is_not_believed(town: Town, mode: int) -> None:
    town.write(trust_toml())
    town.file.chmod(mode)
    with pytest.raises(TrustFileError, match="others may write"):
        town.anchors.trust()


async def test_what_is_no_plain_file_is_not_believed(town: Town) -> None:
    town.file.mkdir()
    with pytest.raises(TrustFileError):
        town.anchors.trust()
    town.file.rmdir()
    os.mkfifo(town.file, 0o600)
    with pytest.raises(TrustFileError):
        town.anchors.trust()


async def test_a_change_of_the_file_is_seen_at_the_next_look(town: Town) -> None:
    town.write(trust_toml())
    assert set(town.anchors.trust().anchors) == {"acme"}
    town.write("version = 1\n")
    assert town.anchors.trust().anchors == {}


async def test_what_is_written_is_what_the_reader_takes(town: Town) -> None:
    await town.add(capabilities=["net"], expires="2090-01-31")
    await town.anchors.revoke(OPERATOR, "0" * 64, "bad")
    assert parse_trust(town.file.read_bytes()) == town.anchors.trust()


# --- objections -----------------------------------------------------------------------------------


def installed(**more: Any) -> Installation:
    fields: dict[str, Any] = {
        "name": "acme_echo", "variant": "default", "version": "1.0.0", "bundle": "a" * 64,
        "archive_sha256": "", "attestation_blob": "", "publisher": "acme", "key": ACME.key_id, "dev": False,
        "how": "install", "event": 1, "installed_ms": 0,
    }  # fmt: skip
    return Installation(**(fields | more))


async def test_nothing_is_said_against_an_agent_whose_anchor_was_only_removed(town: Town) -> None:
    assert town.anchors.objection(installed()) is None


@pytest.mark.parametrize("subject", [ACME.key_id, "a" * 64])
async def test_a_revoked_key_or_bundle_is_an_objection(town: Town, subject: str) -> None:
    await town.anchors.revoke(OPERATOR, subject, "stolen")
    objection = town.anchors.objection(installed())
    assert objection is not None
    assert "stolen" in objection.message
    assert town.anchors.objection(installed(key=EVE.key_id, bundle="b" * 64)) is None


async def test_when_nobody_can_tell_nothing_starts(town: Town) -> None:
    town.write("rubbish")
    objection = town.anchors.objection(installed())
    assert objection is not None
    assert objection.named_code == "trust.unknown"
