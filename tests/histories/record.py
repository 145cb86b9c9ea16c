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

from tests.home import Home, wait_until

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


STORIES: dict[str, Callable[[Home], None]] = {
    "approved": approved,
    "denied": denied,
    "crashed": crashed,
    "partly_failed": partly_failed,
}


def main(name: str) -> None:
    """Play one story and write its events."""
    target = HERE / f"{name}.jsonl"
    if target.exists():
        sys.exit(f"{target.name} exists; a history is recorded once")
    with tempfile.TemporaryDirectory(prefix="g") as folder, Home(Path(folder)) as home:
        home.rlp("daemon", "start").check()
        wait_until(home.agents_ready, "the agents to be compiled")
        STORIES[name](home)
        wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
        lines = [event.to_json() for event in home.events() if event.run is not None]
    for line in lines:
        line["payload"].get("origin", {}).pop("source_path", None)  # a path of this machine
    target.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1])
