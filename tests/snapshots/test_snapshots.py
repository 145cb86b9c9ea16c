"""Every view looks as it did, at every size; and no drawing is kept that nobody draws."""

from __future__ import annotations

import pytest

from tests.snapshots.cases import CASES, Case
from tests.snapshots.frames import GOLDEN, cockpit, golden

ROWS = [(name, case, size) for case in CASES for name, size in case.rows()]


@pytest.mark.requirement("I7.views.1")
@pytest.mark.parametrize(("name", "case", "size"), ROWS, ids=[name for name, _, _ in ROWS])
async def test_a_view_looks_as_it_did(name: str, case: Case, size: tuple[int, int]) -> None:
    async with cockpit(case.fed(), case.pane, size, said_s=0.05, **case.options) as (app, pilot):
        for key in case.keys:
            await pilot.press(key)
            await pilot.pause()
        await golden(name, app, pilot)


def test_no_drawing_is_kept_that_nobody_draws() -> None:
    assert {path.stem for path in GOLDEN.glob("*")} == {name for name, _, _ in ROWS}
