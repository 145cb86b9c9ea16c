"""The bridge as a process: descriptor 0 leads to the daemon, 1 is where descriptors come from.

Started in a sandbox without network, folders or programs; it ends when the daemon hangs up.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

__all__ = ["main"]


def main() -> None:
    """Take the two descriptors, leave none where a stray ``print`` could reach them, and serve."""
    control, channel = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)  # the SDK logs what servers say, and what is sent to them

    import anyio

    from runloopd.broker.mcp.bridge.serving import Bridge

    bridge = Bridge(socket.socket(fileno=control), socket.socket(fileno=channel))
    anyio.run(bridge.serve)
    sys.exit(0)


if __name__ == "__main__":
    main()
