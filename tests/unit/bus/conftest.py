"""Tests of the bus run twice where the compiled step is built: with it, and without it."""

from __future__ import annotations

import pytest

from runloopd.bus.gather import implementations


@pytest.fixture(params=["python", "native"])
def either_step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The implementation that every bus of this test takes (runloopd.bus.gather)."""
    name: str = request.param
    if name not in implementations():
        pytest.skip("the compiled step is not built: apt install gcc libc6-dev python3-dev, then make setup")
    monkeypatch.setenv("RUNLOOP_NATIVE", "1" if name == "native" else "0")
    return name
