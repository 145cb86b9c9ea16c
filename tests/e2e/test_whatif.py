"""What would have been: the installed commands on a real daemon, real guests, a real outbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_forks import newest, sent_once
from tests.home import Home


def tested(home: Home, file: Path, *more: str, code: int = 6) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.rlp("policy", "test", str(file), *more, "--json").check(code).ndjson
    return found


def test_the_main_job_under_other_policies(home: Home, tmp_path: Path) -> None:
    run = sent_once(home)
    head = len(home.events())
    same = tmp_path / "same.caps"
    same.write_text("[capabilities]\nmail = true\n")
    (told,) = tested(home, same, "--agent", "mailer", "--rerun", code=0)
    print(json.dumps(told, indent=1))
    none = tmp_path / "none.caps"
    none.write_text("[capabilities]\nmail = []\n")
    print(json.dumps(tested(home, none, "--agent", "mailer"), indent=1))
    print(home.rlp("policy", "test", str(none)).check(6).out)
    for agent in ("mailer", "contact_resolver", "context_gatherer", "writer", "critic"):
        done = home.rlp("cap", "shrink", agent)
        print(agent, done.code, done.out, done.err)
    done = home.rlp("replay", run, "--faults")
    print(done.code, done.out, done.err)
    assert len(home.events()) == head
