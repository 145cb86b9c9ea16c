"""``python -m tests.snapshots.gallery``: draw the pictures of the guide anew, from golden histories, as SVG.

The fonts of Textual's pictures lie on a server of somebody's: here they name the reader's own.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from tests.snapshots.cases import CASES, Case
from tests.snapshots.frames import cockpit

__all__ = ["PICTURES", "picture"]

FOLDER = Path(__file__).parents[2] / "docs" / "gallery"
SIZE = (120, 36)
PICTURES = ("plan", "log", "artifacts", "agents", "trace-ladder", "inbox-approval")
"""Names of cases."""


async def picture(case: Case) -> str:
    """The case's screen as SVG."""
    async with cockpit(case.fed(), case.pane, SIZE, **case.options) as (app, pilot):
        await pilot.press(*case.keys)
        await pilot.pause(1.0)
        drawn = app.export_screenshot(title="agtop")
    drawn = re.sub(r"<!--.*?-->\s*|@font-face\s*\{[^}]*\}\s*", "", drawn, flags=re.DOTALL)
    return re.sub(r"font-family: [^;]*;", "font-family: monospace;", drawn).replace("Fira Code", "monospace")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for case in CASES:
        if case.name in PICTURES:
            (FOLDER / f"{case.name}.svg").write_text(asyncio.run(picture(case)))


if __name__ == "__main__":
    main()
