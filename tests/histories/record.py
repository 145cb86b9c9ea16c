"""Record a golden history: ``python -m tests.histories.record NAME``; see ``test_histories.py``.

A history is the events of one run, one JSON object a line, as ``run.events`` gives them. Once recorded it is
never recorded again: it stands for a run somebody made with that build, which every later build must still
explain. A change of the engine that an old history would contradict needs a new logic number.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runloop.events import PromiseCreated
from tests.contract.scripted_model import ScriptedModel, Wanted, call, calls, say
from tests.home import Home, example_paths, wait_until

HERE = Path(__file__).parent

RETRIED = """
version: 0
name: retried
nodes:
  - id: who
    use: "agent:contact_resolver"
    with: {query: nobody at all}
    retry: {max_attempts: 2, backoff_ms: 50}
  - {id: other, use: "agent:contact_resolver", with: {query: john}}
  - {id: never, use: "agent:critic"}
edges:
  - {from: who.out, to: never.in}
success: {any_of: ["exists(other.out)"]}
"""


def approved(home: Home) -> None:
    """compose_email, confirmed."""
    home.play().check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", str(waiting["approval"])).check()


def denied(home: Home) -> None:
    """compose_email, refused by the person."""
    home.play().check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("deny", str(waiting["approval"])).check()


def crashed(home: Home) -> None:
    """compose_email, whose daemon was killed while it waited for the person."""
    home.play().check(5)
    home.kill()
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", str(waiting["approval"])).check()


def partly_failed(home: Home) -> None:
    """One branch fails for good, its join is skipped, the other branch makes the run succeed."""
    path = home.path / "retried.yaml"
    path.write_text(RETRIED)
    home.rlp("import", str(Path(__file__).parents[2] / "docs" / "examples" / "contacts.vcf")).check()
    home.rlp("run", str(path), "--no-input")


AGENT = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    given = task.port("in", task.param("in", None))
    do = task.param("do", None)
    if do == "wait":
        made = host.call("promise.create", {"timeout_ms": 600_000})
        host.call("promise.await", {"promise": made["promise"]})
    elif do == "remember":
        host.memory_put("seen", given)
        return Result.of(out=list(host.memory_get("seen")))
    return Result.of(out=given)
"""
MANIFEST = """\
name = "teller"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Tells, waits, remembers."
ops = ["promise.create", "promise.await", "memory.get", "memory.put"]

[ports.in.in]
type = "any"

[ports.out.out]
type = "any"
"""
INNER = """
version: 0
name: inner
params: {x: {type: any}}
nodes:
  - {id: only, use: "agent:teller"}
  - {id: told, use: "agent:teller", with: {in: "{{params.x}}"}}
edges: [{from: told.out, to: only.in}]
artifacts: {save: [only.out]}
"""
MAPPED = """
version: 0
name: mapped
nodes:
  - {id: list, use: "agent:teller", with: {in: [1, 2, 3]}}
  - {id: each, use: "agent:teller", with: {do: remember}, for_each: {port: in, concurrency: 2}}
  - {id: deep, use: "opening:inner", for_each: {port: x, concurrency: 2}}
edges:
  - {from: list.out, to: each.in}
  - {from: each.out, to: deep.x}
artifacts: {save: [deep.out]}
"""
LATE = """
version: 0
name: late
nodes:
  - id: slow
    use: "agent:teller"
    with: {do: wait}
    timeout_ms: 700
    retry: {max_attempts: 2, backoff_ms: 50}
  - {id: other, use: "agent:teller", with: {in: 1}}
success: {any_of: ["exists(other.out)"]}
"""
WAITS = """
version: 0
name: waits
nodes: [{id: who, use: "agent:teller", with: {do: DO}}]
"""


def teller(home: Home, **openings: str) -> None:
    """The agent of these stories, and the openings they are about."""
    home.write_agent("teller", MANIFEST, AGENT, "promises = true\nmemory = true\n")
    (home.path / "openings").mkdir(exist_ok=True)
    for name, text in openings.items():
        (home.path / "openings" / f"{name}.yaml").write_text(text)


def mapped(home: Home) -> None:
    """A list is mapped by an agent that remembers, then by a nested opening."""
    teller(home, inner=INNER, mapped=MAPPED)
    home.rlp("run", str(home.path / "openings" / "mapped.yaml"), "--no-input").check()


def timed_out(home: Home) -> None:
    """A node runs out of time twice, with a wait between."""
    teller(home, late=LATE)
    home.rlp("run", str(home.path / "openings" / "late.yaml"), "--no-input").check()


def cancelled(home: Home) -> None:
    """A run is cancelled while its only agent waits for a word."""
    teller(home, waits=WAITS.replace("DO", "wait"))
    home.rlp("run", str(home.path / "openings" / "waits.yaml"), "--no-input", "--detach")
    wait_until(lambda: bool(home.events("promise.created")), "the agent to wait")
    home.rlp("cancel", str(home.events("run.started")[0].run)).check()


def assisted(home: Home) -> None:
    """The assistant finds notes, asks the user, has a mail approved, and answers."""
    script = [
        call("kb_find", text="I look.", query="rollout", kinds=["note"], newest=True, limit=2),
        calls(Wanted("ask_user", {"question": "Which day?"}), Wanted("kb_fnid", {"query": "x"})),
        call("mail_send", to=["John Carter"], subject="The rollout", body="On the day you know."),
        say("It is sent."),
    ]
    home.rlp("import", *map(str, example_paths())).check()
    home.rlp("daemon", "stop").check()
    model = ScriptedModel(script)
    with model:
        home.env.update(model.env())
        home.rlp("? tell john about the rollout", "--no-input").check(5)
        asked = home.events("promise.created")[0].payload
        assert isinstance(asked, PromiseCreated)
        home.rlp("promise", "resolve", asked.promise, "Friday", "--text").check()
        wait_until(lambda: bool(home.events("action.requested")), "the mail to be shown")
        (waiting,) = home.rlp("approvals", "--json").check().ndjson
        home.rlp("approve", str(waiting["approval"])).check()
        wait_until(lambda: _is_over(home), "the answer")


STORIES: dict[str, Callable[[Home], None]] = {
    "approved": approved,
    "denied": denied,
    "crashed": crashed,
    "partly_failed": partly_failed,
    "mapped": mapped,
    "timed_out": timed_out,
    "cancelled": cancelled,
    "assisted": assisted,
}


def main(name: str) -> None:
    """Play one story and write its events."""
    target = HERE / f"{name}.jsonl"
    if target.exists():
        sys.exit(f"{target.name} exists; a history is recorded once")
    with tempfile.TemporaryDirectory(prefix="g") as folder, Home(Path(folder)) as home:
        lines = told(home, name)
    target.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def told(home: Home, name: str) -> list[dict[str, Any]]:
    """Play a story in an empty home; its events."""
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    home.rlp("daemon", "start", timeout=300).check()
    wait_until(home.agents_ready, "the agents to be compiled")
    STORIES[name](home)
    wait_until(lambda: _is_over(home), "the run to finish")
    lines = [event.to_json() for event in home.events() if event.run is not None]
    for line in lines:
        line["payload"].get("origin", {}).pop("source_path", None)  # a path of this machine
    return lines


def _is_over(home: Home) -> bool:
    started = home.events("run.started")
    return bool(started) and len(home.events("run.finished")) == len(started)


if __name__ == "__main__":
    main(sys.argv[1])
