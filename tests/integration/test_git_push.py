"""A push by a real git in the real sandbox to a real git server: with a token, to the place it is for."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from runloop.events import SecretSet
from runloop.testing import ManualClock
from runloopd.broker.calls import Answer
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.git import TOKEN
from runloopd.broker.tools.git_tools import git_tools
from tests.contract.raw_web import Authority
from tests.git_server import GitServer
from tests.unit.broker.test_mail import asked, decide
from tests.unit.broker.world import World, until, within

CANARY = "canary-9f1c-token-3a77"
SIGNED = "Basic " + base64.b64encode(f"x-access-token:{CANARY}".encode()).decode()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def servers(tmp_path: Path, authority: Authority) -> Iterator[tuple[GitServer, GitServer]]:
    """The one that the token is for, and another one that knows the token, too."""
    with ExitStack() as stack:
        made = []
        for name in ("ours", "theirs"):
            (tmp_path / name).mkdir()
            tls = authority.server(x509.IPAddress(ip_address("127.0.0.1")))
            made.append(stack.enter_context(GitServer(tmp_path / name, tls, CANARY)))
        yield made[0], made[1]


@pytest.fixture
async def world(tmp_path: Path, authority: Authority) -> AsyncIterator[World]:
    home = tmp_path / "home"
    home.mkdir()
    sandbox = Bubblewrap([home])
    world = World(home, ManualClock())
    world.sources.append(git_tools(sandbox, str(authority.file)))
    await world.start()
    await world.run()
    world.vault.put(TOKEN, CANARY)
    yield world
    await world.stop()
    await sandbox.close()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    (made / "readme").write_text("one\n")
    for words in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        ("-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "The beginning"),
    ):
        subprocess.run(["git", "-C", str(made), *words], check=True)
    return made


def head(repo: Path) -> str:
    words = ["git", "-C", str(repo), "rev-parse", "HEAD"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


async def push(world: World, repo: Path, server: GitServer, *others: GitServer) -> Answer:
    """Asked for, approved if anybody is asked, done or not."""
    places = json.dumps([one.place for one in (server, *others)])
    caller = await world.caller(
        f'tools = ["git.push"]\nfs_ro = ["{repo}"]\nnet = {places}\nsecrets = ["{TOKEN}"]'
    )
    args = {"repo": str(repo), "url": server.url, "branch": "topic", "commit": head(repo)}
    before = len(world.payloads("action.requested"))
    task = world.begin(caller, "tool.call", {"tool": "git.push", "args": args})
    await until(lambda: task.done() or len(world.payloads("action.requested")) > before)
    if not task.done():
        await decide(world)
        world.clock.advance(5_000)
    return await within(task)


@pytest.mark.requirement("I6.tools.8")
async def test_a_push_brings_the_token_to_the_place_it_is_for(
    world: World, repo: Path, servers: tuple[GitServer, GitServer]
) -> None:
    ours, theirs = servers
    await world.book.state_set(TOKEN, "memory", [ours.place], "operator:1000")
    answer = await push(world, repo, ours, theirs)
    assert answer.ok, answer.value
    assert ours.branches() == {"topic": head(repo)}
    assert set(ours.authorization) == {SIGNED} and theirs.authorization == []
    (used,) = world.payloads("secret.used")
    assert (used.name, used.by, used.to) == (TOKEN, "agent:writer", ours.place)
    assert CANARY not in json.dumps(answer.value)


@pytest.mark.requirement("I6.tools.8")
@pytest.mark.parametrize("bound", ["ours", "family", "nothing"])
async def test_another_place_that_may_be_pushed_to_is_not_told_the_token(
    world: World, repo: Path, servers: tuple[GitServer, GitServer], bound: str
) -> None:
    ours, theirs = servers
    if bound == "family":
        # As homes of before have it on record: the word for the tool, which was any place.
        await world.state(SecretSet(name=TOKEN, store="memory", destinations=["git"], principal="operator:1"))
    elif bound == "ours":
        await world.book.state_set(TOKEN, "memory", [ours.place], "operator:1000")
    answer = await push(world, repo, theirs, ours)
    assert answer.value["code"] == "tool.secrets"
    assert theirs.place in answer.value["message"]
    assert theirs.authorization == [] and theirs.branches() == {}
    assert world.payloads("action.requested") == [], "nobody is asked about what cannot be"
    assert world.payloads("secret.used") == []


@pytest.mark.requirement("I6.tools.8", "C1")
async def test_a_place_that_sends_on_to_another_takes_neither_the_push_nor_the_token_there(
    world: World, repo: Path, servers: tuple[GitServer, GitServer]
) -> None:
    ours, theirs = servers
    ours.elsewhere = theirs.place
    await world.book.state_set(TOKEN, "memory", [ours.place, theirs.place], "operator:1000")
    answer = await push(world, repo, ours, theirs)
    assert answer.value["code"] == "tool.unknown_outcome"
    assert theirs.authorization == [] and theirs.branches() == {}


async def test_what_a_person_reads_names_the_place_the_branch_and_the_commit(
    world: World, repo: Path, servers: tuple[GitServer, GitServer]
) -> None:
    ours, _ = servers
    await world.book.state_set(TOKEN, "memory", [ours.place], "operator:1000")
    caller = await world.caller(
        f'tools = ["git.push"]\nfs_ro = ["{repo}"]\nnet = ["{ours.place}"]\nsecrets = ["{TOKEN}"]'
    )
    args: dict[str, Any] = {"repo": str(repo), "url": ours.url, "branch": "topic", "commit": head(repo)}
    world.begin(caller, "tool.call", {"tool": "git.push", "args": args})
    approval = await asked(world)
    for word in args.values():
        assert word in approval.action["resource"]
    assert approval.action["secrets"] == [TOKEN]
    shown = world.reader.blob(approval.content_blob)
    assert CANARY.encode() not in shown and SIGNED.encode() not in shown
