"""What programs outside may have done in their own name, and in no other."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.errors import NotFoundError, UsageError
from runloopd.bus.principal import Principal
from runloopd.gateway.faces import CancelFor, FaceMethods

OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)


class OneRun:
    """A run of the client ``desk``."""

    def __init__(self) -> None:
        self.cancelled: list[tuple[str, str]] = []

    async def principal(self, run: str) -> str | None:
        return "face:desk" if run == "r1" else None

    async def cancel(self, principal: Principal, run: str, reason: str) -> None:
        self.cancelled.append((principal.label, run))


@pytest.mark.requirement("I6.faces.12")
async def test_a_client_cancels_what_it_asked_for_and_nothing_else() -> None:
    runs: Any = OneRun()
    nothing: Any = None
    methods = FaceMethods(nothing, runs=runs, knowledge=nothing, sources=(), rights=nothing)
    cancel = {name: call for name, _, call, _ in methods.rows()}["face.cancel"]
    for client, run in (("other", "r1"), ("desk", "r2")):
        with pytest.raises(NotFoundError):
            await cancel(OPERATOR, CancelFor(client=client, run=run))
    with pytest.raises(UsageError):
        await cancel(OPERATOR, CancelFor(client="acp:desk", run="r1"))
    assert runs.cancelled == []
    await cancel(OPERATOR, CancelFor(client="desk", run="r1"))
    assert runs.cancelled == [("face:desk", "r1")]
