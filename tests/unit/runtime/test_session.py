"""The daemon's side of one attempt, against workers that lie: nothing out of order is believed."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import pytest

from runloop.errors import UsageError
from runloop.rmp.frame import FrameReader, encode_frame
from runloopd.broker.calls import Answer, HostCall
from runloopd.runtime import wire
from runloopd.runtime.orders import AttemptOrder, AttemptResult, GuestLimits
from runloopd.runtime.session import Session, checked_output, guest_error, signal_name
from runloopd.runtime.wire import CallRequest, CallResponse, End, Start

RUN = "0b7c0b7c-0000-4000-8000-000000000001"


class Worker:
    """The other end of the pair, played by the test."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._reader = FrameReader()
        self._sent = 0

    async def hear(self, kind: type[wire.Message]) -> Any:
        while True:
            data = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 20)
            assert data, "the daemon hung up"
            for frame in self._reader.feed(data):
                return wire.decode(frame, kind)

    async def say(self, *messages: wire.Message | bytes) -> None:
        data = b""
        for message in messages:
            self._sent += 1
            data += message if isinstance(message, bytes) else wire.encode(message, msg_id=self._sent)
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def leave(self) -> None:
        self._socket.close()


class Play:
    """A session and its worker."""

    def __init__(self, order: AttemptOrder, answer: Answer | None = None, **settings: Any) -> None:
        self.calls: list[HostCall] = []
        self.killed = asyncio.Event()
        self.gave_way = asyncio.Event()
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answer = answer or Answer(ok=True, value=1)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.worker = Worker(theirs)
        self.session = Session(
            order,
            self,
            kill=self._kill,
            exited=self.exited,
            waiting=self._waiting,
            give_way=self.gave_way.set,
            **{"grace_ms": 20, "waiting_after_ms": 1000, **settings},
        )
        self.result: asyncio.Task[AttemptResult] = asyncio.create_task(self.session.run(ours))

    async def answer(self, call: HostCall) -> Answer:
        self.calls.append(call)
        return self._answer

    def _kill(self) -> None:
        self.killed.set()
        self.worker.leave()

    async def _waiting(self, waits: bool) -> None: ...


def order(**limits: int) -> AttemptOrder:
    return AttemptOrder(
        run=RUN,
        node="n",
        attempt=1,
        component_digest="0" * 64,
        source={"agent": "x"},
        entrypoint="agent:handle",
        input={"b": 1, "a": 2},
        limits=GuestLimits(**limits),
    )


def call(index: int, *, fuel: int = 10, op: str = "time.now", args: str = "{}") -> CallRequest:
    return CallRequest(index=index, op=op, args=args, fuel=fuel)


async def test_a_guest_that_computes_for_long_gives_way_and_one_that_answers_does_not() -> None:
    play, brief = Play(order()), Play(order())
    await brief.worker.hear(Start)
    await brief.worker.say(End(code="ok", text='{"ports":{}}', fuel=5))
    await brief.result
    await asyncio.wait_for(play.gave_way.wait(), 10)
    assert not brief.gave_way.is_set()
    assert not play.killed.is_set(), "it only stands back"
    play.result.cancel()


async def test_the_order_reaches_the_worker_in_canonical_text() -> None:
    play = Play(order(fuel=99))
    start = await play.worker.hear(Start)
    assert start.input == '{"a":2,"b":1}'
    assert start.source == '{"entrypoint":"agent:handle","modules":{"agent":"x"}}'
    assert start.fuel == 99
    await play.worker.say(End(code="ok", text='{"ports":{}}', fuel=5))
    result = await play.result
    assert result == AttemptResult(
        ok=True, output={"ports": {}, "artifacts": []}, error=None, fuel=5, calls=0
    )


async def test_calls_are_answered_one_by_one_and_counted() -> None:
    play = Play(order())
    await play.worker.hear(Start)
    for index in range(3):
        await play.worker.say(call(index, fuel=10 * index))
        assert await play.worker.hear(CallResponse) == CallResponse(index=index, ok=True, text="1")
    await play.worker.say(End(code="err", text="no", fuel=50))
    result = await play.result
    assert (result.calls, result.fuel) == (3, 50)
    assert result.error is not None and result.error.code == "guest.error"


async def test_a_refused_call_takes_no_index() -> None:
    play = Play(order())
    await play.worker.hear(Start)
    await play.worker.say(call(0, args="nonsense"))
    assert not (await play.worker.hear(CallResponse)).ok
    await play.worker.say(call(1))
    assert (await play.worker.hear(CallResponse)).ok
    assert [c.index for c in play.calls] == [0]


