"""Two runs to be killed at each of their writes: one sends a mail, the other does everything else."""

from __future__ import annotations

from runloop.config import shipped
from tests.home import Home
from tests.killing import Story

MANIFEST = """\
name = "jack"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Does what it is told: gives, adds, stumbles, remembers, asks, speaks, listens, writes."
ops = [
    "memory.get", "memory.put", "input.ask", "artifact.put",
    "msg.publish", "msg.subscribe", "msg.request", "msg.reply", "msg.next",
]

[ports.in.in]
type = "any"

[ports.out.out]
type = "any"
"""
SOURCE = """\
from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host


def give(task, host):
    return task.param("value")


def add(task, host):
    return task.port("in", 0) + task.param("value", 1)


def stumble(task, host):
    if task.context["attempt"] == 1:
        raise Fail("jack.stumbled", "the first time it does not work", retryable=True)
    return task.context["attempt"]


def remember(task, host):
    first = host.call("memory.put", {"key": "tone", "value": "warm", "expected_version": 0})
    second = host.call(
        "memory.put", {"key": "tone", "value": "cold", "expected_version": first["version"]}
    )
    return [second["version"], host.call("memory.get", {"key": "tone"})["value"]]


def ask(task, host):
    return host.ask("Which one?", choices=["red", "blue"])


def speak(task, host):
    host.publish("node/bob", "hello")
    return host.request("node/bob", "and?")["content"]


def listen(task, host):
    heard = []
    for message in host.listen():
        heard.append(message["content"])
        if message["act"] == "request":
            host.reply(message, "yes")
    return heard


def write(task, host):
    host.put_artifact("sums.txt", repr(task.port("in")))
    return len(task.port("in"))


@handler
def handle(task: Task, host: Host) -> Result:
    return Result.of(out=globals()[task.param("do")](task, host))
"""
INNER = """\
version: 0
name: inner
params:
  x: {type: any}
nodes:
  - {id: first, use: "agent:jack", with: {do: add, value: "{{params.x}}"}}
  - {id: second, use: "agent:jack", with: {do: add}}
edges:
  - {from: first.out, to: second.in}
artifacts: {save: [second.out]}
"""
OUTER = """\
version: 0
name: everything
nodes:
  - {id: list, use: "agent:jack", with: {do: give, value: [1, 2]}}
  - {id: each, use: "opening:inner", for_each: {port: x, concurrency: 2}}
  - {id: paper, use: "agent:jack", with: {do: write}}
  - id: shaky
    use: "agent:jack"
    with: {do: stumble}
    retry: {max_attempts: 2, backoff_ms: 20}
  - {id: keeper, use: "agent:jack", with: {do: remember}}
  - {id: asker, use: "agent:jack", with: {do: ask}}
  - {id: ann, use: "agent:jack", with: {do: speak}}
  - {id: bob, use: "agent:jack", with: {do: listen}}
  - {id: never, use: "agent:jack", with: {do: give, value: 0}}
edges:
  - {from: list.out, to: each.x}
  - {from: each.out, to: paper.in}
  - {from: asker.out == "red", to: never.in}
artifacts: {save: [paper.out]}
"""


def settle_jack(home: Home) -> None:
    """Put the one agent of the second run beside its home."""
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    folder = home.path / "agents" / "jack"
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST)
    (folder / "agent.py").write_text(SOURCE)
    (folder / "tools.json").write_text('{"version": 1, "tools": []}')
    (folder / "policy.caps").write_text("[capabilities]\npromises = true\ntalk = true\n")
    for page in ("README.md", "LICENSE"):
        (folder / page).write_text("A test's own.")


COMPOSE = Story(
    name="compose_email",
    source=(shipped("openings") / "compose_email.yaml").read_text(),
    params={"recipient": "john", "topic": "Q4 plan"},
    mails=1,
)
EVERYTHING = Story(
    name="everything",
    source=OUTER,
    params={},
    openings={"inner": INNER},
    answer="blue",
    settle=settle_jack,
)
