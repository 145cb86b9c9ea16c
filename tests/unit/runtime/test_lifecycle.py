"""The table of spec/capabilities.md, and nothing beside it."""

from __future__ import annotations

import itertools

import pytest

from runloopd.runtime.lifecycle import MOVES, LifecycleError, State, Trigger, move

SPEC = """
DEFINED spawn SPAWNED
SPAWNED activate ACTIVE
ACTIVE yield WAITING
ACTIVE await_tool WAITING
ACTIVE complete COMPLETING
ACTIVE error FAULTED
ACTIVE suspend RESUMABLE
WAITING resume ACTIVE
WAITING timeout FAULTED
WAITING error FAULTED
RESUMABLE resume ACTIVE
RESUMABLE expire TERMINATED
COMPLETING teardown_ok TERMINATED
COMPLETING error FAULTED
FAULTED recover RECOVERING
FAULTED abandon TERMINATED
RECOVERING recovery_success ACTIVE
RECOVERING recovery_exhausted TERMINATED
SPAWNED breach TERMINATED
ACTIVE breach TERMINATED
WAITING breach TERMINATED
RESUMABLE breach TERMINATED
COMPLETING breach TERMINATED
FAULTED breach TERMINATED
RECOVERING breach TERMINATED
"""


def test_the_table_is_the_specs_table() -> None:
    written = {tuple(line.split()) for line in SPEC.strip().splitlines()}
    assert {(s.value, t.value, after.value) for (s, t), after in MOVES.items()} == written


@pytest.mark.parametrize(("state", "trigger"), [*itertools.product(State, Trigger)])
def test_a_move_is_in_the_table_or_refused(state: State, trigger: Trigger) -> None:
    if (state, trigger) in MOVES:
        assert move(state, trigger) is MOVES[state, trigger]
    else:
        with pytest.raises(LifecycleError, match="cannot") as refused:
            move(state, trigger)
        assert (refused.value.state, refused.value.trigger) == (state, trigger)
        assert refused.value.code == "lifecycle.move"


def test_nothing_leaves_the_end() -> None:
    assert not [trigger for state, trigger in MOVES if state is State.TERMINATED]


def test_the_hint_names_the_legal_moves() -> None:
    with pytest.raises(LifecycleError) as refused:
        move(State.WAITING, Trigger.SPAWN)
    assert refused.value.hint == "legal from here: breach, error, resume, timeout"
