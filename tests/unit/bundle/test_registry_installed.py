"""Who serves a name: shipped before installed before folders, and never one in place of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.bundle.archive import unpack
from runloop.bundle.installed import Installations
from runloop.errors import NotFoundError, RefusedError, RunloopError
from runloop.events import AgentInstalled, AgentRemoved, Event, Payload, Provenance
from runloopd.runtime.registry import AgentRefusedError, Registry
from runloopd.runtime.store import Store, attestations_of
from tests.bundles import Built, build

RUNNER = "aa" * 32


class Machine:
    """Folders, kept bundles, and what the ledger says of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "bundles")
        self.installed = Installations()
        self.pins: dict[str, str] = {}
        self.unsigned = False
        self.objection: RunloopError | None = None
        self._events = 0

    def registry(self) -> Registry:
        return Registry(
            [self.root / "mine", self.root / "shipped"],
            pins=self.pins,
            runners={"python": RUNNER},
            allow_unsigned=self.unsigned,
            kept=self.store.kept,
            installed=self.installed,
            objection=lambda _: self.objection,
        )

    def install(self, built: Built, *, dev: bool = False, variant: str = "default") -> None:
        package = unpack(built.data)
        self.store.stage(package)
        self.store.keep(package.bundle_digest)
        self.store.discard_staged(package.bundle_digest)
        self._apply(
            AgentInstalled(
                name=built.name,
                variant=variant,
                agent_version=built.version,
                bundle=built.digest,
                archive_sha256=package.tar_sha256,
                attestation_blob=attestations_of(package).hex()[:64],
                publisher="acme",
                key="ed25519:k",
                dev=dev,
                how="install",
                replaces=None,
                caps_digest="0" * 64,
                approval=None,
                principal="operator:1",
            )
        )

    def remove(self, built: Built, *, released: bool = False) -> None:
        self._apply(
            AgentRemoved(
                name=built.name,
                variant="default",
                agent_version=built.version,
                bundle=built.digest,
                released=released,
                principal="operator:1",
            )
        )

    def folder(self, built: Built, place: str = "mine") -> Path:
        root = self.root / place / built.name
        for name, data in unpack(built.data).files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        return root

    def ship(self, built: Built) -> None:
        self.folder(built, "shipped")
        self.pins[built.name] = built.digest

    def _apply(self, payload: Payload) -> None:
        self._events += 1
        self.installed.apply(
            Event(
                id=self._events, ts_ms=0, actor="daemon", kind=payload.kind, scope="user", run=None,
                payload=payload, provenance=Provenance(), hash=b"", prev_hash=b"",
            )
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def code(caught: pytest.ExceptionInfo[RunloopError]) -> str:
    return caught.value.named_code


def test_an_installed_agent_is_served_from_the_kept_bytes(machine: Machine) -> None:
    built = build()
    machine.install(built)
    agent = machine.registry().resolve("agent:acme_echo")
    assert agent.dir == machine.store.kept / built.digest
    assert (agent.origin, agent.dev, agent.pinned) == ("installed", False, False)
    assert agent.to_json()["publisher"] == "acme"
    assert machine.registry().pinned(agent.pin).bundle_digest == built.digest


@pytest.mark.parametrize("name", ["agent.py", "policy.caps", "tools.json", "manifest.toml", "README.md"])
def test_one_altered_byte_refuses_it_at_the_next_look(machine: Machine, name: str) -> None:
    built = build()
    machine.install(built)
    registry = machine.registry()
    assert registry.resolve("agent:acme_echo")
    file = machine.store.kept / built.digest / name
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(AgentRefusedError, match="not the one that was installed"):
        registry.resolve("agent:acme_echo")
    assert registry.list() == []
    assert [one.name for one in registry.refused()] == ["acme_echo"]


def test_missing_bytes_refuse_it_and_no_folder_steps_in(machine: Machine) -> None:
    import shutil

    built = build()
    machine.install(built)
    machine.folder(build("9.0.0"))
    shutil.rmtree(machine.store.kept / built.digest)
    with pytest.raises(AgentRefusedError, match="not the one that was installed"):
        machine.registry().resolve("agent:acme_echo")


def test_a_folder_of_an_installed_name_is_never_run(machine: Machine) -> None:
    machine.install(build())
    folder = machine.folder(build("9.0.0"))
    assert machine.registry().resolve("agent:acme_echo").manifest.version == "1.0.0"
    machine.unsigned = True
    with pytest.raises(AgentRefusedError) as caught:
        machine.registry().resolve("agent:acme_echo")
    assert code(caught) == "agent.name"
    assert [one.place for one in machine.registry().refused()] == [str(folder)]
    assert [agent.manifest.version for agent in machine.registry().list()] == ["1.0.0"]


def test_nor_does_a_folder_inherit_the_name_of_one_that_was_removed(machine: Machine) -> None:
    machine.install(build())
    machine.unsigned = True
    folder = machine.folder(build("9.0.0"))
    machine.remove(build())
    with pytest.raises(AgentRefusedError) as caught:
        machine.registry().resolve("agent:acme_echo")
    assert code(caught) == "agent.name"
    assert machine.registry().list() == []
    machine.remove(build(), released=True)
    assert machine.registry().resolve("agent:acme_echo").dir == folder


def test_a_folder_beside_the_user_does_not_shadow_an_installed_agent(machine: Machine) -> None:
    machine.install(build())
    beside = machine.root / "work"
    machine.folder(build("9.0.0"), "work")
    agent = machine.registry().beside(beside).resolve("agent:acme_echo")
    assert agent.manifest.version == "1.0.0"


def test_a_shipped_agent_wins_over_an_installed_one_of_its_name(machine: Machine) -> None:
    machine.install(build("9.0.0"))
    machine.ship(build("1.0.0", description="shipped"))
    registry = machine.registry()
    assert registry.resolve("agent:acme_echo").origin == "shipped"
    assert [agent.manifest.version for agent in registry.list()] == ["1.0.0"]
    (refused,) = registry.refused()
    assert "rlp agent remove acme_echo" in str(refused.hint)


def test_an_objection_is_heard_at_every_start_but_not_at_a_replay(machine: Machine) -> None:
    machine.install(build())
    registry = machine.registry()
    pin = registry.resolve("agent:acme_echo").pin
    machine.objection = RefusedError("stolen", hint="install another")
    with pytest.raises(RefusedError, match="stolen"):
        registry.resolve("agent:acme_echo")
    with pytest.raises(RefusedError, match="stolen"):
        registry.pinned(pin)
    assert registry.pinned(pin, serving=False).pin == pin
    assert [one.reason for one in registry.refused()] == ["stolen"]


def test_a_run_keeps_the_version_it_pinned_after_an_upgrade(machine: Machine) -> None:
    machine.install(build("1.0.0"))
    registry = machine.registry()
    old = registry.resolve("agent:acme_echo").pin
    machine.install(build("1.1.0"))
    assert registry.resolve("agent:acme_echo").manifest.version == "1.1.0"
    assert registry.pinned(old).manifest.version == "1.0.0"


def test_a_version_that_is_kept_and_not_current_is_not_served(machine: Machine) -> None:
    machine.install(build("1.0.0"))
    machine.install(build("1.1.0"))
    registry = machine.registry()
    assert registry.resolve("agent:acme_echo@1.1.0")
    with pytest.raises(NotFoundError) as caught:
        registry.resolve("agent:acme_echo@1.0.0")
    assert "rlp agent rollback acme_echo" in str(caught.value.hint)


def test_variants_are_told_apart(machine: Machine) -> None:
    machine.install(build("1.0.0"))
    machine.install(build("2.0.0", variant="fast"), variant="fast")
    registry = machine.registry()
    assert registry.resolve("agent:acme_echo").manifest.version == "1.0.0"
    assert registry.resolve("agent:acme_echo@fast").manifest.version == "2.0.0"
    assert len(registry.list()) == 2


def test_a_development_bundle_says_so(machine: Machine) -> None:
    machine.install(build(), dev=True)
    assert machine.registry().resolve("agent:acme_echo").to_json()["dev"] is True


def test_a_bundle_that_only_lies_among_the_kept_ones_is_not_installed(machine: Machine) -> None:
    package = unpack(build().data)
    machine.store.stage(package)
    machine.store.keep(package.bundle_digest)
    with pytest.raises(NotFoundError):
        machine.registry().resolve("agent:acme_echo")


def test_a_language_without_a_runner_in_this_build_is_refused_with_the_way_out(machine: Machine) -> None:
    built = build()
    machine.install(built)
    registry = Registry([], pins={}, runners={}, kept=machine.store.kept, installed=machine.installed)
    with pytest.raises(NotFoundError, match="no runner for python") as caught:
        registry.resolve("agent:acme_echo")
    assert caught.value.hint == "upgrade runloop"
