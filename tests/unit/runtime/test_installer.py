"""Installing: judged, staged, asked, committed by one fact; and everything that must not be installed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runloop.bundle.archive import pack, unpack
from runloop.bundle.index import IndexRevocation
from runloop.bundle.signature import SigningKey
from runloop.bundle.statement import sign_package
from runloop.errors import FailedError, NotFoundError, RefusedError, RunloopError, UsageError
from runloop.events import ActionDecided, AgentInstalled, TrustChanged
from runloopd.runtime.install_rules import Wish
from runloopd.runtime.store import attestations_of
from tests.bundles import ACME, DAY_MS, EVE, Built, build, index_of, trust_toml
from tests.unit.runtime.installing import OPERATOR, Shop, settled

DEV = SigningKey.from_seed(bytes(32))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = await Shop(tmp_path / "home").open()
    yield made
    await made.close()


def code(caught: pytest.ExceptionInfo[RunloopError]) -> str:
    return caught.value.named_code


def how(shop: Shop) -> list[str]:
    return [event.payload.how for event in shop.facts("agent.installed")]  # type: ignore[attr-defined]


# --- the ordinary way -----------------------------------------------------------------------------


@pytest.mark.requirement("C8")
async def test_nothing_is_installed_before_a_person_says_yes(shop: Shop) -> None:
    built = build()
    asked = await shop.propose(built)
    assert asked["state"] == "waiting"
    assert shop.current() is None
    assert shop.kept() == []
    assert shop.staged() == [built.digest]
    with pytest.raises(NotFoundError):
        shop.registry.resolve("agent:acme_echo")


async def test_a_yes_installs_it_at_once_for_new_runs(shop: Shop) -> None:
    built = build()
    outcome = await shop.install(built)
    assert outcome.result is not None
    assert outcome.result["version"] == "1.0.0"
    agent = shop.registry.resolve("agent:acme_echo")
    assert agent.bundle_digest == built.digest
    assert agent.origin == "installed"
    assert not agent.dev
    assert (shop.kept(), shop.staged()) == ([built.digest], [])


async def test_the_question_names_everything_the_yes_is_bound_to(shop: Shop) -> None:
    built = build(ops=["time.now"], caps="time = true\n")
    asked = await shop.propose(built)
    approval = shop.approvals.find(asked["approval"])
    action = approval.action
    assert (action["name"], action["version"], action["publisher"]) == ("acme_echo", "1.0.0", "acme")
    assert action["key"] == ACME.key_id
    assert action["bundle"] == built.digest
    assert action["archive_sha256"] == unpack(built.data).tar_sha256
    assert action["dev"] is False
    assert action["replaces"] is None
    (row,) = action["capabilities"]["rows"]
    assert (row["capability"], row["before"], row["now"]) == ("time", False, True)
    text = shop.reader.blob(approval.content_blob).decode()
    for words in ("acme_echo", "1.0.0", ACME.key_id, built.digest, "time"):
        assert words in text


async def test_the_fact_and_the_use_of_the_yes_are_one_transaction(shop: Shop) -> None:
    await shop.install(build())
    claimed, installed = shop.facts("action.claimed", "agent.installed")
    assert installed.id == claimed.id + 1
    payload = installed.payload
    assert isinstance(payload, AgentInstalled)
    assert payload.approval == claimed.payload.approval  # type: ignore[attr-defined]
    assert shop.reader.blob(payload.attestation_blob).count(b"\n") == 2
    requested, decided = shop.facts("action.requested", "action.decided")
    assert installed.provenance.causes == (requested.id, decided.id)


async def test_a_no_leaves_nothing_behind_and_may_be_asked_again(shop: Shop) -> None:
    outcome = await shop.decide(await shop.propose(build()), "deny")
    assert outcome.state == "denied"
    assert (shop.current(), shop.staged(), shop.kept()) == (None, [], [])
    await shop.install(build())
    assert shop.current() == "1.0.0"


async def test_an_unanswered_question_expires_and_its_bytes_go(shop: Shop) -> None:
    asked = await shop.propose(build())
    shop.clock.advance(60_001)
    await shop.approvals.expire_due()
    outcome = await shop.desk.outcome(asked["approval"], 10)
    assert outcome is not None
    assert outcome.state == "expired"
    assert (shop.current(), shop.staged()) == (None, [])


async def test_the_same_wish_is_one_question(shop: Shop) -> None:
    first, second = await shop.propose(build()), await shop.propose(build())
    assert first["approval"] == second["approval"]
    assert len(shop.facts("action.requested")) == 1


async def test_another_bundle_of_the_same_name_voids_the_older_question(shop: Shop) -> None:
    old = await shop.propose(build("1.0.0"))
    new = await shop.propose(build("1.0.1"))
    await settled()
    assert (await shop.desk.outcome(old["approval"], 10)).state == "voided"  # type: ignore[union-attr]
    assert shop.staged() == [build("1.0.1").digest]
    await shop.decide(new)
    assert shop.current() == "1.0.1"


async def test_bytes_signed_again_by_a_second_trusted_key_are_a_new_question_with_its_bytes(
    shop: Shop,
) -> None:
    shop.trust(f'version = 1\n[anchors.acme]\nkeys = ["{ACME.public}", "{EVE.public}"]\nnames = ["acme_*"]\n')
    old = await shop.propose(build())
    new = await shop.propose(build(key=EVE))
    assert old["approval"] != new["approval"]
    outcome = await shop.decide(new)
    assert outcome.state == "done"
    assert shop.installed.current("acme_echo").key == EVE.key_id  # type: ignore[union-attr]


async def test_what_is_current_already_is_no_question(shop: Shop) -> None:
    await shop.install(build())
    assert (await shop.propose(build()))["state"] == "current"
    assert len(shop.facts("action.requested")) == 1


async def test_damaged_bytes_are_put_back_from_the_same_file(shop: Shop) -> None:
    built = build()
    await shop.install(built)
    (shop.store.kept / built.digest / "agent.py").write_text("evil = True\n")
    with pytest.raises(RefusedError, match="not the one that was installed"):
        shop.registry.resolve("agent:acme_echo")
    assert (await shop.propose(built))["state"] == "mended"
    assert shop.registry.resolve("agent:acme_echo").bundle_digest == built.digest


async def test_a_component_that_does_not_compile_is_not_even_asked_about(shop: Shop) -> None:
    shop.prepare_error = RefusedError("not a component", hint="build it again")
    built = build(language="component", entrypoint="agent.wasm", files={"agent.wasm": b"\0asm\x0d\0\1\0"})
    with pytest.raises(RefusedError, match="not a component"):
        await shop.propose(built)
    assert shop.prepared == ["acme_echo"]
    assert (shop.facts("action.requested"), shop.staged()) == ([], [])


async def test_a_bundle_with_a_mistake_names_its_own_file_and_no_folder_of_ours(shop: Shop) -> None:
    with pytest.raises(RunloopError, match=r"^bundle/policy\.caps: ") as caught:
        await shop.propose(build(caps="everything = true\n"))
    assert str(shop.home) not in caught.value.message


# --- versions: M10 --------------------------------------------------------------------------------


async def test_an_upgrade_shows_what_was_asked_what_is_asked_and_what_was_used(shop: Shop) -> None:
    await shop.install(build("1.0.0", ops=["time.now", "random.bytes"], caps="time = true\nrandom = true\n"))
    shop.used = [("time", "")]
    asked = await shop.propose(
        build("1.1.0", ops=["time.now", "kb.search"], caps='time = true\nkb_read = ["notes"]\n')
    )
    assert asked["how"] == "upgrade"
    action = shop.approvals.find(asked["approval"]).action
    rows = {
        row["capability"]: (row["before"], row["now"], row["used"]) for row in action["capabilities"]["rows"]
    }
    assert rows == {
        "time": (True, True, True),
        "random": (True, False, False),
        "kb_read": (False, True, False),
    }
    assert action["widening"] is True
    assert action["replaces_version"] == "1.0.0"
    await shop.decide(asked)
    assert shop.current() == "1.1.0"


@pytest.mark.requirement("I3.install.3", "M10")
async def test_an_older_version_is_refused_unless_asked_for_and_then_recorded(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    await shop.install(build("2.0.0"))
    with pytest.raises(RefusedError) as caught:
        await shop.propose(build("1.5.0"))
    assert code(caught) == "install.downgrade"
    await shop.install(build("1.5.0"), allow_downgrade=True)
    assert shop.current() == "1.5.0"
    assert how(shop) == ["install", "upgrade", "downgrade"]
    (*_, requested) = shop.facts("action.requested")
    assert requested.payload.action["wish"]["allow_downgrade"] is True  # type: ignore[attr-defined]


@pytest.mark.requirement("M10")
async def test_neither_removal_nor_rollback_forgets_the_highest_version(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    await shop.install(build("2.0.0"))
    await shop.installer.rollback(OPERATOR, "acme_echo", "default")
    for _ in range(2):
        with pytest.raises(RefusedError) as caught:
            await shop.propose(build("1.5.0"))
        assert code(caught) == "install.downgrade"
        if shop.current():
            await shop.installer.remove(OPERATOR, "acme_echo", "default", release=False)


async def test_one_version_has_one_content(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    for wish in ({}, {"allow_downgrade": True}):
        with pytest.raises(RefusedError) as caught:
            await shop.propose(build("1.0.0", description="Says another word"), **wish)
        assert code(caught) == "install.same_version"


async def test_build_metadata_makes_no_other_version(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    with pytest.raises(RefusedError) as caught:
        await shop.propose(build("1.0.0+fixed"))
    assert code(caught) == "install.same_version"


async def test_a_bundle_for_a_newer_runloop_is_refused(shop: Shop) -> None:
    with pytest.raises(RefusedError) as caught:
        await shop.propose(build(min_runloop="99.0.0"))
    assert code(caught) == "install.min_runloop"


# --- going back -----------------------------------------------------------------------------------


async def test_a_rollback_that_grants_nothing_new_happens_at_once_and_is_recorded(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    await shop.install(build("1.1.0", ops=["time.now"], caps="time = true\n"))
    done = await shop.installer.rollback(OPERATOR, "acme_echo", "default")
    assert (done["state"], done["version"], done["replaced"]) == ("done", "1.0.0", "1.1.0")
    assert shop.registry.resolve("agent:acme_echo").manifest.version == "1.0.0"
    last = shop.facts("agent.installed")[-1].payload
    assert isinstance(last, AgentInstalled)
    assert (last.how, last.approval, last.replaces) == (
        "rollback",
        None,
        build("1.1.0", ops=["time.now"], caps="time = true\n").digest,
    )


@pytest.mark.requirement("C8")
async def test_a_rollback_that_would_widen_needs_a_person(shop: Shop) -> None:
    await shop.install(build("1.0.0", ops=["time.now"], caps="time = true\n"))
    await shop.install(build("1.1.0"))
    asked = await shop.installer.rollback(OPERATOR, "acme_echo", "default")
    assert asked["state"] == "waiting"
    assert shop.current() == "1.1.0"
    await shop.decide(asked)
    assert shop.current() == "1.0.0"
    assert how(shop)[-1] == "rollback"


async def test_there_is_no_way_back_from_the_first_version(shop: Shop) -> None:
    await shop.install(build())
    with pytest.raises(NotFoundError) as caught:
        await shop.installer.rollback(OPERATOR, "acme_echo", "default")
    assert code(caught) == "agent.previous"


async def test_a_rollback_to_a_revoked_bundle_is_refused(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    await shop.install(build("1.1.0"))
    await shop.installer.revoke(OPERATOR, build("1.0.0").digest, "has a hole")
    with pytest.raises(RefusedError) as caught:
        await shop.installer.rollback(OPERATOR, "acme_echo", "default")
    assert code(caught) == "trust.bundle_revoked"
    assert shop.current() == "1.1.0"


async def test_a_removed_agent_serves_no_new_run_and_its_bytes_stay(shop: Shop) -> None:
    built = build()
    await shop.install(built)
    await shop.installer.remove(OPERATOR, "acme_echo", "default", release=False)
    with pytest.raises(NotFoundError):
        shop.registry.resolve("agent:acme_echo")
    assert shop.kept() == [built.digest]
    with pytest.raises(NotFoundError):
        await shop.installer.remove(OPERATOR, "acme_echo", "default", release=False)


# --- who signed it: M9 ----------------------------------------------------------------------------

OTHER = trust_toml() + f'[anchors.other]\nkeys = ["{EVE.public}"]\nnames = ["acme_*"]\n'


@pytest.mark.requirement("M9")
@pytest.mark.parametrize(
    ("built", "wanted"),
    [
        (build(key=None), "trust.unsigned"),
        (build(key=EVE), "trust.unknown_key"),
        (build(name="echo"), "trust.name"),
    ],
    ids=["unsigned", "another key", "a name it may not publish"],
)
async def test_a_bundle_nobody_here_vouches_for_is_refused(shop: Shop, built: Built, wanted: str) -> None:
    with pytest.raises(RefusedError) as caught:
        await shop.propose(built)
    assert code(caught) == wanted
    assert (shop.facts(), shop.staged()) == ([], [])


@pytest.mark.requirement("M9")
@pytest.mark.requirement("M4")
@pytest.mark.parametrize("key", [None, EVE], ids=["unsigned", "a stranger's"])
@pytest.mark.parametrize("name", ["manifest.toml", "policy.caps", "tools.json", "agent.py"])
async def test_nothing_that_nobody_here_signed_is_parsed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, key: SigningKey | None, name: str
) -> None:
    made = unpack(build(key=None).data)
    files = {**made.files, name: b"\xff = [[[ not even text"}
    data = pack(files, made.envelopes if key is None else [one.signed(key) for one in made.envelopes])
    parsed: list[Any] = []
    monkeypatch.setattr(shop.registry, "examine", lambda *given: parsed.append(given))
    with pytest.raises(RefusedError) as caught:
        await shop.installer.install(OPERATOR, data, Wish())
    assert code(caught) == ("trust.unsigned" if key is None else "trust.unknown_key")
    assert not parsed


async def test_a_name_stays_with_the_publisher_that_had_it_first(shop: Shop) -> None:
    shop.trust(OTHER)
    await shop.install(build("1.0.0"))
    with pytest.raises(RefusedError) as caught:
        await shop.propose(build("1.1.0", key=EVE))
    assert code(caught) == "trust.owner"
    await shop.installer.remove(OPERATOR, "acme_echo", "default", release=False)
    with pytest.raises(RefusedError):
        await shop.propose(build("1.1.0", key=EVE))


async def test_a_released_name_may_be_taken_by_another_publisher_after_a_yes(shop: Shop) -> None:
    shop.trust(OTHER)
    await shop.install(build("1.0.0"))
    await shop.installer.remove(OPERATOR, "acme_echo", "default", release=True)
    await shop.install(build("1.1.0", key=EVE))
    assert shop.installed.owner("acme_echo") == "other"


async def test_a_name_can_be_released_after_its_agent_was_removed(shop: Shop) -> None:
    shop.trust(OTHER)
    await shop.install(build("1.0.0"))
    await shop.installer.remove(OPERATOR, "acme_echo", "default", release=False)
    await shop.installer.remove(OPERATOR, "acme_echo", "default", release=True)
    assert shop.installed.owner("acme_echo") is None
    with pytest.raises(NotFoundError):
        await shop.installer.remove(OPERATOR, "acme_echo", "default", release=True)
    await shop.install(build("1.1.0", key=EVE))
    assert shop.installed.owner("acme_echo") == "other"


async def test_a_shipped_name_is_nobodys(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "home", trusted=False)
    shop.trust(trust_toml(names=["*"]))
    shop.shipped = {"writer": "0" * 64}
    await shop.open()
    with pytest.raises(RefusedError) as caught:
        await shop.propose(build(name="writer"))
    assert code(caught) == "install.shipped_name"
    with pytest.raises(RefusedError):
        await shop.installer.remove(OPERATOR, "writer", "default", release=False)
    await shop.close()


@pytest.mark.requirement("M9")
async def test_every_flipped_part_of_a_bundle_file_is_refused(shop: Shop) -> None:
    data = build().data
    for at in range(0, len(data), 97):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(RunloopError):
            await shop.installer.install(OPERATOR, bytes(broken), Wish())
    for broken_file in (data[:-1], data[: len(data) // 2], data + b"x", data + bytes(512), b""):
        with pytest.raises(RefusedError):
            await shop.installer.install(OPERATOR, broken_file, Wish())
    assert (shop.facts(), shop.staged()) == ([], [])


# --- the development key --------------------------------------------------------------------------


async def test_a_development_key_is_taken_only_when_meant_and_shown_everywhere(shop: Shop) -> None:
    shop.dev = DEV
    built = build(name="mine", key=DEV)
    with pytest.raises(RefusedError) as caught:
        await shop.propose(built)
    assert code(caught) == "trust.dev"
    outcome = await shop.install(built, dev_key=True)
    assert outcome.result is not None
    assert outcome.result["dev"] is True
    agent = shop.registry.resolve("agent:mine")
    assert agent.dev
    assert agent.to_json()["dev"] is True
    assert [one["dev"] for one in (found.to_json() for found in shop.registry.list())] == [True]


async def test_an_author_may_build_one_version_many_times(shop: Shop) -> None:
    shop.dev = DEV
    await shop.install(build(name="mine", key=DEV), dev_key=True)
    await shop.install(build(name="mine", key=DEV, description="better"), dev_key=True)
    assert shop.registry.resolve("agent:mine").manifest.description == "better"


async def test_the_next_build_of_an_author_takes_its_place_without_a_question(shop: Shop) -> None:
    shop.dev = DEV
    first = await shop.propose(build(name="mine", key=DEV), dev_key=True, dev_swap=True)
    assert first["state"] == "waiting", "the first build is a person's to allow"
    await shop.decide(first)
    swapped = await shop.propose(
        build(name="mine", key=DEV, description="better"), dev_key=True, dev_swap=True
    )
    assert (swapped["state"], swapped["how"], swapped["dev"]) == ("done", "swap", True)
    assert shop.registry.resolve("agent:mine").manifest.description == "better"
    fact = shop.facts("agent.installed")[-1].payload
    assert (fact.how, fact.approval, fact.replaces) == ("swap", None, first["bundle"])  # type: ignore[union-attr]
    assert shop.staged() == []
    await shop.restart()
    assert shop.registry.resolve("agent:mine").manifest.description == "better"


async def test_a_build_that_may_do_more_is_a_question_again(shop: Shop) -> None:
    shop.dev = DEV
    await shop.install(build(name="mine", key=DEV), dev_key=True)
    wider = build(name="mine", key=DEV, caps="time = true\n", ops=["time.now"])
    asked = await shop.propose(wider, dev_key=True, dev_swap=True)
    assert asked["state"] == "waiting"
    assert shop.facts("agent.installed")[-1].payload.how == "install"  # type: ignore[union-attr]


async def test_only_the_authors_own_builds_swap(shop: Shop) -> None:
    shop.dev = DEV
    await shop.install(build())
    asked = await shop.propose(build("1.1.0"), dev_key=True, dev_swap=True)
    assert asked["state"] == "waiting", "a publisher's upgrade is a person's to allow, whatever is wished"


async def test_another_homes_development_key_is_an_unknown_key(shop: Shop) -> None:
    shop.dev = SigningKey.from_seed(bytes([9]) * 32)
    with pytest.raises(RefusedError) as caught:
        await shop.propose(build(name="mine", key=DEV), dev_key=True)
    assert code(caught) == "trust.unknown_key"


async def test_a_development_key_does_not_take_a_publishers_name(shop: Shop) -> None:
    shop.dev = DEV
    await shop.install(build())
    with pytest.raises(RefusedError) as caught:
        await shop.propose(build("2.0.0", key=DEV), dev_key=True)
    assert code(caught) == "trust.owner"


# --- between the question and the yes -------------------------------------------------------------


async def test_a_key_revoked_meanwhile_voids_the_question(shop: Shop) -> None:
    asked = await shop.propose(build())
    await shop.installer.revoke(OPERATOR, ACME.key_id, "stolen")
    outcome = await shop.desk.outcome(asked["approval"], 10)
    assert outcome is not None
    assert outcome.state == "voided"
    assert (shop.current(), shop.staged()) == (None, [])


async def test_a_trust_file_edited_meanwhile_is_heard(shop: Shop) -> None:
    asked = await shop.propose(build())
    shop.trust("version = 1\n")
    outcome = await shop.decide(asked)
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert outcome.error.named_code == "trust.unknown_key"
    assert (shop.current(), shop.staged(), shop.kept()) == (None, [], [])
    decisions = [event.payload for event in shop.facts("action.decided")]
    assert [one.decision for one in decisions if isinstance(one, ActionDecided)] == ["approved", "voided"]


@pytest.mark.parametrize("name", ["agent.py", "policy.caps"])
async def test_a_byte_changed_while_it_waited_is_not_installed(shop: Shop, name: str) -> None:
    built = build()
    asked = await shop.propose(built)
    file = shop.store.staged(built.digest) / name
    file.write_bytes(file.read_bytes() + b"\n")
    outcome = await shop.decide(asked)
    assert outcome.state == "failed"
    assert (shop.current(), shop.staged(), shop.kept()) == (None, [], [])


async def test_a_signature_exchanged_while_it_waited_is_not_what_the_person_saw(shop: Shop) -> None:
    shop.trust(f'version = 1\n[anchors.acme]\nkeys = ["{ACME.public}", "{EVE.public}"]\nnames = ["acme_*"]\n')
    built = build()
    asked = await shop.propose(built)
    lines = shop.store.staged(built.digest).parent / "attestations.jsonl"
    lines.write_bytes(attestations_of(unpack(build(key=EVE).data)))
    outcome = await shop.decide(asked)
    assert outcome.error is not None
    assert outcome.error.named_code == "install.changed"
    assert shop.current() is None


async def test_a_yes_to_a_question_that_was_overtaken_installs_nothing(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    await shop.install(build("1.1.0"))
    asked = await shop.propose(build("2.0.0"))
    await shop.installer.rollback(OPERATOR, "acme_echo", "default")
    outcome = await shop.decide(asked)
    assert outcome.error is not None
    assert outcome.error.named_code == "install.changed"
    assert shop.current() == "1.0.0"


# --- restarts -------------------------------------------------------------------------------------


async def test_an_open_question_and_its_bytes_survive_a_restart(shop: Shop) -> None:
    asked = await shop.propose(build())
    await shop.restart()
    outcome = await shop.decide(asked["approval"])
    assert outcome.state == "done"
    assert shop.current() == "1.0.0"


async def test_a_yes_that_was_not_carried_out_is_carried_out_after_a_restart(shop: Shop) -> None:
    asked = await shop.propose(build())
    await shop.desk.close()  # killed between the answer and the fact
    approval = shop.approvals.find(asked["approval"])
    await shop.approvals.decide(OPERATOR, approval.id, approval.action_digest, "approve", confirm="acme_echo")
    shop.store.keep(build().digest)  # even after the move
    await shop.restart()
    outcome = await shop.desk.outcome(asked["approval"], 10)
    assert outcome is not None
    assert outcome.state == "done"
    assert shop.current() == "1.0.0"


async def test_staged_bytes_without_a_question_are_swept_at_the_start(shop: Shop) -> None:
    waiting = await shop.propose(build("1.0.0"))
    shop.store.stage(unpack(build("9.0.0", name="acme_other").data))
    await shop.restart()
    assert shop.staged() == [build("1.0.0").digest]
    assert (await shop.decide(waiting["approval"])).state == "done"


async def test_what_is_installed_is_the_same_after_a_restart(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    await shop.install(build("1.1.0"))
    before = shop.installed
    await shop.restart()
    assert shop.installed == before
    assert shop.registry.resolve("agent:acme_echo").manifest.version == "1.1.0"


@pytest.mark.requirement("L1")
async def test_a_full_disk_at_the_commit_leaves_nothing_installed_and_the_yes_standing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await shop.propose(build())
    ledger, claim = shop.journal._ledger, shop.approvals.claim

    def full(*_: Any, **__: Any) -> Any:
        raise FailedError("no space left on device", code="ledger.write")

    async def claim_on_a_full_disk(*given: Any) -> Any:
        monkeypatch.setattr(ledger, "commit", full)
        return await claim(*given)

    monkeypatch.setattr(shop.approvals, "claim", claim_on_a_full_disk)
    outcome = await shop.decide(asked)
    assert outcome.state == "failed" and outcome.error is not None
    assert "the yes stands" in str(outcome.error.hint)
    assert (shop.current(), shop.kept(), len(shop.staged())) == (None, [], 1)
    assert shop.registry.list() == []
    monkeypatch.undo()
    again = await shop.propose(build())
    assert again["approval"] == asked["approval"]
    done = await shop.desk.outcome(again["approval"], 10)
    assert done is not None and done.state == "done"
    assert (shop.current(), shop.staged()) == ("1.0.0", [])


# --- revoked --------------------------------------------------------------------------------------


async def test_a_revoked_key_stops_what_it_signed_and_voids_its_tokens(shop: Shop) -> None:
    made = build()
    await shop.install(made)
    done = await shop.installer.revoke(OPERATOR, str(ACME.public), "stolen")
    assert done["stopped"] == ["acme_echo"]
    assert shop.voided == [f"acme_echo {made.digest[:12]}: revoked: stolen"]
    with pytest.raises(RefusedError, match="stolen"):
        shop.registry.resolve("agent:acme_echo")
    assert shop.registry.list() == []
    (refused,) = shop.registry.refused()
    assert "stolen" in refused.reason


async def test_revoking_a_key_also_reaches_runs_of_what_was_upgraded_or_removed_since(shop: Shop) -> None:
    old, new, gone = build("1.0.0"), build("1.1.0", key=EVE), build(name="acme_gone")
    await shop.install(old)
    await shop.install(gone)
    await shop.installer.remove(OPERATOR, "acme_gone", "default", release=False)
    shop.trust(trust_toml().replace("keys = [", f'keys = ["{EVE.public}", '))
    await shop.install(new)
    done = await shop.installer.revoke(OPERATOR, str(ACME.public), "stolen")
    assert done["stopped"] == ["acme_echo", "acme_gone"]
    assert sorted(shop.voided) == sorted(
        f"{one.name} {one.digest[:12]}: revoked: stolen" for one in (old, gone)
    ), "and what the good key signed goes on"
    assert shop.registry.resolve("agent:acme_echo").bundle_digest == new.digest


async def test_a_trust_file_that_cannot_be_read_stops_every_installed_agent(shop: Shop) -> None:
    await shop.install(build())
    shop.trust("version = 1\n[anchors\n")
    with pytest.raises(RefusedError, match="cannot be told"):
        shop.registry.resolve("agent:acme_echo")


# --- the index: M8, M10 ---------------------------------------------------------------------------


@pytest.fixture
async def indexed(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path / "home")
    shop.index = tmp_path / "index"
    shop.index.mkdir()
    await shop.open()
    publish(shop, build("1.0.0"), build("1.1.0"))
    yield shop
    await shop.close()


def publish(
    shop: Shop, *bundles: Built, serial: int = 1, days: int = 1, key: SigningKey = ACME, **more: object
) -> None:
    assert shop.index is not None
    for built in bundles:
        built.write(shop.index)
    expires = shop.clock.now_ms() + days * DAY_MS
    data = index_of(*bundles, serial=serial, expires_ms=expires, key=key, **more)  # type: ignore[arg-type]
    (shop.index / "index.jsonl").write_bytes(data)


async def test_an_upgrade_by_name_takes_the_newest_of_the_index(indexed: Shop) -> None:
    await indexed.install(build("1.0.0"))
    asked = await indexed.installer.upgrade(OPERATOR, "acme_echo", "default", Wish())
    assert (asked["state"], asked["version"]) == ("waiting", "1.1.0")
    await indexed.decide(asked)
    again = await indexed.installer.upgrade(OPERATOR, "acme_echo", "default", Wish())
    assert again["state"] == "current"


@pytest.mark.requirement("M8")
async def test_an_index_that_cannot_be_read_blocks_every_install(indexed: Shop) -> None:
    assert indexed.index is not None
    await indexed.install(build("1.0.0"))
    (indexed.index / "index.jsonl").unlink()
    for attempt in (
        indexed.propose(build("1.1.0")),
        indexed.installer.upgrade(OPERATOR, "acme_echo", "default", Wish(allow_stale_index=True)),
    ):
        with pytest.raises(RefusedError) as caught:
            await attempt
        assert code(caught) == "index.unreachable"
    assert indexed.current() == "1.0.0"


@pytest.mark.requirement("M8")
@pytest.mark.parametrize("what", ["directory", "fifo", "rubbish", "empty"])
async def test_anything_but_an_index_blocks_every_install(indexed: Shop, what: str) -> None:
    import os

    assert indexed.index is not None
    file = indexed.index / "index.jsonl"
    file.unlink()
    match what:
        case "directory":
            file.mkdir()
        case "fifo":
            os.mkfifo(file)
        case _:
            file.write_bytes(b"{}\n" if what == "rubbish" else b"")
    with pytest.raises(RefusedError) as caught:
        await indexed.propose(build("1.0.0"))
    assert code(caught).startswith("index.")
    assert indexed.facts("action.requested") == []


@pytest.mark.requirement("M10")
async def test_an_expired_index_is_refused_unless_asked_for_and_then_said(indexed: Shop) -> None:
    indexed.clock.advance(2 * DAY_MS)
    with pytest.raises(RefusedError) as caught:
        await indexed.propose(build("1.0.0"))
    assert code(caught) == "index.expired"
    asked = await indexed.propose(build("1.0.0"), allow_stale_index=True)
    approval = indexed.approvals.find(asked["approval"])
    assert b"older than it may be" in indexed.reader.blob(approval.content_blob)


@pytest.mark.requirement("M10")
async def test_an_older_index_than_was_seen_is_refused_also_after_a_restart(indexed: Shop) -> None:
    publish(indexed, build("1.0.0"), serial=7)
    await indexed.install(build("1.0.0"))
    publish(indexed, build("1.0.0"), serial=6)
    await indexed.restart()
    for wish in (Wish(), Wish(allow_stale_index=True, allow_downgrade=True)):
        with pytest.raises(RefusedError) as caught:
            await indexed.installer.upgrade(OPERATOR, "acme_echo", "default", wish)
        assert code(caught) == "index.rollback"


async def test_two_indexes_of_one_serial_are_one_too_many(indexed: Shop) -> None:
    await indexed.install(build("1.0.0"))
    publish(indexed, build("1.0.0"), serial=1, days=3)
    with pytest.raises(RefusedError) as caught:
        await indexed.propose(build("1.1.0"))
    assert code(caught) == "index.equivocation"


@pytest.mark.requirement("M9")
async def test_an_index_signed_by_a_stranger_is_refused(indexed: Shop) -> None:
    publish(indexed, build("1.0.0"), key=EVE)
    with pytest.raises(RefusedError) as caught:
        await indexed.propose(build("1.0.0"))
    assert code(caught) == "trust.unknown_key"


async def test_a_bundle_its_publisher_took_back_is_not_installed(indexed: Shop) -> None:
    bad = build("1.0.0")
    publish(indexed, bad, serial=2, revoked=[IndexRevocation(reason="has a hole", bundle=bad.digest)])
    with pytest.raises(RefusedError) as caught:
        await indexed.propose(bad)
    assert code(caught) == "trust.bundle_revoked"


async def test_what_a_publisher_takes_back_stops_where_it_is_installed_too(indexed: Shop) -> None:
    bad, other = build("1.0.0"), build("1.0.0", name="acme_other")
    publish(indexed, bad, other, serial=2)
    await indexed.install(bad)
    assert indexed.registry.resolve("agent:acme_echo")
    publish(indexed, other, serial=3, revoked=[IndexRevocation(reason="has a hole", bundle=bad.digest)])
    await indexed.install(other)
    with pytest.raises(RefusedError, match="has a hole"):
        indexed.registry.resolve("agent:acme_echo")
    assert indexed.voided == [f"acme_echo {bad.digest[:12]}: revoked: has a hole (index of acme)"]
    (event,) = indexed.facts("trust.changed")
    assert isinstance(event.payload, TrustChanged)
    assert (event.payload.change, event.payload.subject) == ("revoke", bad.digest)
    await indexed.propose(build("1.1.0", name="acme_other"))
    assert len(indexed.facts("trust.changed")) == 1, "it is taken back once"


async def test_an_index_takes_back_nothing_of_another_publisher(indexed: Shop) -> None:
    indexed.dev = DEV
    mine, theirs = build(name="mine", key=DEV), build("1.0.0")
    await indexed.install(mine, dev_key=True)
    publish(indexed, theirs, serial=2, revoked=[IndexRevocation(reason="envy", bundle=mine.digest)])
    await indexed.install(theirs)
    assert indexed.registry.resolve("agent:mine")
    assert not indexed.voided


@pytest.mark.requirement("M9")
async def test_a_file_the_index_does_not_mean_is_refused(indexed: Shop) -> None:
    assert indexed.index is not None
    await indexed.install(build("1.0.0"))
    other = sign_package(unpack(build("1.1.0", description="another").data), ACME)
    (indexed.index / build("1.1.0").file_name).write_bytes(other)
    with pytest.raises(RefusedError) as caught:
        await indexed.installer.upgrade(OPERATOR, "acme_echo", "default", Wish())
    assert code(caught) == "index.mismatch"


async def test_a_listed_file_that_is_missing_is_named(indexed: Shop) -> None:
    assert indexed.index is not None
    await indexed.install(build("1.0.0"))
    (indexed.index / build("1.1.0").file_name).unlink()
    with pytest.raises(NotFoundError) as caught:
        await indexed.installer.upgrade(OPERATOR, "acme_echo", "default", Wish())
    assert code(caught) == "index.file"


async def test_without_an_index_an_upgrade_needs_a_file(shop: Shop) -> None:
    await shop.install(build("1.0.0"))
    with pytest.raises(UsageError) as caught:
        await shop.installer.upgrade(OPERATOR, "acme_echo", "default", Wish())
    assert code(caught) == "index.none"
    with pytest.raises(NotFoundError):
        await shop.installer.upgrade(OPERATOR, "acme_other", "default", Wish())
