"""kill -9 at every hop: after a restart the run goes on where it was, and nothing is sent twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runloop.events import ActionDecided, NodeFinished, RunFinished
from tests.home import ROOT, Home, example_paths, wait_gone, wait_until

HOPS = [
    ("run.started", 1),
    ("token.issued", 1),
    ("node.scheduled", 1),
    ("message.sent", 1),
    ("agent.transition", 1),
    ("hostcall.delivered", 1),
    ("message.sent", 2),
    ("node.finished", 1),
    ("node.scheduled", 3),
    ("hostcall.admitted", 1),
    ("model.called", 1),
    ("action.requested", 1),
    ("action.decided", 1),
    ("action.claimed", 1),
    ("email.sent", 1),
    ("node.finished", 5),
    ("run.finished", 1),
]


class Mortal:
    """A daemon that will kill itself at a given fact."""

    def __init__(self, home: Home, kind: str, nth: int, moment: str) -> None:
        self.home = home
        log = (home.path / "mortal.log").open("w")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.e2e.crashing_daemon", "--home", str(home.path)),
                *("--kind", kind, "--nth", str(nth), "--moment", moment),
            ],
            env=home.env,
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        wait_until(lambda: home.rlp("daemon", "status").code == 0, "the mortal daemon to listen")

    def wait_dead(self) -> None:
        self.process.wait(60)
        assert self.process.returncode == -9, (self.home.path / "mortal.log").read_text()


def open_approvals(home: Home) -> list[str]:
    return [str(item["approval"]) for item in home.rlp("approvals", "--json").check().ndjson]


@pytest.mark.requirement("C5", "L6", "I2.engine.6", "I2.faults.3")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("kind", "nth"), HOPS, ids=[f"{kind}-{nth}" for kind, nth in HOPS])
def test_a_daemon_killed_at_a_hop_continues_the_run_and_sends_one_mail(
    home: Home, kind: str, nth: int, moment: str
) -> None:
    home.rlp("import", *map(str, example_paths())).check()
    home.rlp("daemon", "stop").check()
    wait_gone_daemon(home)

    mortal = Mortal(home, kind, nth, moment)
    flags = ["-p", "recipient=john", "-p", "topic=Q4 plan"]
    code = home.rlp("run", "compose_email", *flags, "--no-input", env={"RUNLOOP_NO_AUTOSTART": "1"}).code
    if code == 5:  # it lived to ask
        (approval,) = open_approvals(home)
        home.rlp("approve", approval)
    mortal.wait_dead()

    home.rlp("daemon", "start").check()
    if not home.events("run.started"):
        assert (kind, moment) == ("run.started", "before")
        assert code == 3
        return

    def settled() -> bool:
        return bool(open_approvals(home) or home.events("run.finished"))

    wait_until(settled, "the run to ask or to finish")
    for approval in open_approvals(home):
        home.rlp("approve", approval).check()
    wait_until(lambda: bool(home.events("run.finished")), "the run to finish")

    (finished,) = home.events("run.finished")
    assert isinstance(finished.payload, RunFinished)
    assert finished.payload.outcome == "succeeded"
    assert finished.payload.error is None
    assert len(home.outbox()) == 1
    ended = [e.payload for e in home.events("node.finished")]
    assert sorted(p.node for p in ended if isinstance(p, NodeFinished)) == [
        "contacts",
        "context",
        "draft",
        "review",
        "send",
    ]
    decided = [e.payload for e in home.events("action.decided")]
    assert [p.decision for p in decided if isinstance(p, ActionDecided)] == ["approved"]
    run = finished.run
    assert run is not None
    assert "identical" in home.rlp("replay", run).check().out
    home.rlp("daemon", "stop").check()
    home.rlp("verify").check()


def wait_gone_daemon(home: Home) -> None:
    for pid in home._holders():
        wait_gone(pid)
