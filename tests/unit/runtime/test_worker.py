"""The worker's own part, in this process: the clock, the conversation, the guest, without fork or filter."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from runloop.rmp.frame import FrameReader
from runloopd.runtime import wire
from runloopd.runtime.engine import ComponentRefused, wasmtime_version
from runloopd.runtime.sandbox import Ending, LoadedComponent, compile_component, make_engine
from runloopd.runtime.wire import CallRequest, CallResponse, Start
from runloopd.runtime.worker import Conversation, Session, Watch, warm_up
from tests.unit.runtime.guests import LOOP, Texts, calling, component, saying, text_form

START = {
    "input": "{}",
    "source": None,
    "fuel": 10_000_000,
    "memory_bytes": 1 << 24,
    "guest_ms": 5_000,
    "host_calls": 4,
    "request_bytes": 1000,
    "output_bytes": 100_000,
}


@pytest.fixture(scope="module")
def engine() -> Any:
    return make_engine()


@pytest.fixture
def load(engine: Any, tmp_path: Path) -> Callable[[bytes], LoadedComponent]:
    def loaded(wasm: bytes) -> LoadedComponent:
        path = tmp_path / "guest.cwasm"
        path.write_bytes(compile_component(engine, wasm))
        return LoadedComponent.map(engine, str(path))

    return loaded


def live(
    loaded: LoadedComponent,
    answer: Callable[[CallRequest], CallResponse] | None = None,
    *,
    watching: Callable[[Watch], None] = lambda _: None,
    **overrides: Any,
) -> Ending:
    """Run one guest on a thread of its own, with this test as its daemon."""
    daemon, theirs = socket.socketpair()
    daemon.settimeout(20)
    endings: list[Ending] = []

    def guest() -> None:
        try:
            endings.append(Session(loaded, Conversation(theirs.fileno())).run(watching))
        finally:
            theirs.close()

    with daemon:
        thread = threading.Thread(target=guest)
        thread.start()
        daemon.sendall(wire.encode(Start(**{**START, **overrides}), msg_id=1))
        reader = FrameReader()
        while data := daemon.recv(1 << 16):
            for frame in reader.feed(data):
                assert answer is not None
                daemon.sendall(wire.encode(answer(wire.decode(frame, CallRequest)), msg_id=2))
        thread.join(20)
    return endings[0]


def yes(request: CallRequest) -> CallResponse:
    return CallResponse(index=request.index, ok=True, text=f'"{request.op}{request.index}"')


def test_a_guest_answers(load: Callable[[bytes], LoadedComponent]) -> None:
    ending = live(load(saying({"ports": {}})))
    assert (ending.code, ending.text) == ("ok", '{"ports": {}}')
    assert ending.fuel > 0


def test_a_guest_calls_and_sees_the_answer(load: Callable[[bytes], LoadedComponent]) -> None:
    ending = live(load(calling("time.now", "{}", times=3)), yes)
    assert ending.text == '{"ports":{"out":["time.now2"]}}'


@pytest.mark.parametrize(
    ("times", "args", "code"), [(5, "{}", "quota.calls"), (1, '"' + "x" * 1000 + '"', "request.too_large")]
)
def test_what_is_too_much_is_refused_on_the_spot(
    load: Callable[[bytes], LoadedComponent], times: int, args: str, code: str
) -> None:
    ending = live(load(calling("time.now", args, times=times)), yes)
    assert ending.code == "ok"
    assert code in ending.text


def test_the_source_is_served_from_the_order(load: Callable[[bytes], LoadedComponent]) -> None:
    assert '"s"' in live(load(calling("agent.source", "{}")), source='"s"').text
    assert "op.unknown" in live(load(calling("agent.source", "{}"))).text


@pytest.mark.parametrize(
    ("body", "limits", "code"),
    [
        ("(unreachable)", {}, "guest.trap"),
        (LOOP, {"fuel": 1000}, "guest.fuel"),
        (LOOP, {"guest_ms": 20, "fuel": 2**52}, "guest.deadline"),
        ("(call $ok (i32.const -1) (i32.const 9))", {}, "guest.trap"),
        ("(call $ok (i32.const 8192) (i32.const 4000))", {"output_bytes": 100}, "guest.output"),
    ],
)
def test_every_bad_end_has_its_code(
    load: Callable[[bytes], LoadedComponent], body: str, limits: dict[str, int], code: str
) -> None:
    def watching(watch: Watch) -> None:
        threading.Thread(target=watch.keep, daemon=True).start()

    assert live(load(component(body)), watching=watching, **limits).code == code


def test_a_guest_larger_than_its_memory_is_not_started(load: Callable[[bytes], LoadedComponent]) -> None:
    assert live(load(component("(unreachable)", pages=300))).code == "guest.memory"


def test_a_host_function_that_fails_gives_the_guest_an_error_and_not_an_exception(
    load: Callable[[bytes], LoadedComponent], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Session, op: str, payload: str) -> tuple[bool, str]:
        raise KeyboardInterrupt  # out of a component's host call this would be a segmentation fault

    monkeypatch.setattr(Session, "call", interrupted)
    ending = live(load(calling("time.now", "{}")), yes)
    assert ending.code == "ok"
    assert "internal" in ending.text


def test_a_compiled_form_of_something_else_is_refused(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.cwasm"
    path.write_bytes(b"not a compiled form")
    with pytest.raises(ComponentRefused, match="does not fit"):
        LoadedComponent.map(engine, str(path))


@pytest.mark.parametrize("text", [text_form(LOOP).encode(), b"\0asm\x01\0\0\0", saying({})[:-9]])
def test_only_binary_components_are_compiled(engine: Any, text: bytes) -> None:
    with pytest.raises(ComponentRefused):
        compile_component(engine, text)


def test_the_clock_stands_while_the_guest_waits() -> None:
    stopped = threading.Event()
    watch = Watch(50, stopped.set)
    watch.resume()
    watch.pause()
    keeper = threading.Thread(target=watch.keep)
    keeper.start()
    assert not stopped.wait(0.15)
    watch.resume()
    assert stopped.wait(10)
    keeper.join(10)
    assert not keeper.is_alive()


def test_a_finished_guest_is_not_stopped() -> None:
    stopped = threading.Event()
    watch = Watch(10_000, stopped.set)
    watch.resume()
    keeper = threading.Thread(target=watch.keep)
    keeper.start()
    watch.finish()
    keeper.join(10)
    assert not keeper.is_alive()
    assert not stopped.is_set()


def test_the_bell_may_ring_more_often_than_anybody_listens() -> None:
    stopped = threading.Event()
    watch = Watch(30, stopped.set)
    for _ in range(3):
        watch.resume()
        watch.pause()
    watch.pause()
    watch.resume()
    watch.keep()
    assert stopped.is_set()


def test_guests_of_one_component_know_their_own_callers(load: Callable[[bytes], LoadedComponent]) -> None:
    loaded = load(calling("time.now", "{}"))
    both = threading.Barrier(2, timeout=20)
    texts: dict[str, str] = {}

    def one(name: str) -> None:
        def answer(request: CallRequest) -> CallResponse:
            both.wait()  # both guests are in their host call
            return CallResponse(index=request.index, ok=True, text=f'"{name}"')

        texts[name] = live(loaded, answer).text

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert texts == {name: f'{{"ports":{{"out":["{name}"]}}}}' for name in ("a", "b")}
    assert not loaded.running


def test_the_warming_guest_works(engine: Any) -> None:
    warm_up(engine)


def test_nothing_in_the_zygote_hooks_its_forks() -> None:
    code = "import runloopd.runtime.zygote, sys; print(*{'threading', 'random'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout.strip() == ""


def test_the_version_is_the_one_of_the_metadata() -> None:
    assert wasmtime_version() == metadata.version("wasmtime")


def test_a_text_of_its_own_survives_the_way(load: Callable[[bytes], LoadedComponent]) -> None:
    texts = Texts()
    said = '{"ports":{"ø":["\\u0000é😀"]}}'
    assert live(load(component(f"(call $ok {texts(said)})", texts))).text == said
