"""A server that writes without an end, before it was asked anything: it is ended, and memory stays flat."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from runloopd.broker.mcp.bridge.wires import MAX_LINE, MAX_NONSENSE_BYTES
from runloopd.broker.mcp.spec import ServerSpec
from runloopd.broker.toolbox import ToolError

from .conftest import Mcp

ENDLESS = {
    "stdout": "import os\nwhile True: os.write(1, b'x' * 65536)\n",
    "stdout, in lines": "import os\nwhile True: os.write(1, b'no message\\n' * 5000)\n",
    "stderr": "import os, time\nfor _ in range(400): os.write(2, b'x' * 65536)\nos._exit(1)\n",
}
GROWTH = 64 * 1024 * 1024
"""Bytes this process may grow by while hundreds of megabytes are written at it."""


def grown() -> int:
    """The most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.requirement("W8", "I6.mcp.8")
async def test_endless_lines_end_the_server_and_take_no_memory(mcp: Mcp, tmp_path: Path) -> None:
    assert MAX_LINE < 8 * 1024 * 1024 and MAX_NONSENSE_BYTES < 1024 * 1024
    for number, (where, source) in enumerate(ENDLESS.items()):
        folder = tmp_path / f"server{number}"
        folder.mkdir()
        (folder / "server.py").write_text(source)
        spec = ServerSpec(
            argv=("/usr/bin/python3", str(folder / "server.py")), ro=(str(folder),), legacy=True
        )
        before = grown()
        await mcp.add(f"endless{number}", spec)
        with pytest.raises(ToolError) as caught:
            await mcp.keeper.ask_approve(f"endless{number}", [], "send")
        assert caught.value.named_code == "tool.unavailable", where
        assert len(caught.value.message) < 6_000, where
        if where != "stderr":
            assert "bytes" in caught.value.message, "the bound that was broken is named"
        assert grown() - before < GROWTH, where
        await mcp.source.end(f"endless{number}")
        assert not [pid for pid in _running() if str(folder) in _argv(pid)], "it is gone"


def _running() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _argv(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
