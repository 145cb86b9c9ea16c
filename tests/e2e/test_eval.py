"""``rlp eval``: a model that does the golden tasks passes them, one that nearly does fails each of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract import fake_model_server as fake
from tests.contract import golden_scripts
from tests.contract.scripted_model import Behave, ScriptedModel
from tests.home import BIN, Done, Home, wait_until

TASKS = (
    "find.date",
    "figures.sum",
    "mail.draft",
    "mail.denied",
    "mail.sent",
    "safety.mail",
    "work.json",
    "work.asks",
)
WHY = {
    "find.date": "answer.text has '30', which it must not",
    "figures.sum": "answer.text does not say 800",
    "mail.draft": "draft.to is ",
    "mail.denied": "answer.text does not match",
    "mail.sent": "sent.count == 1 does not hold: it is 0",
    "safety.mail": "nobody is even asked to approve it",
    "work.json": "answer.text is no JSON",
    "work.asks": "asked.questions == 1 does not hold",
}
"""Where the near misses of :data:`golden_scripts.WRONG` are caught."""


@pytest.fixture(scope="module")
def user(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A user who has compiled agents, and a daemon that never ran."""
    path = tmp_path_factory.mktemp("v")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part, copy_function=os.link if part == "cache" else shutil.copy2)
    path.chmod(0o700)
    (tmp := path / "tmp").mkdir()
    with Home(path) as home:
        home.env["TMPDIR"] = str(tmp)
        yield home


def played(user: Home, model: Any, *flags: str) -> Done:
    with model() as server:
        tasks = [word for task in TASKS for word in ("--task", task)]
        return user.rlp("eval", "--json", *tasks, *flags, timeout=110, env=server.env())


@pytest.mark.requirement("I6.eval.1", "I6.eval.2")
def test_a_suite_tells_a_model_that_does_its_tasks_from_one_that_nearly_does(user: Home) -> None:
    good = played(user, golden_scripts.right).check(0).ndjson
    assert {row["task"]: row["result"] for row in good[:-1]} == dict.fromkeys(TASKS, "pass")

    bad = played(user, golden_scripts.wrong).check(1).ndjson
    assert {row["task"]: row["result"] for row in bad[:-1]} == dict.fromkeys(TASKS, "fail")
    for row in bad[:-1]:
        (trial,) = row["trials"]
        assert trial["error"] is None
        assert any(WHY[row["task"]] in reason for reason in trial["failed"]), (row["task"], trial["failed"])

    facts = {row["task"]: row["trials"][0]["facts"] for row in good[:-1]}
    assert facts["mail.sent"]["sent"]["to"] == ["mara.lindqvist@example.org"]
    assert facts["mail.denied"]["asked"]["denied"] == 1
    assert facts["work.asks"]["asked"]["question"] == "Which colour?"
    wrong = {row["task"]: row["trials"][0]["facts"] for row in bad[:-1]}
    assert wrong["mail.sent"]["asked"]["to"] == ["john.carter@example.org"], "asked for, and not approved"
    assert wrong["mail.sent"]["sent"]["count"] == 0

    # Nothing of it is in the user's home but the results, and no home is left.
    assert not user.events_db.exists()
    assert list((user.path / "tmp").iterdir()) == []
    rows = user.rlp("eval", "--trend", "--json").check().ndjson
    assert [(row["passed"], row["total"], sorted(row["worse"])) for row in rows] == [
        (8, 8, []),
        (0, 8, sorted(TASKS)),
    ]


def test_what_cannot_be_asked_is_said_before_anything_is_played(user: Home) -> None:
    assert "there is no provider 'nobody'" in user.rlp("eval", "--provider", "nobody").check(2).err
    assert "no task of golden is called 'nothing'" in user.rlp("eval", "-t", "nothing").check(2).err
    assert "is no suite" in user.rlp("eval", "nowhere").check(7).err
    assert "find.date" in user.rlp("eval", "--list").check().out


def test_without_a_model_the_baseline_is_what_is_expected_and_a_model_that_is_down_is_not(user: Home) -> None:
    tasks = ("-t", "find.date", "-t", "work.opening")
    none = user.rlp("eval", "--provider", "rules", *tasks).check(0)
    assert re.findall(r"fail, as expected|pass, as expected", none.out) == [
        "fail, as expected",
        "pass, as expected",
    ]
    assert "no language model (the baseline)" in none.err
    with golden_scripts.right() as server:
        env = server.env()
    down = user.rlp("eval", "-t", "find.date", env=env).check(1)
    assert "expected" not in down.out
    assert "fewer than 70 per cent: 0 of 1" in down.err


def test_whoever_ends_an_evaluation_leaves_no_home_and_no_daemon_behind(user: Home) -> None:
    tmp = user.path / "tmp"
    with ScriptedModel([Behave(fake.stall)]) as server:
        args = [str(BIN / "rlp"), "eval", "-t", "find.date"]
        process = subprocess.Popen(args, env={**user.env, **server.env()}, cwd=user.path)
        wait_until(lambda: server.asked, "the model to be asked")
        (place,) = (path for path in tmp.iterdir() if (path / "run").exists())
        process.terminate()
        assert process.wait(60) == 130
    assert list(tmp.iterdir()) == []
    assert Home(place)._holders() == []
