"""Parts for the tests of the bus: a publisher that talks to no socket, and frames by hand."""

from __future__ import annotations

from typing import Any

from runloop.errors import RunloopError
from runloop.rmp.envelope import encode_message
from runloop.rmp.frame import Frame, FrameReader
from runloopd.bus.bus import Bus
from runloopd.bus.parts import Route
from runloopd.bus.principal import Principal
from runloopd.bus.queues import Run

GENERIC = "observation.generic.v1"
OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)
PEER = Principal(kind="peer", name="peer:1000#s2", uid=1000)
AGENT = Principal(kind="agent", name="agent:writer#1")
NOW = 1_750_000_000_000


class FakeSession:
    """The publisher's half of a session: remembers what the bus told it."""

    def __init__(self, bus: Bus, principal: Principal) -> None:
        self.bus = bus
        self.principal = principal
        self.instance = f"{principal.label}/program"
        self.tag = bus.tag(principal)
        self.reply_topic = f"rlp/clients/{principal.name.partition('#')[2]}/reply"
        self.routes: dict[tuple[int, str], Route] = {}
        self.known: dict[bytes, Route] = {}
        self.generation = -1
        self.controls: list[Frame] = []
        self.receipts: list[tuple[int, int]] = []
        self.refusals: list[tuple[int, RunloopError, bool]] = []
        self.requests = 0
        self.owed = 0
        self.holds = 0
        self.late: list[Run] = []

    def send(self, *frames: bytes) -> None:
        """Everything in one read."""
        reader = FrameReader()
        self.bus.ingest(self, reader, b"".join(frames), self.bus._clock.now_ms())
        assert reader.error is None

    def control(self, frame: Frame) -> None:
        self.controls.append(frame)

    def requested(self, count: int) -> None:
        self.requests += count

    def receipt(self, msg_id: int, receivers: int, **more: Any) -> None:
        self.receipts.append((msg_id, receivers))

    def refused(self, msg_id: int, error: RunloopError, *, receipt: bool) -> None:
        self.refusals.append((msg_id, error, receipt))

    def charge(self, size: int) -> None:
        self.owed += size

    def hold(self, change: int) -> None:
        self.holds += change

    def timed_out(self, run: Run) -> None:
        self.late.append(run)


def message(msg_id: int, topic: str | None = "demo/one", payload: Any = b"x", **fields: Any) -> bytes:
    """One frame, schema 1 unless ``type`` says otherwise."""
    fields = {"type": GENERIC, "now_ms": NOW, **fields}
    return encode_message(payload=payload, msg_id=msg_id, topic=topic, **fields)