DEEP = b"\x82\xa4type\xa1x\xa7payload" + b"\x91" * 9000
LIES: dict[str, Any] = {
    "a call out of turn": [call(1)],
    "two calls at once": [call(0), call(1)],
    "a call and an ending at once": [call(0), End(code="ok", text="{}", fuel=11)],
    "more fuel than there is": [call(0, fuel=1001)],
    "less than no fuel": [call(0, fuel=-1)],
    "an order": [Start(input="", source=None, fuel=1, memory_bytes=1, guest_ms=1, host_calls=1, request_bytes=1, output_bytes=1)],  # noqa: E501
    "an answer": [CallResponse(index=0, ok=True, text="")],
    "an unknown ending": [End(code="guest.fine", text="", fuel=1)],
    "an ending the daemon alone may state": [End(code="guest.crashed", text="", fuel=1)],
    "noise": [b"GET / HTTP/1.1\r\n" * 10],
    "a frame too large": [(1 << 23).to_bytes(4, "big")],
    "a body that is not an envelope": [encode_frame(schema_id=110, body=b"\xff", created_at_ms=0, msg_id=1)],
    "a type that is not the schema's": [
        encode_frame(schema_id=110, body=b"\x82\xa4type\xa1x\xa7payload\x80", created_at_ms=0, msg_id=1)
    ],
    "a body nested without end": [
        encode_frame(schema_id=4, body=DEEP, created_at_ms=0, msg_id=1)
    ],
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_worker_that_breaks_the_protocol_is_not_believed(lie: str) -> None:
    play = Play(order(fuel=1000, request_bytes=1000, output_bytes=1000))
    await play.worker.hear(Start)
    await play.worker.say(*LIES[lie])
    result = await asyncio.wait_for(play.result, 10)
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("guest.breach", False)
    assert play.session.breached is not None


async def test_fuel_never_flows_back() -> None:
    play = Play(order())
    await play.worker.hear(Start)
    await play.worker.say(call(0, fuel=500))
    await play.worker.hear(CallResponse)
    await play.worker.say(call(1, fuel=499))
    assert "fuel" in str((await play.result).error)
    assert play.session.breached is not None


async def test_more_calls_than_allowed_are_a_breach_because_the_worker_should_have_refused_them() -> None:
    play = Play(order(host_calls=1))
    await play.worker.hear(Start)
    await play.worker.say(call(0))
    await play.worker.hear(CallResponse)
    await play.worker.say(call(1))
    assert not (await play.result).ok
    assert len(play.calls) == 1


@pytest.mark.parametrize(
    ("status", "why", "code"),
    [
        (-signal.SIGSEGV, "SIGSEGV", "guest.crashed"),
        (-signal.SIGABRT, "SIGABRT", "guest.crashed"),
        (-signal.SIGSYS, "forbidden system call", "guest.breach"),
        (90, "could not be sandboxed", "guest.no_worker"),
        (0, "status 0 and no result", "guest.crashed"),
        (92, "status 92", "guest.crashed"),
    ],
)
async def test_a_worker_that_dies_tells_by_its_status(status: int, why: str, code: str) -> None:
    play = Play(order())
    await play.worker.hear(Start)
    play.worker.leave()
    play.exited.set_result(status)
    result = await play.result
    assert result.error is not None and result.error.code == code
    assert result.error.retryable is (code != "guest.breach")
    assert why in result.error.message
    assert (play.session.breached is not None) is (code == "guest.breach")


async def test_a_worker_that_overruns_is_killed_by_the_second_clock() -> None:
    play = Play(order(guest_ms=1))
    await play.worker.hear(Start)
    result = await asyncio.wait_for(play.result, 10)
    assert play.killed.is_set()
    assert result.error is not None and result.error.code == "guest.deadline"


async def test_the_second_clock_stands_while_the_gate_thinks() -> None:
    play = Play(order(guest_ms=100))
    gate = asyncio.Event()

    async def slow(call: HostCall) -> Answer:
        await asyncio.wait_for(gate.wait(), 10)
        return Answer(ok=True, value=1)

    play.answer = slow  # type: ignore[method-assign]
    await play.worker.hear(Start)
    await play.worker.say(call(0))
    await asyncio.sleep(0.2)
    assert not play.killed.is_set()
    gate.set()
    await play.worker.hear(CallResponse)
    await play.worker.say(End(code="ok", text='{"ports":{}}', fuel=11))
    assert (await play.result).ok


async def test_an_input_that_is_not_json_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="not a JSON value"):
        await Play(order().with_input({"x": object()})).result
    with pytest.raises(UsageError, match="characters"):
        await Play(order().with_input({"x": "y" * (8 << 20)})).result


def test_artifacts_may_be_left_out_and_are_digests_when_given() -> None:
    assert checked_output('{"ports":{"a":[1]}}') == {"ports": {"a": [1]}, "artifacts": []}
    digest = "ab" * 32
    assert checked_output(f'{{"ports":{{}},"artifacts":["{digest}"]}}')["artifacts"] == [digest]
    with pytest.raises(ValueError, match="artifacts"):
        checked_output('{"ports":{},"artifacts":"x"}')


def test_a_guests_error_is_bounded() -> None:
    assert len(guest_error("x" * 10_000).message) == 2000
    assert guest_error('{"code":"' + "a" * 65 + '","message":"m"}').code == "guest.error"
    assert guest_error('{"code":"a.b","message":""}').message == "the guest failed with a.b"
    assert signal_name(11) == "SIGSEGV"
    assert signal_name(200) == "signal 200"
