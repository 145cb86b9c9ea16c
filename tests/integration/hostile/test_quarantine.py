"""An agent that flaps in a running daemon is stopped, stays stopped, and comes back when a person says so."""

from __future__ import annotations

import pytest

from tests.home import wait_until
from tests.integration.hostile.conftest import Den, code_of
from tests.integration.hostile.corpus import good
from tests.unit.runtime.guests import component


def restart(den: Den, **settings: str) -> None:
    den.home.env.update(settings)
    den.home.rlp("daemon", "stop").check()
    den.home.rlp("daemon", "start").check()


@pytest.mark.requirement("I3.sandbox.4")
def test_an_agent_that_keeps_trapping_is_quarantined_across_restarts_until_it_is_released(den: Den) -> None:
    restart(den, RUNLOOP__BREAKER__FAILURES="3")
    folder = den.place({"flapping": component("(unreachable)"), "good": good()}, where="flap")
    for _ in range(3):
        den.run(folder).check(1)
    wait_until(lambda: bool(den.of("agent.quarantined")), "the quarantine to be stated")
    (fact,) = den.facts("agent.quarantined")
    failures = [e for e in den.of("node.finished") if e.payload.node == "flapping"]  # type: ignore[attr-defined]
    assert (fact.name, fact.by, fact.evidence) == ("flapping", "breaker", [e.id for e in failures])
    assert fact.bundle == failures[-1].provenance.bundle

    for _ in range(2):
        refused = den.run(folder)
        refused.check(4)
        assert code_of(refused) == "agent.quarantined"
        assert "rlp agent release flapping" in refused.err
        assert len(den.of("run.started")) == 3
        restart(den)
    (shown,) = den.home.rlp("agent", "held", "--json").check().ndjson
    assert (shown["agent"], shown["by"]) == ("flapping", "breaker")
    den.serves()

    den.home.rlp("agent", "release", "flapping", "--reason", "mended").check()
    for _ in range(2):  # counted anew: two are not three
        den.run(folder).check(1)
    den.run(folder).check(1)
    assert den.run(folder).code == 4


def test_the_operator_stops_an_agent_by_hand_and_its_next_attempt_in_a_run_under_way_too(den: Den) -> None:
    den.home.play().check(5)  # the mailer waits for a person
    den.home.rlp("agent", "quarantine", "mailer", "--reason", "looks odd").check()
    assert den.home.rlp("agent", "quarantine", "mailer").code == 8
    (waiting,) = den.home.rlp("approvals", "--json").check().ndjson
    den.home.rlp("approve", str(waiting["approval"]))
    wait_until(lambda: bool(den.of("run.finished")), "the run to end")
    assert den.home.outbox() == []
    refused = den.home.rlp("run", "compose_email", "-p", "recipient=john", "-p", "topic=x", "--no-input")
    assert refused.code == 4
    assert "looks odd" in refused.err
    den.home.rlp("agent", "release", "mailer").check()
    assert den.home.rlp("agent", "release", "mailer").code == 7
