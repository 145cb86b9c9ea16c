"""Writes ``digests.toml``: which bundles this distribution ships. Run it after changing anything in an agent.

    python sdk/agents/pin.py

The registry trusts a bundle because its digest stands in that file, and refuses one that was altered since.
"""

from __future__ import annotations

import sys
from pathlib import Path

from runloop.bundle.digest import bundle_digest, read_bundle

HERE = Path(__file__).resolve().parent


def pins() -> dict[str, str]:
    """Folder of every shipped agent -> digest of its files as they are now."""
    return {
        folder.name: bundle_digest(read_bundle(folder))
        for folder in sorted(HERE.iterdir())
        if (folder / "manifest.toml").is_file()
    }


def render() -> str:
    """The content of digests.toml."""
    lines = [f'{name} = "{digest}"' for name, digest in pins().items()]
    head = "# Written by sdk/agents/pin.py: the bundles this distribution ships."
    return "\n".join([head, "[bundles]", *lines, ""])


if __name__ == "__main__":
    (HERE / "digests.toml").write_text(render())
    sys.stdout.write(render())
