"""A file of recorded answers: written while models are asked, or answered from instead of asking any.

Knows: the file (JSON lines, each a request with its answer, in the order they were given), which answer is
next for an equal request, and how fast it is told. Does not know: routes or providers: on ``replay`` there
are none, and a request that is not on the cassette is refused.

An equal request gets the answers it got, in that order, and after the last the first again. The same call,
asked once more after a crash, gets the same answer. Nothing is spent on a replay; what the answer had cost
is told as saved.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from runloop.clock import Clock
from runloop.digest import digest
from runloop.errors import RefusedError, UsageError
from runloop.ops import ModelComplete
from runloopd.broker.ports import Budget, ModelAnswer, Reservation
from runloopd.broker.providers.completion import prompt_bytes
from runloopd.broker.routing.told import NotToldError, Told, read, request_json, written

__all__ = ["Player", "Recorder"]

_VERSION = 1
_MOST_CALLS = 10_000
"""Calls whose answer is remembered by their key."""


def _key(request: ModelComplete) -> str:
    return digest({"v": _VERSION, "request": request_json(request)})


class Recorder:
    """Writes answers on a cassette, behind those that are there."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`UsageError` for a file that is no cassette: it stays as it is."""
        self._path = path
        self._lock = asyncio.Lock()
        if path.exists():
            _read_all(path)

    async def record(self, request: ModelComplete, told: Told) -> None:
        """Durable when it returns. Raises :class:`UsageError` when it cannot be written."""
        line = written(_named(told, _key(request)), request=request_json(request), v=_VERSION) + b"\n"
        async with self._lock:
            try:
                await asyncio.to_thread(self._append, line)
            except OSError as error:
                raise UsageError(
                    f"the cassette {self._path} cannot be written: {error.strerror}",
                    hint="make room, or set models.mode to live",
                    code="model.cassette",
                ) from error

    def _append(self, line: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


class Player:
    """Answers from a cassette alone."""

    def __init__(self, path: Path, clock: Clock, *, in_time: bool = False) -> None:
        """``in_time``: pieces come as far apart as they came. Raises :class:`UsageError` for a
        file that is no cassette, or none."""
        self._clock = clock
        self._in_time = in_time
        self._told: dict[str, list[Told]] = {}
        self._next: dict[str, int] = {}
        self._given: dict[str, Told] = {}
        for told in _read_all(path):
            self._told.setdefault(told.key, []).append(told)

    def targets(self) -> list[tuple[str, str, str]]:
        """``provider:model``, kind and price version of every model on it, in order of appearance."""
        rows = [(told.target, told.kind, told.price.version) for all in self._told.values() for told in all]
        return list(dict.fromkeys(rows))

    def estimate(self, request: ModelComplete, permits: Callable[[str], bool]) -> Reservation:
        """See ``ModelPort.estimate``: it costs nothing."""
        told = self._permitted(request, permits, "")
        return Reservation(
            provider=told.provider,
            model=told.model,
            micro_usd=0,
            input_tokens=prompt_bytes(request),
            output_tokens=request.max_tokens,
            price_version=told.price.version,
            route=f"{told.target}: from the cassette",
        )

    async def complete(
        self,
        request: ModelComplete,
        *,
        budget: Budget,
        on_delta: Callable[[str], None] | None,
        idempotency_key: str,
    ) -> ModelAnswer:
        """See ``ModelPort.complete``."""
        told = self._permitted(request, budget.permits, idempotency_key)
        self._take(told.key, told, idempotency_key)
        began_ms = self._clock.now_ms()
        for after_ms, text in told.pieces:
            if self._in_time:
                await self._clock.sleep_until(began_ms + after_ms)
            if on_delta is not None:
                on_delta(text)
        completion = told.completion
        return ModelAnswer(
            text=completion.text,
            provider=told.provider,
            model=told.model,
            generated=told.kind != "rules",
            input_tokens=told.input_tokens,
            output_tokens=told.output_tokens,
            estimated=told.estimated,
            cost_micro_usd=0,
            price_version=told.price.version,
            finish=completion.finish,
            parts=tuple(text for _, text in told.pieces) if request.stream else (),
            tool_calls=completion.tool_calls,
            route=f"{told.target}: from the cassette, saved {told.cost_micro_usd} micro-dollars",
            source="cassette",
            saved_micro_usd=told.cost_micro_usd,
        )

    def _permitted(self, request: ModelComplete, permits: Callable[[str], bool], call: str) -> Told:
        told = self._given.get(call)
        key = _key(request)
        if told is None or told.key != key:
            answers = self._told.get(key)
            if answers is None:
                raise RefusedError(
                    "this request is not on the cassette, and nothing else may be asked",
                    hint="record it with models.mode record, or set it to live",
                    code="model.not_on_cassette",
                )
            told = answers[self._next.get(key, 0) % len(answers)]
        if not permits(told.target):
            raise RefusedError(
                f"policy does not permit the model {told.target}, which is what the cassette holds",
                hint="grant the capability 'model' for it",
                code="cap.denied",
            )
        return told

    def _take(self, key: str, told: Told, call: str) -> None:
        if self._given.get(call) is told:
            return
        self._next[key] = self._next.get(key, 0) + 1
        self._given[call] = told
        if len(self._given) > _MOST_CALLS:
            del self._given[next(iter(self._given))]


def _named(told: Told, key: str) -> Told:
    import msgspec

    return msgspec.structs.replace(told, key=key)


def _read_all(path: Path) -> list[Told]:
    found: list[Told] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(
            f"the cassette {path} cannot be read: {error.strerror}",
            hint="record one with models.mode record",
            code="model.cassette",
        ) from error
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            return found
        try:
            told, beside = read(line)
            if beside.get("v") != _VERSION or told.key != digest(
                {"v": _VERSION, "request": beside.get("request")}
            ):
                raise NotToldError("it answers another request than the one beside it")
        except NotToldError as error:
            raise UsageError(
                f"{path}:{number}: this is no line of a cassette: {error.message}",
                hint="remove the line, or record the cassette again",
                code="model.cassette",
            ) from error
        found.append(told)
    raise UsageError(
        f"{path}:{len(lines)}: the last line is not whole",
        hint="remove it, or record the cassette again",
        code="model.cassette",
    )
