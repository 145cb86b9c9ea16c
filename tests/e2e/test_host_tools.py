"""The host's tools as a user meets them: an agent looks, runs a program, has a line approved; a replay."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from runloop.events import NodeFinished
from tests.contract.raw_web import Authority
from tests.git_server import GitServer
from tests.home import Home, wait_until

MANIFEST = """\
name = "hand"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Calls tools of the host."
ops = ["tool.call", "tool.list"]

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard = {"tools": sorted(tool["id"] for tool in host.call("tool.list", {})["tools"])}
    for name, tool, args in task.param("asks"):
        try:
            heard[name] = host.call("tool.call", {"tool": tool, "args": args})["result"]
        except HostRefused as refused:
            heard[name] = refused.code
    return Result.of(out=heard)
"""

TOKEN = "canary-team-token-51c0"


def repository(folder: Path) -> str:
    """Made here, with one commit."""

    def git(*words: str) -> str:
        people = ("-c", "user.name=T", "-c", "user.email=t@example.org")
        done = subprocess.run(
            ["git", "-C", str(folder), *people, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "The beginning")
    return git("rev-parse", "HEAD")


@pytest.fixture
def remote(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """Where a team keeps its repository, with a certificate that only this home trusts."""
    folder = tmp_path_factory.mktemp("remote")
    authority = Authority(folder)
    home.env["RUNLOOP__SECURITY__WEB_AUTHORITIES"] = str(authority.file)
    with GitServer(folder, authority.server(x509.IPAddress(ip_address("127.0.0.1"))), TOKEN) as made:
        yield made


@pytest.mark.requirement("I6.host.3", "I6.tools.8")
@pytest.mark.requirement("I6.programs.2")
def test_an_agent_uses_the_hosts_tools_and_the_run_replays_without_them(
    home: Home, remote: GitServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("docs")
    commit = repository(folder)
    (folder / "plan.txt").write_text("the rollout is on Monday\n")
    grants = (
        f'fs_rw = {json.dumps([str(folder)])}\nexec = ["sort"]\n'
        f'net = ["{remote.place}"]\nsecrets = ["runloop/git/token"]\n'
        'tools = ["files.search", "exec.run", "exec.ask", "git.push", "git.status", "shell.run"]\n'
    )
    home.write_agent("hand", MANIFEST, SOURCE, grants)
    home.rlp("secret", "set", "runloop/git/token", "--for", remote.place, stdin=TOKEN).check()
    asks = [
        ["found", "files.search", {"path": str(folder), "text": "rollout"}],
        ["sorted", "exec.run", {"argv": ["sort"], "stdin": "b\na\n"}],
        ["status", "git.status", {"repo": str(folder)}],
        ["denied", "exec.ask", {"argv": ["id"]}],
        ["unknown", "files.delete", {"path": f"{folder}/plan.txt"}],
        ["line", "shell.run", {"line": f"ls {home.path}; wc -l < {folder}/plan.txt", "cwd": str(folder)}],
        ["pushed", "git.push", {"repo": str(folder), "url": remote.url, "branch": "plan", "commit": commit}],
    ]
    path = home.path / "hand.yaml"
    path.write_text(
        "version: 0\nname: hand\nnodes:\n"
        f'  - id: hand\n    use: "agent:hand"\n    with: {{asks: {json.dumps(asks)}}}\n'
    )
    home.rlp("run", str(path), "--no-input", "--json").check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    assert "shell.run" in home.rlp("approvals").check().out
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: len(home.events("action.requested")) == 2, "the second question")
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    assert remote.url in waiting["action"]["resource"] and remote.authorization == []
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
    end = home.events("node.finished")[-1].payload
    assert isinstance(end, NodeFinished) and end.output is not None
    heard = end.output["ports"]["out"][0]
    assert heard["tools"] == ["exec.ask", "exec.run", "files.search", "git.push", "git.status", "shell.run"]
    assert heard["found"]["matches"][0]["line"] == 1
    assert heard["sorted"]["stdout"] == "a\nb\n"
    assert heard["status"]["files"] == [{"state": "??", "path": "plan.txt"}]
    assert (heard["denied"], heard["unknown"]) == ("cap.denied", "cap.denied")
    assert heard["line"]["stdout"].strip() == "1" and "No such file" in heard["line"]["stderr"]
    assert remote.branches() == {"plan": commit} and TOKEN not in json.dumps(heard)
    pushes = len(remote.authorization)
    rows = {row["name"]: row for row in home.rlp("doctor", "--json").ndjson}
    assert rows["programs"]["state"] == "ok" and "Landlock" in rows["programs"]["found"]

    shutil.rmtree(folder)
    report = home.rlp("replay", str(home.events("run.started")[0].run), "--json").check().json
    assert report["identical"] is True and len(remote.authorization) == pushes
