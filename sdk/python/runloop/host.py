"""The author's view of the world outside a guest: one method for every host call in ``runloop.ops``.

Knows: argument and answer shapes, how a refusal looks. Does not know: who may call what (the gate decides,
and a refusal is an ordinary exception the agent may survive), nor how bytes travel (the transport is given).
Runs inside the sandbox, so it imports the standard library only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Completion", "Host", "HostRefused", "Response", "Transport"]

Transport = Callable[[str, str], tuple[bool, str]]
"""``(op, JSON arguments) -> (ok, JSON text)``: the one import of a guest, without its exceptions."""


class HostRefused(Exception):
    """The gate refused or could not do a host call. Nothing else happened; the agent may go on.

    ``code`` is stable, ``hint`` says how to obtain the right (or is None), ``retryable`` whether the same
    call may succeed later.
    """

    def __init__(
        self, code: str, message: str, hint: str | None = None, retryable: bool = False, op: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.op = op

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


@dataclass(frozen=True)
class Completion:
    """What a model, or the offline rules provider standing in for one, answered."""

    text: str
    provider: str = ""
    model: str = ""
    generated: bool = True
    """False when no language model wrote the text."""
    finish: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The whole answer, with usage and cost where the provider reports them."""

    def json(self) -> Any:
        """The text parsed as JSON; for calls that gave a ``json_schema``. Raises ValueError otherwise."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Response:
    """What a web server answered, as it is on record."""

    status: int
    url: str
    """Where the answer came from, after redirects."""
    body: bytes
    """Decoded (nothing is compressed any more); cut at the limit when ``truncated``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The few that describe the body; names in lower case."""
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """True for a status of 200 to 299."""
        return 200 <= self.status <= 299

    @property
    def text(self) -> str:
        """The body as UTF-8; what is not becomes U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body parsed as JSON. Raises ValueError otherwise."""
        return json.loads(self.body)


def _items(answer: Any, key: str) -> list[Any]:
    found = answer.get(key, []) if isinstance(answer, Mapping) else answer
    return list(found) if isinstance(found, (list, tuple)) else []


class Host:
    """The gate, as a guest sees it. Every method may raise :class:`HostRefused`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def call(self, op: str, args: Mapping[str, Any] | None = None) -> Any:
        """Any host call by name: JSON arguments in, JSON answer out.

        Raises :class:`HostRefused` for a refusal, ValueError or TypeError for arguments that are not JSON.
        """
        payload = json.dumps(
            dict(args or {}), ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
        )
        payload.encode()  # a lone surrogate is the author's mistake here, and a dead instance one layer down
        ok, text = self._transport(op, payload)
        if ok:
            return json.loads(text)
        raise _refusal(op, text)

    # --- time, chance, talk -----------------------------------------------------------------------

    def now_ms(self) -> int:
        """Unix time in milliseconds, as recorded for this run. Needs capability ``time``."""
        answer = self.call("time.now")
        return int(answer["now_ms"] if isinstance(answer, Mapping) else answer)

    def random_bytes(self, n: int) -> bytes:
        """``n`` random bytes (at least 1), recorded for replay. Needs capability ``random``."""
        parts = []
        while n > 0:
            answer = self.call("random.bytes", {"n": min(n, 65_536)})
            part = base64.b64decode(answer["base64"] if isinstance(answer, Mapping) else answer)
            if not part:
                raise HostRefused("host.answer", "random.bytes answered nothing", op="random.bytes")
            parts.append(part[:n])
            n -= len(parts[-1])
        return b"".join(parts)

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """One log line of this run; ``level`` is debug, info, warning or error."""
        self.call("log.write", {"message": message, "level": level, "fields": fields})

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Tell the person watching; ``fraction`` is 0 to 1, or None when it is not known."""
        self.call("progress", {"message": message, "fraction": fraction})

    # --- knowledge --------------------------------------------------------------------------------

    def kb_search(self, query: str, *, k: int = 8, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Best matches first: ``{kind, id, title, snippet, score, event}``; kinds: contact, note, mail."""
        return _items(self.call("kb.search", {"query": query, "k": k, "kinds": list(kinds)}), "items")

    def kb_query(self, sql: str, params: Sequence[Any] = (), *, limit: int = 200) -> list[dict[str, Any]]:
        """Rows of one read-only SELECT over the views, as objects by column name."""
        answer = self.call("kb.query", {"sql": sql, "params": list(params), "limit": limit})
        rows = _items(answer, "rows")
        columns = _items(answer, "columns") if isinstance(answer, Mapping) else []
        return [row if isinstance(row, dict) else dict(zip(columns, row, strict=False)) for row in rows]

    def kb_read(self, kind: str, id: str) -> dict[str, Any]:
        """One whole contact or document."""
        answer = self.call("kb.read", {"kind": kind, "id": id})
        item = answer.get("item", answer) if isinstance(answer, Mapping) else {}
        return dict(item)

    def kb_why(self, ref: str) -> Any:
        """Where a fact came from: the chain of events behind ``ref``."""
        return self.call("kb.why", {"ref": ref})

    def kb_propose(self, kind: str, payload: Mapping[str, Any]) -> Any:
        """Offer a fact to the knowledge base. Needs capability ``kb_write``."""
        return self.call("kb.propose", {"kind": kind, "payload": dict(payload)})

    # --- memory, artifacts, blobs -----------------------------------------------------------------

    def memory_get(self, key: str, *, namespace: str = "private") -> tuple[Any, int]:
        """``(value, version)``; ``(None, 0)`` for a key that was never written."""
        answer = self.call("memory.get", {"key": key, "namespace": namespace})
        if not isinstance(answer, Mapping):
            return None, 0
        return answer.get("value"), int(answer.get("version") or 0)

    def memory_put(
        self, key: str, value: Any, *, namespace: str = "private", expected_version: int | None = None
    ) -> int:
        """Write and return the new version. ``expected_version`` makes it conditional (0: must not exist)."""
        args = {"key": key, "value": value, "namespace": namespace, "expected_version": expected_version}
        answer = self.call("memory.put", args)
        return int(answer["version"] if isinstance(answer, Mapping) else answer)

    def memory_list(
        self, prefix: str = "", *, namespace: str = "private", after: str = "", limit: int = 200
    ) -> list[dict[str, Any]]:
        """Keys in order, as ``{key, version, size}``; ``after`` is the last one of the page before."""
        args = {"namespace": namespace, "prefix": prefix, "after": after, "limit": limit}
        return _items(self.call("memory.list", args), "keys")

    def memory_delete(
        self, key: str, *, namespace: str = "private", expected_version: int | None = None
    ) -> int:
        """Forget a key and return its version; 0 where nothing was."""
        args = {"key": key, "namespace": namespace, "expected_version": expected_version}
        return int(self.call("memory.delete", args)["version"])

    def put_artifact(
        self, name: str, content: str | bytes, *, media_type: str = "text/plain; charset=utf-8"
    ) -> str:
        """Keep a file this run produced; returns its digest, for the result's ``artifacts``."""
        args: dict[str, Any] = {"name": name, "media_type": media_type}
        if isinstance(content, str):
            args["text"] = content
        else:
            args["base64"] = base64.b64encode(content).decode()
        answer = self.call("artifact.put", args)
        return str(answer.get("digest") or answer.get("blob")) if isinstance(answer, Mapping) else str(answer)

    def blob_read(self, digest: str, *, offset: int = 0, length: int = 65_536) -> bytes:
        """Up to ``length`` bytes of a stored blob from ``offset``."""
        answer = self.call("blob.read", {"digest": digest, "offset": offset, "length": length})
        return base64.b64decode(answer["base64"] if isinstance(answer, Mapping) else answer)

    # --- models -----------------------------------------------------------------------------------

    def complete(
        self,
        messages: Sequence[Mapping[str, str]] | str,
        *,
        model: str | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        json_schema: Mapping[str, Any] | None = None,
        template: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Ask a model. ``template`` and ``facts`` are what the offline rules provider fills in instead.

        Needs capability ``model``; may cost money, within the run's budget.
        """
        answer = self.call(
            "model.complete",
            {
                **_complete_args(messages, model, max_tokens, temperature),
                "json_schema": None if json_schema is None else dict(json_schema),
                "template": template,
                "facts": dict(facts or {}),
            },
        )
        return Completion(
            text=str(answer.get("text", "")),
            provider=str(answer.get("provider", "")),
            model=str(answer.get("model", "")),
            generated=bool(answer.get("generated", True)),
            finish=str(answer.get("finish", "")),
            raw=answer,
        )

    def complete_stream(
        self,
        messages: Sequence[Mapping[str, str]] | str,
        *,
        model: str | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.0,
    ) -> Iterator[Any]:
        """As :meth:`complete`, but yields the chunks as they arrive."""
        args = _complete_args(messages, model, max_tokens, temperature)
        handle = self.call("model.complete", {**args, "stream": True})["stream"]
        while True:
            chunk = self.next_message(handle)
            if chunk is None:
                return
            yield chunk

    def next_message(self, stream: str) -> Any:
        """The next item of a stream, or None at its end."""
        answer = self.call("msg.next", {"stream": stream})
        if isinstance(answer, Mapping) and answer.get("done"):
            return None
        return answer.get("item", answer) if isinstance(answer, Mapping) else answer

    def embed(self, texts: Sequence[str], *, model: str | None = None) -> dict[str, Any]:
        """``{vectors, embedder, dimensions, …}``: only vectors of one ``embedder`` may be compared."""
        return dict(self.call("model.embed", {"texts": list(texts), "model": model}))

    # --- other agents of the run ------------------------------------------------------------------

    def publish(
        self,
        to: str,
        content: Any,
        *,
        act: str = "inform",
        conversation: str | None = None,
        in_reply_to: str | None = None,
        reply_within_ms: int | None = None,
    ) -> dict[str, Any]:
        """Say something to ``node/<id>`` or ``talk/<name>``; answers ``{message, conversation}``.

        Needs capability ``talk``; ``act`` is one of ``runloop.speech.ACTS``.
        """
        args = {
            "to": to,
            "content": content,
            "act": act,
            "conversation": conversation,
            "in_reply_to": in_reply_to,
            "reply_within_ms": reply_within_ms,
        }
        return dict(self.call("msg.publish", args))

    def request(
        self,
        to: str,
        content: Any,
        *,
        act: str = "request",
        conversation: str | None = None,
        in_reply_to: str | None = None,
        timeout_ms: int = 30_000,
    ) -> dict[str, Any]:
        """Say something and wait for the first answer, a message as :meth:`hear` gives it.

        Nobody answered in time: :class:`HostRefused` with ``msg.timed_out``; nobody is left: ``msg.nobody``.
        """
        args = {
            "to": to,
            "content": content,
            "act": act,
            "conversation": conversation,
            "in_reply_to": in_reply_to,
            "timeout_ms": timeout_ms,
        }
        return dict(self.call("msg.request", args))

    def reply(
        self,
        message: Mapping[str, Any] | str,
        content: Any,
        *,
        act: str = "inform",
        reply_within_ms: int | None = None,
    ) -> dict[str, Any]:
        """Answer a message that was heard, itself or its id; answers ``{message, conversation}``."""
        name = message if isinstance(message, str) else message["message"]
        args = {"message": name, "content": content, "act": act, "reply_within_ms": reply_within_ms}
        return dict(self.call("msg.reply", args))

    def subscribe(self, *topics: str) -> str:
        """Listen to ``talk/<name>`` topics and the own mailbox, from their first message on; read the stream
        with :meth:`hear`."""
        return str(self.call("msg.subscribe", {"topics": list(topics)})["stream"])

    def hear(self, stream: str, *, timeout_ms: int | None = None) -> dict[str, Any] | None:
        """The next message ``{message, from, to, act, conversation, in_reply_to, reply_by_ms, content,
        sent_ms}``, or None when nobody is left to speak. Raises TimeoutError when none came in time."""
        answer = self.call("msg.next", {"stream": stream, "timeout_ms": timeout_ms})
        if answer.get("timed_out"):
            raise TimeoutError(f"nothing was said within {timeout_ms} ms")
        return None if answer.get("done") else dict(answer["item"])

    def listen(self, *topics: str) -> Iterator[dict[str, Any]]:
        """Every message to this node and these topics, until nobody is left to speak."""
        stream = self.subscribe(*topics)
        while (message := self.hear(stream)) is not None:
            yield message

    # --- promises ---------------------------------------------------------------------------------

    def promise(
        self, timeout_ms: int, *, question: str = "", choices: Sequence[str] = (), resolver: str = "run"
    ) -> str:
        """Promise that something will be said later, once; returns the promise. Needs ``promises``."""
        args = {
            "timeout_ms": timeout_ms,
            "question": question,
            "choices": list(choices),
            "resolver": resolver,
        }
        return str(self.call("promise.create", args)["promise"])

    def wait_for(self, promise: str) -> Any:
        """What was said. Late: :class:`HostRefused` with ``promise.timed_out``."""
        return self.call("promise.await", {"promise": promise})["value"]

    def resolve(self, promise: str, value: Any) -> None:
        """Say what was promised; whoever comes second is refused."""
        self.call("promise.resolve", {"promise": promise, "value": value})

    def ask(self, question: str, *, choices: Sequence[str] = (), timeout_ms: int = 604_800_000) -> Any:
        """Ask a person and wait for the answer."""
        args = {"question": question, "choices": list(choices), "timeout_ms": timeout_ms}
        return self.call("input.ask", args)["value"]

    # --- files of the user's ----------------------------------------------------------------------

    def fs_read(self, path: str, *, offset: int = 0, length: int = 65_536) -> bytes:
        """Up to ``length`` bytes of a file below a granted directory. Needs ``fs_ro`` or ``fs_rw``."""
        answer = self.call("fs.read", {"path": path, "offset": offset, "length": length})
        raw = answer.get("base64")
        return str(answer.get("text", "")).encode() if raw is None else base64.b64decode(raw)

    def fs_write(self, path: str, content: str | bytes, *, expected: str | None = None) -> str:
        """Replace a file, or make one; returns its digest. ``expected``: the digest it must have now, empty
        where it must not exist. Needs ``fs_rw``."""
        args: dict[str, Any] = {"path": path, "expected": expected}
        if isinstance(content, str):
            args["text"] = content
        else:
            args["base64"] = base64.b64encode(content).decode()
        return str(self.call("fs.write", args)["digest"])

    def fs_list(self, path: str, *, after: str = "", limit: int = 1_000) -> list[dict[str, Any]]:
        """Names in a directory as ``{name, kind, size}``; ``after`` is the last one of the page before."""
        return _items(self.call("fs.list", {"path": path, "after": after, "limit": limit}), "entries")

    def fs_stat(self, path: str, *, digest: bool = False) -> dict[str, Any]:
        """What a path is: ``{kind, size, mtime_ms}`` and, when asked for, ``digest``."""
        return dict(self.call("fs.stat", {"path": path, "digest": digest}))

    # --- the web and tools ------------------------------------------------------------------------

    def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        max_bytes: int | None = None,
    ) -> Response:
        """One HTTP exchange. Needs capability ``net`` for the host; GET and HEAD only read.

        Any status is an answer, not an error. ``max_bytes`` cuts the body (``truncated``).
        """
        args: dict[str, Any] = {"url": url, "method": method, "headers": dict(headers or {})}
        if isinstance(body, str):
            args["text"] = body
        elif body is not None:
            args["base64"] = base64.b64encode(body).decode()
        if max_bytes is not None:
            args["max_bytes"] = max_bytes
        answer = self.call("http.fetch", args)
        raw = answer.get("base64")
        return Response(
            status=int(answer["status"]),
            url=str(answer.get("url", url)),
            body=str(answer.get("text", "")).encode() if raw is None else base64.b64decode(raw),
            headers=dict(answer.get("headers") or {}),
            truncated=bool(answer.get("truncated", False)),
        )

    def tools(self) -> list[dict[str, Any]]:
        """The agent's own tools: ``{id, description, input_schema, result_schema, granted, missing}``."""
        return _items(self.call("tool.list"), "tools")

    def call_tool(self, tool: str, args: Mapping[str, Any] | None = None) -> Any:
        """Call one of the agent's own tools; the answer fits the tool's ``result_schema``.

        A permission that is missing is named in the :class:`HostRefused`.
        """
        return self.call("tool.call", {"tool": tool, "args": dict(args or {})})["result"]

    # --- effects ----------------------------------------------------------------------------------

    def send_mail(
        self,
        to: Sequence[str],
        subject: str,
        body: str,
        *,
        cc: Sequence[str] = (),
        bcc: Sequence[str] = (),
        in_reply_to: str | None = None,
    ) -> dict[str, Any]:
        """Send a message, after a person approved its exact bytes. Needs capability ``mail``.

        The call returns when the message has left (or is in the outbox); a denial is a :class:`HostRefused`.
        """
        args = {
            "to": list(to),
            "subject": subject,
            "body": body,
            "cc": list(cc),
            "bcc": list(bcc),
            "in_reply_to": in_reply_to,
        }
        answer = self.call("mail.send", args)
        return dict(answer) if isinstance(answer, Mapping) else {"message_id": str(answer)}


def _complete_args(
    messages: Sequence[Mapping[str, str]] | str,
    model: str | None,
    max_tokens: int,
    temperature: float,
) -> dict[str, Any]:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {
        "messages": [dict(message) for message in messages],
        "model": model,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }


def _refusal(op: str, text: str) -> HostRefused:
    """The error object ``{code, message, hint, retryable}`` as an exception."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return HostRefused("host.error", text or "the host call failed", op=op)
    hint = value.get("hint")
    return HostRefused(
        str(value.get("code") or "host.error"),
        str(value.get("message") or "the host call failed"),
        None if hint is None else str(hint),
        bool(value.get("retryable", False)),
        op,
    )
