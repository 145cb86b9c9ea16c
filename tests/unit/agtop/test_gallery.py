"""The pictures of the guide: all of them are there and shown, and they name nobody's server."""

from __future__ import annotations

import re

from tests.home import ROOT
from tests.snapshots.cases import CASES
from tests.snapshots.gallery import FOLDER, PICTURES


def test_every_picture_is_drawn_and_shown_in_the_guide() -> None:
    guide = (ROOT / "docs/howto/cockpit.md").read_text()
    assert {case.name for case in CASES} >= set(PICTURES)
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(PICTURES)
    assert set(re.findall(r"\(\.\./gallery/([a-z-]+)\.svg\)", guide)) == set(PICTURES)


def test_no_picture_asks_anybody_for_anything() -> None:
    for path in FOLDER.glob("*.svg"):
        drawn = path.read_text()
        assert set(re.findall(r"https?://[^\"' )<]+", drawn)) == {"http://www.w3.org/2000/svg"}
        assert "url(http" not in drawn
