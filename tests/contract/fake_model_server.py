"""A real HTTP server that speaks like model servers do, well and badly.

Each request takes the next behaviour of the script (the last one stays). Threads, loopback, no sleeps: a
behaviour that must stall waits until the test is over, bounded.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STALL_S = 20


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Exchange:
    """What a behaviour may do with the connection."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: FakeModelServer, seen: Seen) -> None:
        self._handler = handler
        self._server = server
        self.seen = seen

    def head(self, status: int = 200, **headers: str) -> None:
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def whole(self, body: bytes, status: int = 200, **headers: str) -> None:
        headers.setdefault("Content_Type", "application/json")
        self.head(status, Content_Length=str(len(body)), **headers)
        self._handler.wfile.write(body)

    def chunks(self, *pieces: bytes, content_type: str = "text/event-stream", end: bool = True) -> None:
        self.head(Content_Type=content_type, Transfer_Encoding="chunked")
        for piece in pieces:
            self.chunk(piece)
        if end:
            self.chunk(b"")
        else:
            self.cut()

    def chunk(self, piece: bytes) -> None:
        self._handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self._handler.wfile.flush()

    def write(self, data: bytes) -> None:
        """Bytes of a body, as they are."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def cut(self) -> None:
        self._handler.close_connection = True

    def stall(self) -> None:
        """Hold the connection open until the test lets go."""
        self._server.stalled.set()
        self._server.released.wait(STALL_S)
        self._handler.close_connection = True

    def until_gone(self) -> None:
        """Go on sending until the client is gone, and note that it is."""
        self._server.stalled.set()
        try:
            while not self._server.released.wait(0.01):
                self.chunk(b": still here\n\n")
        except OSError:
            self._server.client_gone.set()
        self._handler.close_connection = True


Behaviour = Callable[[Exchange], None]


class FakeModelServer:
    """``with FakeModelServer(behaviour, …) as server``; then ``server.url`` and ``server.seen``."""

    def __init__(self, *script: Behaviour, tags: Behaviour | None = None) -> None:
        self._script = list(script)
        self._tags = tags
        self._lock = threading.Lock()
        self.seen: list[Seen] = []
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.client_gone = threading.Event()

    def __enter__(self) -> FakeModelServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes; a client must not wait 40 ms

            def do_GET(self) -> None:
                self._serve("GET", b"")

            def do_POST(self) -> None:
                self._serve("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def _serve(self, method: str, body: bytes) -> None:
                seen = Seen(method, self.path, dict(self.headers), json.loads(body) if body else None)
                behaviour = outer._next(seen)
                try:
                    behaviour(Exchange(self, outer, seen))
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join(STALL_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._httpd.server_port}"

    def _next(self, seen: Seen) -> Behaviour:
        with self._lock:
            self.seen.append(seen)
            if seen.method == "GET":
                return self._tags or status(404)
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]

    @property
    def posts(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST"]


# --- behaviours -----------------------------------------------------------------------------------


def status(code: int, message: str = "no", **headers: str) -> Behaviour:
    return lambda x: x.whole(json.dumps({"error": {"message": message}}).encode(), code, **headers)


def raw(body: bytes, **headers: str) -> Behaviour:
    return lambda x: x.whole(body, **headers)


def as_json(value: Any) -> Behaviour:
    return raw(json.dumps(value).encode())


def openai(text: str, *, finish: str | None = "stop", usage: Any = (11, 7)) -> Behaviour:
    value: dict[str, Any] = {
        "id": "x",
        "model": "fake-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
    }
    if usage is not None:
        value["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return as_json(value)


def sse(*values: Any, event: str | None = None) -> list[bytes]:
    head = f"event: {event}\n" if event else ""
    return [
        (head + f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n").encode()
        for value in values
    ]


def openai_delta(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    return {
        "model": "fake-1",
        "choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}],
    }


def openai_stream(*pieces: str, done: bool = True, usage: Any = (11, 7)) -> Behaviour:
    events = sse(*(openai_delta(piece) for piece in pieces))
    if done:
        events += sse(openai_delta(finish="stop"))
        if usage is not None:
            counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
            events += sse({"model": "fake-1", "choices": [], "usage": counts})
        events += sse("[DONE]")
    return lambda x: x.chunks(*events)


def openai_cut(*pieces: str) -> Behaviour:
    """Deltas, then the connection is gone without the end of the stream."""
    return lambda x: x.chunks(*sse(*(openai_delta(piece) for piece in pieces)), end=False)


def stall(x: Exchange) -> None:
    x.stall()


def stall_midway(x: Exchange) -> None:
    x.head(Content_Type="text/event-stream", Transfer_Encoding="chunked")
    x.chunk(sse(openai_delta("Hel"))[0])
    x.stall()


def drip(x: Exchange) -> None:
    """Never silent, never finished."""
    x.head(Content_Type="text/event-stream", Transfer_Encoding="chunked")
    x.chunk(sse(openai_delta("Hel"))[0])
    x.until_gone()


def bomb(x: Exchange) -> None:
    """64 MiB that weigh 64 KiB."""
    x.whole(gzip.compress(b'{"choices": "' + b"a" * (64 << 20)), Content_Encoding="gzip")


def small_bomb(x: Exchange) -> None:
    """Stays under the bound of bytes, and is out of all proportion."""
    x.whole(gzip.compress(b'{"choices": "' + b"a" * (8 << 20)), Content_Encoding="gzip")


def flood(x: Exchange) -> None:
    x.head(Content_Type="text/event-stream", Transfer_Encoding="chunked")
    for _ in range(2_000):
        x.chunk(sse(openai_delta("x" * 16_000))[0])


def anthropic(text: str, *, usage: dict[str, int] | None = None, content: Any = None) -> Behaviour:
    return as_json(
        {
            "model": "claude-fake",
            "content": content or [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": usage or {"input_tokens": 9, "output_tokens": 4},
        }
    )


def anthropic_stream(*pieces: str, stop: bool = True) -> Behaviour:
    events = sse(
        {"type": "message_start", "message": {"model": "claude-fake", "usage": {"input_tokens": 9}}},
        event="message_start",
    )
    events += sse({"type": "ping"}, event="ping")
    for piece in pieces:
        events += sse(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}},
            event="content_block_delta",
        )
    if stop:
        end = {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens"},
            "usage": {"output_tokens": 4},
        }
        events += sse(end, event="message_delta") + sse({"type": "message_stop"}, event="message_stop")
    return lambda x: x.chunks(*events)


def ollama(text: str) -> Behaviour:
    return as_json(
        {
            "model": "tiny:1b",
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 5,
            "eval_count": 2,
        }
    )


def ollama_stream(*pieces: str) -> Behaviour:
    lines = [{"model": "tiny:1b", "message": {"content": piece}, "done": False} for piece in pieces]
    lines.append(
        {
            "model": "tiny:1b",
            "message": {"content": ""},
            "done": True,
            "prompt_eval_count": 5,
            "eval_count": 2,
        }
    )
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return lambda x: x.chunks(body[:40], body[40:], content_type="application/x-ndjson")


def tags(*names: str, family: str = "llama") -> Behaviour:
    return as_json({"models": [{"name": name, "details": {"family": family}} for name in names]})
