"""What an engine is asked for, word by word; and what is refused before one is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runloop.config import Security
from runloopd.broker.tools import container
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.choosing import chosen_sandbox
from runloopd.broker.tools.container import Container
from runloopd.broker.tools.container_engine import Bind, Engine, find_engine, image_by_digest
from runloopd.broker.tools.sandbox import Limits, Program, SandboxError

DIGEST = "sha256:" + "a" * 64
BOTH = ["podman", "docker"]


def engine(kind: str, *, root: bool = False, bounds: bool = True) -> Engine:
    return Engine(
        path=f"/usr/bin/{kind}",
        kind="podman" if kind == "podman" else "docker",
        version="1",
        image=DIGEST,
        root=root,
        bounds=bounds,
    )


def words(kind: str, **more: bool) -> str:
    binds = [Bind("/home/ann/notes", "/home/ann/notes"), Bind("/srv/out", "/srv/out", writable=True)]
    made = engine(kind, **more).run("runloop-1", Limits(), binds, ["/push"], ["/first", "door", "/door"])
    return " ".join(made)


@pytest.mark.requirement("I6.container.1")
@pytest.mark.parametrize("kind", BOTH)
def test_every_wall_is_asked_for(kind: str) -> None:
    said = words(kind)
    for wall in (
        "--network none",
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--ipc private",
        "--cgroupns private",
        "--pids-limit 136",
        f"--memory {(1 << 30) + (64 << 20)}b",
        "--pull never",
        "--log-driver none",
        "src=/home/ann/notes,dst=/home/ann/notes,ro=true",
        "--tmpfs /push:rw,nosuid,nodev",
    ):
        assert wall in said
    assert "src=/srv/out,dst=/srv/out,bind" in said
    assert "privileged" not in said and " host" not in said and "=host" not in said
    assert said.endswith(f"--entrypoint /first {DIGEST} door /door")


def test_podman_has_a_user_namespace_whoever_starts_it() -> None:
    assert "--userns keep-id" in words("podman")
    assert "--uidmap 1000:0:1" in words("podman", root=True) and "--user 1000:1000" in words(
        "podman", root=True
    )
    assert "--cgroups disabled" in words("podman", bounds=False)


@pytest.mark.parametrize("name", ["/a,ro=false", "/a:b", '/a"b', "/a b", "/a\nb", "/a\\b", "/a=b"])
def test_a_name_that_could_be_read_as_an_option_is_refused(name: str) -> None:
    with pytest.raises(SandboxError, match="cannot be mounted"):
        Bind(name, "/x").word()
    with pytest.raises(SandboxError, match="cannot be mounted"):
        Bind("/x", name).word()


@pytest.mark.requirement("I6.container.3")
@pytest.mark.parametrize(
    "image",
    [None, "", "debian", "debian:12", "sha256:abc", f"{DIGEST} --x", f"--x@{DIGEST}"],
)
def test_an_image_that_is_not_named_by_digest_is_refused(image: str | None) -> None:
    with pytest.raises(SandboxError, match="image") as caught:
        image_by_digest(image)
    assert "sandbox_image" in str(caught.value.hint)


@pytest.mark.parametrize("image", [DIGEST, f"docker.io/library/x@{DIGEST}", f"localhost:5000/x@{DIGEST}"])
def test_one_that_is_named_by_digest_is_taken(image: str) -> None:
    assert image_by_digest(image) == image


@pytest.mark.parametrize("given", ["podman", "/nowhere/podman", "/usr"])
def test_an_engine_that_is_not_there_is_refused(given: str) -> None:
    with pytest.raises(SandboxError, match="absolute path"):
        find_engine(given)


@pytest.mark.requirement("I6.container.3")
async def test_an_engine_that_is_none_runs_no_program_and_nothing_runs_it_instead(tmp_path: Path) -> None:
    none = tmp_path / "engine"
    none.write_text("#!/bin/sh\necho something else\n")
    none.chmod(0o755)
    security = Security(sandbox="container", sandbox_engine=str(none), sandbox_image=DIGEST)
    sandbox = chosen_sandbox(security, [], tmp_path)
    assert isinstance(sandbox, Container)
    with pytest.raises(SandboxError, match="neither podman nor docker"):
        await sandbox.run(Program(argv=("/bin/true",)))
    with pytest.raises(SandboxError, match="no engine"):
        await asyncio.to_thread(sandbox.resolve, "true")
    assert not [layer for layer in sandbox.layers().each if layer.name == "engine" and layer.holds]
    assert isinstance(chosen_sandbox(Security(), [], tmp_path), Bubblewrap)


def test_an_engine_without_the_image_fetches_nothing_and_says_so(tmp_path: Path) -> None:
    said = tmp_path / "said"
    bare = tmp_path / "podman"
    answer = 'case "$1" in --version) echo podman version 4;; *) exit 125;; esac'
    bare.write_text(f'#!/bin/sh\necho "$@" >> {said}\n{answer}\n')
    bare.chmod(0o755)
    sandbox = Container([], door=tmp_path, image=DIGEST, engine=str(bare))
    assert [layer.name for layer in sandbox.layers().missing] == ["image"]
    assert said.read_text().splitlines() == ["--version", f"image inspect --format {{{{.Id}}}} {DIGEST}"]


@pytest.mark.parametrize(
    ("memory", "said"),
    [(None, "without a cgroup"), (1 << 40, "without a cgroup"), (0, "a cgroup of its own")],
)
def test_a_bound_that_an_engine_does_not_keep_is_not_said_to_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int | None, said: str
) -> None:
    """A rootless engine on older cgroups takes a limit, warns, and has none."""
    asked = engine("podman")
    found = asked.most(Limits()) if memory == 0 else memory
    monkeypatch.setattr(container, "_tried", lambda one: ({}, found))
    sandbox = Container([], door=tmp_path, image=DIGEST)
    layer = sandbox._trial(asked)
    assert layer.holds and said in layer.found
    assert sandbox._engine is not None and sandbox._engine.bounds is (memory == 0)


def test_an_engine_sees_nothing_of_the_daemons_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNLOOP_TEST_SECRET", "canary")
    assert set(engine("podman").environment()) <= {
        "PATH", "HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "DBUS_SESSION_BUS_ADDRESS",
    }  # fmt: skip
