"""``python -m runloopd.verify``: a stranger's sealed run, executed again by a process that owns nothing.

No home, no ledger, no daemon, no network, no provider: what is written lies below one temporary folder that
is gone afterwards. The file's agents run as every guest does, in a worker of the sandbox, and hear the
recorded answers only. One JSON object comes in on stdin (:class:`Wish`), one goes out on stdout; an error is
one too, with exit 1.

Knows: how to put a runtime up for one file. Does not know: whom to trust; ``rlp`` shows that.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.sealed.check import Sealed, opened
from pog.sealed.rules import remains
from pog.sealed.seal import pack
from pog.sealed.standins import Kind, Needle, Standins
from runloop.bundle.digest import read_plain
from runloop.bundle.runner import RUNNERS, read_pin, unpack
from runloop.config import shipped
from runloop.errors import RunloopError, UsageError
from runloop.ids import RunId
from runloop.sealed.container import MAX_SEALED_BYTES, SealedError
from runloopd.runs.replayer import Replayer
from runloopd.runs.sealed.rederive import Otherwise, rederive
from runloopd.runs.sealed.source import SealedSource
from runloopd.runtime.cache import CompiledCache
from runloopd.runtime.supervisor import Runtime

__all__ = ["Redaction", "Wish", "main", "redacted", "reexecuted", "surroundings"]


_MAX_WISH = 64 * 1024 * 1024


class Cache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where this user's daemon keeps what it compiled, and the key it is authenticated by. Only the runners
    that came with this build are taken from there, and nothing is put there."""

    folder: str
    key: str
    """Hex."""


class Found(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that goes."""

    text: str
    kind: Kind


class Redaction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tell the run again without these values."""

    needles: list[Found]
    rules: list[str]
    salt: str
    """Hex of 32 bytes."""
    out: str
    """File to write."""


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be done."""

    file: str
    redact: Redaction | None = None
    cache: Cache | None = None


@asynccontextmanager
async def surroundings(cache: Cache | None = None) -> AsyncIterator[Surroundings]:
    """A sandbox of its own and a folder to write below, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="runloop-verify-") as name:
        folder = Path(name)
        digests = {language: read_pin(shipped(place)).blake3 for language, place in RUNNERS.items()}
        mac_key = os.urandom(32)
        own = folder / "cache"
        own.mkdir(mode=0o700)
        if cache is not None:
            _take_compiled(cache, CompiledCache(own, mac_key), set(digests.values()))
        runtime = Runtime(
            cache_dir=own,
            mac_key=mac_key,
            max_workers=2,
            max_spares=0,
            ours=set(digests.values()),
        )
        await runtime.start()
        try:
            yield Surroundings(folder, runtime, digests)
        finally:
            await runtime.close()


def _take_compiled(cache: Cache, own: CompiledCache, runners: set[str]) -> None:
    """Spare the seconds of compiling where this user's daemon did it; every entry is authenticated on the
    way."""
    with suppress(RunloopError, OSError, ValueError):
        theirs = CompiledCache(Path(cache.folder), bytes.fromhex(cache.key))
        for digest in runners:
            memfd = theirs.load(digest)
            if memfd is not None:
                try:
                    os.close(own.store(digest, os.pread(memfd, os.fstat(memfd).st_size, 0)))
                finally:
                    os.close(memfd)


class Surroundings:
    """What :func:`surroundings` made; runners are unpacked when a run needs them."""

    def __init__(self, folder: Path, runtime: Runtime, digests: dict[str, str]) -> None:
        self._folder = folder
        self.runtime = runtime
        self._digests = digests
        self._count = 0

    async def source(self, sealed: Sealed) -> SealedSource:
        """The file as the source of a replay."""
        languages = {agent.language for agent in sealed.manifest.agents} & set(RUNNERS)
        cache = self._folder / "cache"
        runners = {name: await asyncio.to_thread(unpack, shipped(RUNNERS[name]), cache) for name in languages}
        self._count += 1
        agents = self._folder / f"agents-{self._count}"
        agents.mkdir(mode=0o700)
        return SealedSource(
            sealed, folder=agents, runtime=self.runtime, runners=runners, runner_digests=self._digests
        )


async def reexecuted(sealed: Sealed, around: Surroundings) -> dict[str, Any]:
    """The report of a replay of the file, with those of the runs nested in it."""
    replayer = Replayer(await around.source(sealed), around.runtime)
    return await replayer.replay(RunId(sealed.manifest.run))


async def redacted(sealed: Sealed, around: Surroundings, wish: Redaction) -> tuple[bytes, dict[str, Any]]:
    """The derived file, signed with a key of the moment, and what was done; it was executed again, and is
    identical. Raises :class:`runloopd.runs.sealed.rederive.Otherwise`, or :class:`RefusedError` where
    something of what goes would stay."""
    salt = bytes.fromhex(wish.salt)
    needles = [Needle(text=needle.text, kind=needle.kind) for needle in wish.needles]
    standins = Standins(needles, salt)
    made = await rederive(sealed, standins, salt, await around.source(sealed), around.runtime)
    left = remains(made.content, standins)
    note = {
        "rules": wish.rules,
        "values": dict(Counter(needle.kind for needle in needles)),
        "places": made.places,
        "hashes": made.hashes,
        "left": left,
    }
    content = replace(made.content, redacted=note)
    data = pack(content, build=sealed.manifest.sealed_by, key=Ed25519PrivateKey.generate())
    report = await reexecuted(opened(data), around)
    if not report["identical"]:
        found = report.get("divergence") or {"where": "its end", "what": "; ".join(report.get("gaps", ()))}
        raise Otherwise(str(found["where"]), str(found["what"]))
    return data, {"redacted": note, "report": report}


async def _believed(sealed: Sealed, around: Surroundings) -> dict[str, Any]:
    """As :func:`reexecuted`, of a stranger's file: whoever signed it could write into the open parts of a
    fact (a policy, a definition) what no daemon writes, and that is no fault of this installation."""
    try:
        return await reexecuted(sealed, around)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError) as error:
        raise SealedError(
            f"it says what no run says, and cannot be executed: {type(error).__name__}: {str(error)[:200]}",
            hint="believe nothing of it, and ask the sender for another",
            code="sealed.record",
        ) from error


async def _do(wish: Wish) -> dict[str, Any]:
    sealed = opened(read_plain(Path(wish.file), MAX_SEALED_BYTES))
    async with surroundings(wish.cache) as around:
        if wish.redact is None:
            return {"report": await _believed(sealed, around), "engine": around.runtime.engine}
        data, made = await redacted(sealed, around, wish.redact)
        await asyncio.to_thread(Path(wish.redact.out).write_bytes, data)
        return made


def main() -> int:
    """Do what stdin asks for, print one JSON object."""
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    # What libraries and workers say is no answer.
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
    try:
        made: dict[str, Any] = asyncio.run(_do(_wish(sys.stdin.buffer.read(_MAX_WISH))))
    except RunloopError as error:
        sys.stdout.write(json.dumps({"error": error.to_wire()}))
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(made))
    return 0


def _wish(text: bytes) -> Wish:
    try:
        return msgspec.json.decode(text, type=Wish)
    except msgspec.DecodeError as error:
        raise UsageError(f"stdin holds no wish: {error}", hint="use rlp verify or rlp export-run") from error


def _end(number: int, _: Any) -> None:
    """By an exception, so that the temporary folder goes."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
