"""What the gate remembers of an attempt, however many calls it makes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runloopd.broker.record import Attempt, Delivered


def answer(event: int, op: str, effect: str, args: str) -> Delivered:
    return Delivered(event=event, op=op, effect=effect, args_digest=args, ok=True, result_digest="")


HEARD = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["pure", "read"]),
        st.sampled_from("xy"),
    ),
    max_size=30,
)


@given(HEARD, st.integers(0, 10))
def test_calls_are_counted_and_told_as_a_look_at_all_of_them_would(
    heard: list[tuple[int, str, str, str]], before: int
) -> None:
    attempt = Attempt()
    for event, (number, op, effect, args) in enumerate(heard):
        attempt.hear(number, answer(event, op, effect, args))
    calls = sorted(attempt.calls.items())
    assert len(calls) == len({number for number, *_ in heard})
    assert attempt.seen(before) == tuple(
        call.event for number, call in calls if number < before and call.effect != "pure"
    )
    for op in "ab":
        for args in "xy":
            alike = [number for number, call in calls if (call.op, call.args_digest) == (op, args)]
            assert attempt.ordinal(op, args, before) == sum(number < before for number in alike)
