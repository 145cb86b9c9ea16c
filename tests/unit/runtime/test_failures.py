"""Which end of an attempt means what."""

from __future__ import annotations

import json

import pytest

from runloopd.runtime.failures import FLAPPING, RESERVED, RETRYABLE, FailureClass, failure_class
from runloopd.runtime.session import guest_error


def test_only_a_lost_worker_is_worth_the_same_execution_again() -> None:
    assert failure_class("guest.crashed") is FailureClass.TRANSIENT
    assert failure_class("guest.breach") is FailureClass.BREACH
    assert failure_class("guest.restarted") is FailureClass.TRANSIENT
    lost = {"guest.crashed", "guest.restarted", "guest.breach"}
    for code in RESERVED - lost | {"contact.ambiguous", "guest.error"}:
        assert failure_class(code) is FailureClass.PERMANENT


def test_a_breach_and_a_quarantine_are_never_tried_again() -> None:
    assert not RETRYABLE & {"guest.breach", "agent.quarantined", "quota.exceeded", "guest.trap"}


def test_neither_the_clock_nor_the_operators_hand_counts_against_an_agent() -> None:
    assert not FLAPPING & {"guest.deadline", "guest.killed", "guest.restarted"}
    assert {"guest.killed", "guest.restarted"} <= RESERVED, "a guest could say that a person ended it"
    assert FLAPPING <= RESERVED, "a guest could blacken itself or hide"


@pytest.mark.parametrize("code", sorted(RESERVED))
def test_what_only_the_host_states_cannot_be_claimed_by_a_guest(code: str) -> None:
    assert guest_error(json.dumps({"code": code, "message": "m"})).code == "guest.error"
