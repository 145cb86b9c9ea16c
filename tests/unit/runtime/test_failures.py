"""Which end of an attempt means what."""

from __future__ import annotations

import json

import pytest

from runloopd.runtime.failures import FLAPPING, RESERVED, RETRYABLE, FailureClass, failure_class
from runloopd.runtime.session import guest_error


def test_only_a_lost_worker_is_worth_the_same_execution_again() -> None:
    assert failure_class("guest.crashed") is FailureClass.TRANSIENT
    assert failure_class("guest.breach") is FailureClass.BREACH
    for code in RESERVED - {"guest.crashed", "guest.breach"} | {"contact.ambiguous", "guest.error"}:
        assert failure_class(code) is FailureClass.PERMANENT


def test_a_breach_and_a_quarantine_are_never_tried_again() -> None:
    assert not RETRYABLE & {"guest.breach", "agent.quarantined", "quota.exceeded", "guest.trap"}


def test_a_deadline_does_not_count_against_an_agent() -> None:
    assert "guest.deadline" not in FLAPPING
    assert FLAPPING <= RESERVED, "a guest could blacken itself or hide"


@pytest.mark.parametrize("code", sorted(RESERVED))
def test_what_only_the_host_states_cannot_be_claimed_by_a_guest(code: str) -> None:
    assert guest_error(json.dumps({"code": code, "message": "m"})).code == "guest.error"
