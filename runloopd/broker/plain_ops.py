"""Ops that need nobody: clock, chance, log, progress, files of a run.

Knows: what each answers and its bounds. Does not know: rights, quotas, recording (the gate).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import cast

from runloop.clock import Clock
from runloop.digest import blob_digest, canonical
from runloop.errors import NotFoundError, UsageError
from runloop.events import ArtifactCreated
from runloop.ops import ArtifactPut, BlobRead, LogWrite, Progress, RandomBytes
from runloopd.broker.asks import Ask, Done
from runloopd.broker.ports import BlobPort, Delta

__all__ = ["MAX_ARTIFACT_BYTES", "PlainOps"]

MAX_RANDOM_BYTES = 65_536
MAX_SLICE_BYTES = 1024 * 1024
MAX_ARTIFACT_BYTES = 4 * 1024 * 1024
_MAX_LOG_CHARS = 16_384
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}(; ?[a-z0-9-]+=[A-Za-z0-9._-]+)*\Z")


class PlainOps:
    """``time.now``, ``random.bytes``, ``log.write``, ``progress``, ``artifact.put``, ``blob.read``."""

    def __init__(
        self,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        blobs: BlobPort,
        on_delta: Callable[[Delta], None],
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._blobs = blobs
        self._on_delta = on_delta

    async def now(self, ask: Ask) -> Done:
        """``{now_ms}``."""
        return Done(value={"now_ms": self._clock.now_ms()})

    async def random(self, ask: Ask) -> Done:
        """``{base64}``."""
        n = cast(RandomBytes, ask.args).n
        if not 1 <= n <= MAX_RANDOM_BYTES:
            raise UsageError(f"random.bytes: n is {n}, not 1 to {MAX_RANDOM_BYTES}", code="op.args")
        return Done(value={"base64": base64.b64encode(self._entropy(n)).decode()})

    async def log(self, ask: Ask) -> Done:
        """``{}``; the line is on record as the arguments of the call."""
        args = cast(LogWrite, ask.args)
        text = args.message[:_MAX_LOG_CHARS]
        fields = {**args.fields, "level": args.level}
        self._on_delta(Delta(run=ask.caller.run, node=ask.caller.node, kind="log", text=text, fields=fields))
        return Done(value={})

    async def progress(self, ask: Ask) -> Done:
        """``{}``."""
        args = cast(Progress, ask.args)
        if args.fraction is not None and not 0 <= args.fraction <= 1:
            raise UsageError(f"progress: fraction is {args.fraction}, not 0 to 1", code="op.args")
        self._on_delta(
            Delta(
                run=ask.caller.run,
                node=ask.caller.node,
                kind="progress",
                text=args.message[:_MAX_LOG_CHARS],
                fields={"fraction": args.fraction},
            )
        )
        return Done(value={})

    async def put_artifact(self, ask: Ask) -> Done:
        """``{name, digest, size}``."""
        args = cast(ArtifactPut, ask.args)
        if (args.text is None) == (args.base64 is None):
            raise UsageError("artifact.put: give either text or base64", code="op.args")
        if not _is_file_name(args.name):
            raise UsageError(
                f"artifact.put: {args.name!r} is not a file name",
                hint="1 to 255 printable characters, no slash",
                code="op.args",
            )
        if not _MEDIA_TYPE.match(args.media_type):
            raise UsageError(f"artifact.put: {args.media_type!r} is not a media type", code="op.args")
        data = _content(args)
        if len(data) > MAX_ARTIFACT_BYTES:
            raise UsageError(
                f"artifact.put: {len(data)} bytes, more than {MAX_ARTIFACT_BYTES}", code="op.args"
            )
        name = blob_digest(data)
        created = ArtifactCreated(
            name=args.name,
            node=ask.caller.node,
            port=None,
            media_type=args.media_type,
            blob=name,
            size=len(data),
        )
        return Done(
            value={"name": args.name, "digest": name, "size": len(data)},
            facts=[created],
            blobs=[data],
            causes=ask.known,
            label=f"agent:{ask.agent}",
        )

    async def read_blob(self, ask: Ask) -> Done:
        """``{base64, offset, size, eof}`` of an artifact of the same run; others do not exist for it."""
        args = cast(BlobRead, ask.args)
        if args.offset < 0 or not 1 <= args.length <= MAX_SLICE_BYTES:
            raise UsageError(
                f"blob.read: offset {args.offset}, length {args.length}: from 0, 1 to {MAX_SLICE_BYTES}",
                code="op.args",
            )
        if args.digest not in ask.run.artifacts:
            raise NotFoundError("blob.read: no artifact of this run has this digest", code="blob.absent")
        data = await self._blobs.blob(args.digest)
        part = data[args.offset : args.offset + args.length]
        return Done(
            value={
                "base64": base64.b64encode(part).decode(),
                "offset": args.offset,
                "size": len(data),
                "eof": args.offset + len(part) >= len(data),
            }
        )


def _is_file_name(name: str) -> bool:
    return (
        name.isprintable() and "/" not in name and name not in (".", "..") and 0 < len(name.encode()) <= 255
    )


def _content(args: ArtifactPut) -> bytes:
    if args.text is not None:
        canonical(args.text)  # refuses lone surrogates with our own words
        return args.text.encode()
    try:
        return base64.b64decode(args.base64 or "", validate=True)
    except binascii.Error as error:
        raise UsageError(f"artifact.put: base64: {error}", code="op.args") from error
