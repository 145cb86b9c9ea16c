"""What may be asked of the runtime."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.errors import UsageError
from runloopd.runtime.orders import MIB, AttemptOrder, GuestLimits


@pytest.mark.parametrize(
    "wrong",
    [
        {"fuel": 0},
        {"fuel": 2**53},
        {"memory_bytes": 65_535},
        {"memory_bytes": 2049 * MIB},
        {"guest_ms": 0},
        {"host_calls": -1},
        {"request_bytes": 8 * MIB},
        {"output_bytes": 1},
        {"fuel": 1.5},
        {"fuel": True},
    ],
)
def test_a_limit_out_of_its_bounds_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        GuestLimits(**wrong)


def test_the_stricter_of_two_limits_holds_field_by_field() -> None:
    ours = GuestLimits(
        fuel=10, memory_bytes=MIB, guest_ms=5, host_calls=3, request_bytes=100, output_bytes=200
    )
    theirs = GuestLimits(
        fuel=5, memory_bytes=2 * MIB, guest_ms=9, host_calls=1, request_bytes=200, output_bytes=100
    )
    expected = GuestLimits(
        fuel=5, memory_bytes=MIB, guest_ms=5, host_calls=1, request_bytes=100, output_bytes=100
    )
    assert ours.narrowed(theirs) == theirs.narrowed(ours) == expected


def test_an_order_names_a_digest_and_can_be_given_another_input() -> None:
    order = AttemptOrder(
        run="r", node="n", attempt=1, component_digest="0" * 64, source=None, entrypoint="", input={}
    )
    assert order.with_input({"a": 1}).input == {"a": 1}
    assert order.input == {}
    with pytest.raises(UsageError, match="component digest"):
        AttemptOrder(
            run="r", node="n", attempt=1, component_digest="../x", source=None, entrypoint="", input={}
        )
