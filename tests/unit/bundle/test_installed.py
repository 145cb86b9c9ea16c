"""What is installed: a fold of facts, the same for whoever folds it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle.installed import Installations
from runloop.bundle.semver import precedence
from runloop.events import (
    KINDS,
    AgentIndexSeen,
    AgentInstalled,
    AgentRemoved,
    DaemonStopped,
    Event,
    Payload,
    Provenance,
)


class History:
    """Facts in the order they are stated."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def installed(self, version: str, **more: Any) -> History:
        fields: dict[str, Any] = {
            "name": "echo",
            "variant": "default",
            "agent_version": version,
            "bundle": (version.replace(".", "") * 64)[:64],
            "archive_sha256": "0" * 64,
            "attestation_blob": "1" * 64,
            "publisher": "acme",
            "key": "ed25519:k",
            "dev": False,
            "how": "install",
            "replaces": None,
            "caps_digest": "2" * 64,
            "approval": None,
            "principal": "operator:1",
        }
        return self.add(AgentInstalled(**(fields | more)))

    def removed(self, *, released: bool = False, variant: str = "default") -> History:
        return self.add(
            AgentRemoved(
                name="echo",
                variant=variant,
                agent_version="1.0.0",
                bundle="0" * 64,
                released=released,
                principal="operator:1",
            )
        )

    def add(self, payload: Payload) -> History:
        self.events.append(
            Event(
                id=len(self.events) + 1,
                ts_ms=len(self.events),
                actor="daemon",
                kind=payload.kind,
                scope="user",
                run=None,
                payload=payload,
                provenance=Provenance(),
                hash=b"",
                prev_hash=b"",
            )
        )
        return self

    def folded(self) -> Installations:
        return Installations.folded(self.events)


def version(found: Any) -> str | None:
    return None if found is None else str(found.version)


def test_the_last_installed_bundle_is_current_and_those_before_are_kept() -> None:
    state = History().installed("1.0.0").installed("1.1.0", how="upgrade").folded()
    assert version(state.current("echo")) == "1.1.0"
    assert [one.version for one in state.kept("echo")] == ["1.0.0", "1.1.0"]
    assert version(state.previous("echo")) == "1.0.0"
    assert state.is_installed("echo")
    assert not state.is_installed("other")


def test_a_rollback_makes_the_older_current_and_remembers_the_highest() -> None:
    history = History().installed("1.0.0").installed("2.0.0").installed("1.0.0", how="rollback")
    state = history.folded()
    assert version(state.current("echo")) == "1.0.0"
    assert state.highest("echo") == "2.0.0"
    assert len(state.kept("echo")) == 2
    assert state.previous("echo") is None, "what one rolled back from is no way back"


def test_a_rollback_goes_to_the_highest_version_below_the_present_one() -> None:
    state = History().installed("1.0.0").installed("1.10.0").installed("1.9.0").installed("2.0.0").folded()
    assert version(state.previous("echo")) == "1.10.0"


def test_a_removed_agent_serves_nothing_and_its_name_stays_with_its_publisher() -> None:
    state = History().installed("1.0.0").removed().folded()
    assert state.current("echo") is None
    assert not state.is_installed("echo")
    assert state.owner("echo") == "acme"
    assert state.highest("echo") == "1.0.0"
    assert len(state.bundles()) == 1


def test_a_released_name_belongs_to_nobody() -> None:
    history = History().installed("1.0.0").removed(released=True)
    assert history.folded().owner("echo") is None
    assert history.installed("1.0.0", publisher="other").folded().owner("echo") == "other"


def test_the_first_publisher_owns_a_name_whoever_comes_later() -> None:
    state = History().installed("1.0.0").installed("1.0.1", publisher="eve").folded()
    assert state.owner("echo") == "acme"


def test_variants_are_installed_beside_each_other() -> None:
    history = History().installed("1.0.0").installed("3.0.0", variant="fast", bundle="f" * 64)
    state = history.folded()
    assert [(one.variant, one.version) for one in state] == [("default", "1.0.0"), ("fast", "3.0.0")]
    assert state.highest("echo") == "1.0.0"
    assert [one.variant for one in history.removed(variant="fast").folded()] == ["default"]


def test_the_newest_index_is_remembered_with_its_digest() -> None:
    history = History()
    for serial, mark in ((3, "a"), (5, "b"), (4, "c")):
        history.add(AgentIndexSeen(publisher="acme", serial=serial, expires="", index_digest=mark * 64))
    state = history.folded()
    assert state.serials == {"acme": 5}
    assert state.index_digest("acme") == "b" * 64
    assert state.index_digest("eve") is None


def test_a_bundle_is_found_by_its_digest() -> None:
    state = History().installed("1.0.0", bundle="a" * 64).folded()
    assert version(state.of_bundle("a" * 64)) == "1.0.0"
    assert state.of_bundle("b" * 64) is None


def test_other_facts_change_nothing() -> None:
    history = History().installed("1.0.0").add(DaemonStopped(reason="asked to"))
    assert len(list(history.folded())) == 1


@given(
    st.lists(
        st.one_of(st.builds(lambda n: ("install", n), st.integers(0, 4)), st.just(("remove", 0))),
        max_size=12,
    )
)
def test_the_state_is_the_same_however_it_is_folded(steps: list[tuple[str, int]]) -> None:
    history = History()
    for what, number in steps:
        if what == "install":
            history.installed(f"1.{number}.0")
        else:
            history.removed()
    at_once = history.folded()
    one_by_one = Installations()
    for event in history.events:
        one_by_one.apply(event)
    assert at_once == one_by_one
    installed = [number for what, number in steps if what == "install"]
    if installed:
        assert at_once.highest("echo") == f"1.{max(installed)}.0"
    current = at_once.current("echo")
    previous = at_once.previous("echo")
    if current is not None and previous is not None:
        assert precedence(previous.version) < precedence(current.version)


def test_no_fact_hides_the_version_of_its_kind_behind_a_field() -> None:
    # `version` is the version of the kind, and part of what is hashed.
    assert [kind for kind, payload in KINDS.items() if not isinstance(payload.version, int)] == []
