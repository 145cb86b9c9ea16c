"""Which agents may be started: the pinned ones; others only when the operator says so."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from runloop.authoring.toolchains.c import CToolchain
from runloop.bundle.digest import BundleError, bundle_digest, read_bundle
from runloop.bundle.manifest import ManifestError
from runloop.caps.policy import CapsError
from runloop.digest import blob_digest
from runloop.errors import DivergenceError, NotFoundError, UsageError
from runloopd.runtime import library
from runloopd.runtime.library import library_digest
from runloopd.runtime.registry import AgentReference, AgentRefusedError, Registry, read_pins

AGENTS = Path(__file__).parents[3] / "sdk" / "agents"
RUNNER = "aa" * 32
MANIFEST = """
name = "echo"
version = "1.0.0"
ops = ["kb.search", "mail.send"]
[ports.in.x]
type = "string"
required = true
[ports.out.out]
type = "string"
[limits]
memory_mb = 32
max_host_calls = 7
"""

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def bundle(place: str = "mine", folder: str = "echo", **files: str | bytes) -> Path:
        root = tmp_path / place / folder
        root.mkdir(parents=True, exist_ok=True)
        given: dict[str, str | bytes] = {
            "manifest.toml": MANIFEST,
            "policy.caps": "[capabilities]\nkb_read = true\ntime = true\n",
            "tools.json": '{"version": 1, "tools": []}',
            "agent.py": "def handle(task, host): return {}\n",
        }
        for name, data in {
            **given,
            **files,
        }.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return root

    return bundle


def registry(*dirs: Path, pins: dict[str, str] | None = None, unsigned: bool = False) -> Registry:
    return Registry(dirs, pins=pins or {}, runners={"python": RUNNER}, allow_unsigned=unsigned)


def pins_of(*folders: Path) -> dict[str, str]:
    return {folder.name: bundle_digest(read_bundle(folder)) for folder in folders}


def test_a_pinned_agent_is_resolved_complete(make: Make) -> None:
    folder = make()
    agent = registry(folder.parent, pins=pins_of(folder)).resolve("agent:echo")
    assert agent.pinned
    assert agent.modules == {"agent": "def handle(task, host): return {}\n"}
    assert agent.component_path is None
    assert agent.pin.component_digest == RUNNER
    assert (agent.pin.name, agent.pin.version, agent.pin.variant, agent.pin.language) == (
        "echo",
        "1.0.0",
        "default",
        "python",
    )
    assert agent.pin.bundle_digest == agent.bundle_digest
    assert agent.policy.allows("kb_read", "notes").allowed
    assert agent.ceiling.allows("mail", "a@b.c").allowed
    assert not agent.ceiling.allows("time").allowed
    assert (agent.limits.memory_bytes, agent.limits.host_calls) == (32 * 1024 * 1024, 7)
    assert agent.ports.in_["x"].required
    assert agent.ports.out["out"].type == "string"
    assert agent.input_faults({"x": [1]}) == ["input port 'x' takes string, not number"]
    assert agent.output_faults({"y": [1]}) == ["there is no output port 'y'; known: out"]
    assert agent.to_json()["bundle_digest"] == agent.bundle_digest


def test_an_agent_nobody_vouches_for_is_refused_with_the_setting_to_change(make: Make) -> None:
    found = registry(make().parent)
    with pytest.raises(AgentRefusedError, match="nobody vouches") as caught:
        found.resolve("agent:echo")
    assert caught.value.hint is not None
    assert "allow_unsigned_agents" in caught.value.hint
    assert found.list() == []
    assert len(found.refused()) == 1


def test_an_operator_may_allow_unsigned_agents(make: Make) -> None:
    found = registry(make().parent, unsigned=True)
    assert not found.resolve("agent:echo").pinned
    assert [agent.manifest.name for agent in found.list()] == ["echo"]
    assert found.refused() == []


def test_an_altered_shipped_agent_is_refused_as_altered(make: Make) -> None:
    folder = make("shipped")
    pins = pins_of(folder)
    (folder / "agent.py").write_text("evil = True\n")
    with pytest.raises(AgentRefusedError, match="was altered") as caught:
        registry(folder.parent, pins=pins).resolve("agent:echo")
    assert caught.value.named_code == "agent.altered"


@pytest.mark.parametrize(
    "file", ["policy.caps", "tools.json", "manifest.toml", "README.md", "schemas/new.json"]
)
def test_any_file_of_a_bundle_counts_for_its_pin(make: Make, file: str) -> None:
    folder = make("shipped")
    pins = pins_of(folder)
    (folder / file).parent.mkdir(exist_ok=True)
    with (folder / file).open("a") as opened:
        opened.write("\n")
    with pytest.raises(AgentRefusedError):
        registry(folder.parent, pins=pins).resolve("agent:echo")


def test_a_shipped_agent_cannot_be_shadowed_by_an_unsigned_one(make: Make) -> None:
    shipped = make("shipped")
    mine = make("mine", **{"agent.py": "x = 1"})
    found = registry(mine.parent, shipped.parent, pins=pins_of(shipped))
    assert found.resolve("agent:echo").dir == shipped
    assert [agent.dir for agent in found.list()] == [shipped]


def test_where_unsigned_agents_are_allowed_the_first_hit_wins(make: Make) -> None:
    mine = make("mine", **{"agent.py": "x = 1"})
    found = registry(mine.parent, make("other").parent, unsigned=True)
    assert found.resolve("agent:echo").dir == mine
    assert [agent.dir for agent in found.list()] == [mine]


@pytest.mark.parametrize("variant", ["", 'variant = "fast"\n'])
def test_no_unsigned_agent_takes_the_name_of_a_shipped_one(make: Make, variant: str) -> None:
    shipped = make("shipped")
    text = f"{variant}{MANIFEST}"
    mine = make("mine", "innocent", **{"agent.py": "x = 1", "manifest.toml": text})
    found = registry(shipped.parent, pins=pins_of(shipped), unsigned=True).beside(mine.parent)
    with pytest.raises(AgentRefusedError) as caught:
        found.resolve("agent:echo@fast" if variant else "agent:echo")
    assert caught.value.named_code == "agent.name"
    assert str(mine) in caught.value.message
    assert [agent.dir for agent in found.list()] == [shipped]
    assert [one.place for one in found.refused()] == [str(mine)]
    unaware = registry(mine.parent, unsigned=True)  # a run that was started before the name was shipped
    with pytest.raises(NotFoundError):
        found.pinned(unaware.resolve("agent:echo@fast" if variant else "agent:echo").pin)


def test_a_pinned_bundle_may_lie_anywhere(make: Make) -> None:
    folder = make("elsewhere", "another_name")
    assert registry(folder.parent, pins={"echo": pins_of(folder)["another_name"]}).resolve("echo").pinned


def test_variants_and_versions_are_chosen_by_the_selector(make: Make) -> None:
    plain = make(folder="a")
    make(folder="b", **{"manifest.toml": MANIFEST.replace('"1.0.0"', '"2.0.0"\nvariant = "fast"')})
    found = registry(plain.parent, unsigned=True)
    assert found.resolve("agent:echo").manifest.version == "1.0.0"
    assert found.resolve("agent:echo@fast").manifest.version == "2.0.0"
    assert found.resolve("agent:echo@2.0.0").manifest.variant == "fast"
    assert found.resolve("echo@1.0.0").manifest.variant == "default"
    with pytest.raises(NotFoundError):
        found.resolve("agent:echo@3.0.0")


def test_an_unknown_agent_is_not_found_and_the_installed_ones_are_named(make: Make, tmp_path: Path) -> None:
    found = registry(tmp_path / "nowhere", make().parent, unsigned=True)
    with pytest.raises(NotFoundError) as caught:
        found.resolve("agent:ehco")
    assert caught.value.hint == "did you mean 'echo'? installed: echo"
    with pytest.raises(NotFoundError, match="there is no agent:x"):
        registry().resolve("agent:x")


@pytest.mark.parametrize(
    "use", ["", "agent:", "agent:A", "agent:a@", "opening:x", "agent:../x", "agent:a b", "agent:ä"]
)
def test_a_reference_that_is_none_is_refused(use: str) -> None:
    with pytest.raises(UsageError):
        AgentReference.parse(use)


def test_a_reference_reads_as_it_was_written() -> None:
    assert str(AgentReference.parse("agent:a_b@c")) == "agent:a_b@c"
    assert str(AgentReference.parse("a")) == "agent:a"


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"manifest.toml": "name = 3"}, ManifestError),
        (
            {"manifest.toml": MANIFEST.replace("version", "entrypoint = 'main:handle'\nversion")},
            ManifestError,
        ),
        ({"policy.caps": "[capabilities]\nfly = true"}, CapsError),
        ({"policy.caps": b"\xff"}, BundleError),
        ({"tools.json": "[]"}, BundleError),
        ({"tools.json": "{"}, BundleError),
        ({"tools.json": '{"version": 2, "tools": []}'}, BundleError),
        ({"agent.py": b"\xff"}, BundleError),
        (
            {"manifest.toml": MANIFEST.replace("version", "language = 'component'\nversion")},
            BundleError,
        ),
    ],
)
def test_a_bundle_that_is_not_valid_is_refused_by_what_is_wrong(
    make: Make, files: dict[str, str | bytes], error: type[Exception]
) -> None:
    folder = make(**files)
    with pytest.raises(error):
        registry(folder.parent, unsigned=True).resolve("agent:echo")


@pytest.mark.parametrize("missing", ["policy.caps", "tools.json"])
def test_a_bundle_that_is_incomplete_is_refused(make: Make, missing: str) -> None:
    folder = make()
    (folder / missing).unlink()
    with pytest.raises(BundleError, match=f"no file {missing}"):
        registry(folder.parent, unsigned=True).resolve("agent:echo")


def test_a_broken_agent_does_not_hide_the_others(make: Make) -> None:
    make(folder="broken", **{"manifest.toml": 'name = "broken"'})
    good = make()
    found = registry(good.parent, unsigned=True)
    assert [agent.manifest.name for agent in found.list()] == ["echo"]
    assert found.resolve("agent:echo").dir == good
    assert len(found.refused()) == 1
    with pytest.raises(ManifestError):
        found.resolve("agent:broken")


def test_a_folder_without_a_manifest_is_no_agent(make: Make) -> None:
    folder = make()
    (folder.parent / "notes").mkdir()
    (folder.parent / "file").write_text("")
    assert len(registry(folder.parent, unsigned=True).list()) == 1


def test_a_component_agent_carries_the_digest_of_its_own_component(make: Make) -> None:
    text = MANIFEST.replace("version", "language = 'component'\nversion")
    folder = make(**{"manifest.toml": text, "agent.wasm": b"\0asm"})
    agent = registry(folder.parent, unsigned=True).resolve("agent:echo")
    assert agent.pin.component_digest == blob_digest(b"\0asm")
    assert agent.component_path == folder / "agent.wasm"
    assert agent.modules is None


def test_modules_of_packages_are_named_with_dots_and_tests_stay_behind(make: Make) -> None:
    folder = make(**{"pkg/__init__.py": "a = 1", "pkg/deep.py": "b = 2", "tests/test_x.py": "c = 3"})
    modules = registry(folder.parent, unsigned=True).resolve("echo").modules
    assert modules is not None
    assert sorted(modules) == ["agent", "pkg", "pkg.deep"]


def test_a_pinned_agent_is_found_again_by_its_pin_and_checked_at_every_call(make: Make) -> None:
    folder = make()
    found = registry(folder.parent, unsigned=True)
    pin = found.resolve("echo").pin
    assert found.pinned(pin).pin == pin
    (folder / "agent.py").write_text("changed = True\n")
    with pytest.raises(NotFoundError, match="was changed or removed"):
        found.pinned(pin)


def test_a_pin_made_with_another_runner_diverges(make: Make) -> None:
    folder = make()
    found = registry(folder.parent, unsigned=True)
    old = msgspec.structs.replace(found.resolve("echo").pin, component_digest="bb" * 32)
    with pytest.raises(DivergenceError) as caught:
        found.pinned(old)
    assert caught.value.named_code == "agent.component"


def test_a_pin_does_not_open_the_door_to_an_agent_that_is_no_longer_trusted(make: Make) -> None:
    folder = make()
    pin = registry(folder.parent, unsigned=True).resolve("echo").pin
    with pytest.raises(NotFoundError):
        registry(folder.parent).pinned(pin)


def test_a_broken_neighbour_does_not_hide_a_pinned_agent(make: Make) -> None:
    folder = make()
    make(folder="broken", **{"manifest.toml": "?"})
    found = registry(folder.parent, unsigned=True)
    assert found.pinned(found.resolve("echo").pin).dir == folder


# --- what is shipped ------------------------------------------------------------------------------


def test_every_shipped_agent_is_pinned_by_its_present_digest() -> None:
    spec = importlib.util.spec_from_file_location("pin_generator", AGENTS / "pin.py")
    assert spec and spec.loader
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert (AGENTS / "digests.toml").read_text() == generator.render(), "run python sdk/agents/pin.py"


def test_the_shipped_agents_are_all_accepted() -> None:
    found = registry(AGENTS, pins=read_pins(AGENTS))
    assert [(agent.pin.name, agent.pin.variant) for agent in found.list()] == [
        ("assistant", "default"),
        ("contact_resolver", "default"),
        ("context_gatherer", "default"),
        ("critic", "c"),
        ("critic", "default"),
        ("errand", "default"),
        ("mailer", "default"),
        ("writer", "default"),
    ]
    assert found.refused() == []
    assert found.resolve("agent:critic@c").manifest.language == "component"


def test_no_shipped_agent_asks_for_more_than_its_host_calls_need() -> None:
    from runloop.caps.policy import effective

    for agent in registry(AGENTS, pins=read_pins(AGENTS)).list():
        assert effective(agent.ceiling, agent.policy).warnings == ()
        assert effective(agent.ceiling, agent.policy).policy == agent.policy


def test_the_component_in_c_is_built_from_the_present_sources() -> None:
    import tomllib

    spec = importlib.util.spec_from_file_location("c_generator", AGENTS.parent / "c" / "build.py")
    assert spec and spec.loader
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    folder = AGENTS / "critic_c"
    built = tomllib.loads((folder / "build.toml").read_text())
    assert built["inputs_digest"] == generator.inputs_digest(folder / built["source"]), "run sdk/c/build.py"
    assert built["blake3"] == blob_digest((folder / "agent.wasm").read_bytes())
    pinned = ", ".join(f"{name} {version}" for name, version in sorted(generator.COMPILER.items()))
    assert built["compiler"] == pinned
    toolchain = CToolchain()
    if not toolchain.missing() and toolchain.versions() == generator.COMPILER:  # Debian 12: clang lld
        assert generator.build(folder) == (folder / "agent.wasm").read_bytes(), "run sdk/c/build.py"


@pytest.mark.parametrize("text", [None, "", "[bundles", "bundles = 3"])
def test_pins_that_cannot_be_read_are_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "digests.toml").write_text(text)
    with pytest.raises((NotFoundError, DivergenceError)):
        read_pins(tmp_path)


def test_a_copy_of_a_shipped_agent_is_still_that_agent(tmp_path: Path) -> None:
    shutil.copytree(AGENTS / "mailer", tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    assert registry(tmp_path, pins=read_pins(AGENTS)).resolve("agent:mailer").pinned


def test_a_run_keeps_its_agent_when_the_bundle_is_changed_or_removed(make: Make, tmp_path: Path) -> None:
    folder = make()
    registry = Registry(
        [folder.parent], pins={}, runners={"python": RUNNER}, allow_unsigned=True, kept=tmp_path / "kept"
    )
    agent = registry.resolve("agent:echo")
    registry.keep(agent)
    registry.keep(agent)
    (folder / "agent.py").write_text("def handle(task, host): return {'out': 'other'}\n")
    assert registry.resolve("agent:echo").bundle_digest != agent.bundle_digest
    assert registry.pinned(agent.pin).modules == agent.modules
    shutil.rmtree(folder)
    assert registry.pinned(agent.pin).bundle_digest == agent.bundle_digest


def test_a_kept_bundle_that_was_altered_is_not_used(make: Make, tmp_path: Path) -> None:
    folder = make()
    registry = Registry(
        [folder.parent], pins={}, runners={"python": RUNNER}, allow_unsigned=True, kept=tmp_path / "kept"
    )
    agent = registry.resolve("agent:echo")
    registry.keep(agent)
    shutil.rmtree(folder)
    (tmp_path / "kept" / agent.bundle_digest / "agent.py").write_text("evil = 1\n")
    with pytest.raises(NotFoundError):
        registry.pinned(agent.pin)


SPEAKING = "from runloop import speech\n\ndef handle(task, host): return {}\n"


@pytest.mark.requirement("I5.replay.11")
def test_a_run_keeps_the_library_its_agents_were_served_and_its_loss_is_told(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plain = make(**{"agent.py": SPEAKING}), make("other")
    kept = tmp_path / "store" / "kept"
    registry = Registry([folder.parent], pins={}, runners={"python": RUNNER}, allow_unsigned=True, kept=kept)
    agent = registry.resolve("agent:echo")
    assert agent.beside == {"runloop.speech"}
    registry.keep(agent)
    registry.keep_library()
    registry.keep_library()
    began = library_digest()

    # The next build serves another module of that name.
    monkeypatch.setattr(library, "_library", lambda: {"runloop.speech": "NEW = 1\n"})
    monkeypatch.setattr(library, "library_digest", lambda: "0" * 64)
    monkeypatch.setattr("runloopd.runtime.registry.library_digest", lambda: "0" * 64)
    assert (registry.pinned(agent.pin).modules or {})["runloop.speech"] == "NEW = 1\n"
    assert registry.pinned(agent.pin, library=began).modules == agent.modules

    (file,) = (tmp_path / "store").rglob("libraries/*.json")
    file.write_bytes(file.read_bytes().replace(b"inform", b"infarm"))
    with pytest.raises(UsageError) as damaged:
        registry.pinned(agent.pin, library=began)
    assert damaged.value.named_code == "library.damaged"
    file.unlink()
    for absent in (began, "../../x", ""):
        with pytest.raises(NotFoundError) as caught:
            registry.pinned(agent.pin, library=absent)
        assert caught.value.named_code == "agent.library"
    assert "runloop.speech" in caught.value.message
    # Whoever is served nothing does not care.
    other = Registry([plain.parent], pins={}, runners={"python": RUNNER}, allow_unsigned=True)
    indifferent = other.resolve("agent:echo")
    assert other.pinned(indifferent.pin, library=began).modules == indifferent.modules
