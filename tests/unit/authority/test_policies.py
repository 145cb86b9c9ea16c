"""The operator's overrides: they narrow, they are stated first, and what was taken away is gone at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pog.ledger import Ledger
from runloop.caps.policy import CapsError, Policy, ceiling, parse_policy
from runloop.caps.token import TokenError
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import AgentPin, Event, PolicyChanged, TokenRevoked
from runloop.testing import ManualClock
from runloopd.authority.keyring import Keyring
from runloopd.authority.mint import Mint
from runloopd.authority.policies import AgentRights, Policies
from runloopd.bus.principal import Principal
from runloopd.journal import Journal

RUN = "0b7c7a0e-5a0f-4a3c-9d6e-0123456789ab"
ME = Principal(kind="operator", name="operator:1000#s", uid=1000)
PIN = AgentPin(
    name="mailer",
    version="1.0.0",
    variant="default",
    bundle_digest="0" * 64,
    component_digest="1" * 64,
    language="python",
)
ASKED = parse_policy(
    '[capabilities]\nmail = ["*@example.org", "boss@acme.example"]\nkb_read = true\ntime = true\n'
)


class Desk:
    def __init__(self, home: Path) -> None:
        self.clock = ManualClock()
        self.journal = Journal(Ledger.open(home / "events.db", clock=self.clock), None, self.clock)
        self.mint = Mint(Keyring.open(home / "keys"), self.journal, self.clock)
        self.seen: list[Event] = []
        self.journal.listen(self.seen.extend)
        rights = AgentRights(
            name="mailer",
            version="1.0.0",
            top=ceiling(["mail.send", "kb.search", "time.now"]),
            policy=ASKED,
        )
        self.dir = home / "overrides"
        self.policies = Policies(self.dir, lambda: {"mailer": rights}, self.journal, self.mint)
        self.rights = rights

    def now(self) -> Policy:
        return self.policies.effective("mailer", self.rights.top, self.rights.policy).policy

    def allows(self, capability: str, target: str = "") -> bool:
        return self.now().allows(capability, target).allowed


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    await made.journal.close()


async def test_what_the_bundle_asks_for_holds_until_the_operator_narrows_it(desk: Desk) -> None:
    assert desk.allows("mail", "boss@acme.example")
    shown = await desk.policies.revoke(ME, "mailer", "mail", None)
    assert not desk.allows("mail", "boss@acme.example")
    assert desk.allows("kb_read", "notes")
    assert shown["narrowed"] == ["mail"]


async def test_a_change_is_a_fact_before_it_is_a_file(desk: Desk) -> None:
    await desk.policies.revoke(ME, "mailer", "time", None)
    (changed,) = [e.payload for e in desk.seen if isinstance(e.payload, PolicyChanged)]
    assert (changed.change, changed.capability, changed.principal) == ("revoke", "time", "operator:1000")
    assert (changed.before, changed.after) == ({}, {"time": False})
    assert (desk.dir / "mailer.toml").stat().st_mode & 0o777 == 0o600


async def test_an_unwritable_ledger_changes_no_policy(desk: Desk) -> None:
    await desk.journal.close()
    with pytest.raises(Exception, match="journal is closed"):
        await desk.policies.revoke(ME, "mailer", "mail", None)
    assert desk.allows("mail", "boss@acme.example")


async def test_a_grant_gives_back_what_was_revoked(desk: Desk) -> None:
    await desk.policies.revoke(ME, "mailer", "mail", None)
    await desk.policies.grant(ME, "mailer", "mail", "boss@acme.example")
    assert desk.allows("mail", "boss@acme.example")
    assert not desk.allows("mail", "anna@example.org")
    await desk.policies.grant(ME, "mailer", "mail", True)
    assert desk.allows("mail", "anna@example.org")
    assert not (desk.dir / "mailer.toml").exists()


@pytest.mark.parametrize(
    "value", ["api.acme.example", ["api.acme.example"], {"hosts": ["api.acme.example"], "methods": ["GET"]}]
)
async def test_a_host_is_given_back_with_the_narrowing_the_bundle_has(tmp_path: Path, value: object) -> None:
    desk = Desk(tmp_path)
    desk.rights = replace(
        desk.rights,
        top=ceiling(["http.fetch"]),
        policy=parse_policy(
            '[capabilities]\nnet = [{ hosts = ["*.acme.example"], methods = ["GET"] }, "other.example"]\n'
        ),
    )
    desk.policies = Policies(desk.dir, lambda: {"mailer": desk.rights}, desk.journal, desk.mint)
    await desk.policies.revoke(ME, "mailer", "net", None)
    assert not desk.allows("net", "https://api.acme.example/")
    await desk.policies.grant(ME, "mailer", "net", value)
    assert desk.allows("net", "https://api.acme.example/x")
    assert not desk.allows("net", "POST https://api.acme.example/x")
    assert not desk.allows("net", "https://other.example/")
    with pytest.raises(RefusedError, match="only narrows"):
        await desk.policies.grant(ME, "mailer", "net", ["api.acme.example", "evil.example"])
    await desk.journal.close()


@pytest.mark.parametrize(
    ("capability", "value"), [("mail", [7]), ("mail", ["not an address"]), ("time", "now"), ("mail", False)]
)
async def test_a_grant_of_nonsense_is_told_as_such(desk: Desk, capability: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{capability} cannot be granted"):
        await desk.policies.grant(ME, "mailer", capability, value)
    assert desk.seen == []


@pytest.mark.requirement("C8")
@pytest.mark.parametrize(
    ("capability", "value"), [("mail", "eve@evil.example"), ("exec", True), ("kb_write", True)]
)
async def test_a_grant_never_goes_beyond_what_the_bundle_asks_for(
    desk: Desk, capability: str, value: object
) -> None:
    with pytest.raises(RefusedError, match="only narrows"):
        await desk.policies.grant(ME, "mailer", capability, value)
    assert desk.seen == []
    assert not desk.dir.exists()


async def test_a_revocation_voids_the_tokens_the_agent_holds_now(desk: Desk) -> None:
    await desk.mint.for_run(RUN, desk.now(), cause=1)
    token = await desk.mint.for_node(RUN, "send", PIN, desk.now(), cause=1)
    desk.mint.verify(token.data)
    shown = await desk.policies.revoke(ME, "mailer", "mail", None)
    assert shown["tokens_voided"] == 1
    with pytest.raises(TokenError):
        desk.mint.verify(token.data)
    assert [e.payload.token for e in desk.seen if isinstance(e.payload, TokenRevoked)] == [token.id]


async def test_a_token_can_be_voided_by_a_part_of_its_name(desk: Desk) -> None:
    await desk.mint.for_run(RUN, desk.now(), cause=1)
    token = await desk.mint.for_node(RUN, "send", PIN, desk.now(), cause=1)
    done = await desk.policies.revoke(ME, None, None, token.id[:12])
    assert done["token"] == token.id


async def test_a_broken_override_denies_rather_than_being_passed_over(desk: Desk) -> None:
    desk.dir.mkdir()
    (desk.dir / "mailer.toml").write_text("[capabilities\n")
    with pytest.raises(CapsError):
        desk.now()


async def test_an_extra_right_in_an_override_is_ignored_and_reported(desk: Desk) -> None:
    desk.dir.mkdir()
    (desk.dir / "mailer.toml").write_text("[capabilities]\nexec = true\nkb_read = []\n")
    assert not desk.allows("exec")
    assert not desk.allows("kb_read", "notes")
    (shown,) = desk.policies.show("mailer")
    assert any("exec" in warning for warning in shown["warnings"])


async def test_unknown_names_are_told_apart(desk: Desk) -> None:
    with pytest.raises(NotFoundError, match="mialer"):
        await desk.policies.revoke(ME, "mialer", "mail", None)
    with pytest.raises(UsageError, match="no capability 'mial'"):
        await desk.policies.revoke(ME, "mailer", "mial", None)
    with pytest.raises(UsageError, match="agent or a token"):
        await desk.policies.revoke(ME, None, None, None)


async def test_every_right_can_be_taken_at_once(desk: Desk) -> None:
    await desk.policies.revoke(ME, "mailer", None, None)
    assert desk.now().empty
