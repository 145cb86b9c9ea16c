"""Our bus alone, as the daemon runs it: ``python -m tests.bench.load.serve PATH [asyncio|uvloop]``.

``RUNLOOP_NATIVE`` in the environment decides about the compiled step, as for the daemon. A handler answers
control requests with nothing. Serves until SIGTERM, then prints the counters: what came must be what went.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from runloop import __version__
from runloop.clock import SystemClock
from runloopd.bus.bus import Bus
from runloopd.bus.socket import SocketServer

CREDENTIAL = b"b" * 32


def done(_: object) -> None:
    """Whatever it was, nobody waits for it."""


async def serve(path: Path) -> None:
    """Until SIGTERM."""
    clock = SystemClock()
    bus = Bus(clock)
    server = SocketServer(bus, path, credential=CREDENTIAL, build=__version__, clock=clock)
    bus.subscribe("rlp/ctrl", lambda delivery: done(bus.reply(delivery, {})))
    await server.start()
    gone = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, gone.set)
    await gone.wait()
    await server.close()
    counters = bus.counters
    print(json.dumps({"published": counters.published, "dropped": counters.dropped}))


def main(path: str, loop: str = "asyncio") -> None:
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(Path(path)))


if __name__ == "__main__":
    main(*sys.argv[1:])
