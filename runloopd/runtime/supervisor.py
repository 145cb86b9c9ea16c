"""The runtime: attempts go in, results come out, and whatever happens in between harms one worker only.

Knows: the zygote (and how to replace it), the compiled components, how many workers may live, the lifecycle
of each instance. Does not know: the wire (``wire``, ``session``), the engine (``sandbox``, in other
processes), who answers host calls, what an agent is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from runloop.digest import blob_digest
from runloop.errors import FailedError, NotFoundError, RefusedError, UsageError
from runloop.events import AgentTransition, GuestError
from runloopd.broker.calls import Answerer, Rewindable
from runloopd.cgroups import Groups, undivided
from runloopd.runtime.cache import CompiledCache, sealed_copy
from runloopd.runtime.engine import (
    COMPILE_LIMITS,
    COMPONENT_HEADER,
    ComponentRefused,
    engine_version,
    wasmtime_version,
)
from runloopd.runtime.failures import (
    CRASHED,
    MAX_RECOVERIES,
    NO_WORKER,
    RESTARTED,
    FailureClass,
    failure_class,
)
from runloopd.runtime.hardening import MANDATORY, OPTIONAL
from runloopd.runtime.lifecycle import State, Trigger, move
from runloopd.runtime.orders import AttemptOrder, AttemptResult, GuestLimits
from runloopd.runtime.places import Place, Places
from runloopd.runtime.session import Session, Waiting
from runloopd.runtime.shares import Shares
from runloopd.runtime.workers import Worker, ZygoteGone, ZygoteProcess

__all__ = [
    "AttemptOrder",
    "AttemptResult",
    "CompileFailed",
    "GuestLimits",
    "OnTransition",
    "Runtime",
    "SandboxRefused",
]

log = structlog.get_logger(__name__)

OnTransition = Callable[[AttemptOrder, AgentTransition], Awaitable[None]]
"""Called, and awaited, before a transition becomes visible; makes it durable."""

_EXIT_REFUSED = 3
_REASON_CHARS = 300
"""Of a reason that has the component's own names in it."""

_SpareKey = tuple[str, int, int]
"""Component, memory limit and time limit: what a worker is sandboxed for before it sees an order."""


class SandboxRefused(RefusedError):
    """This machine lacks a layer without which no guest may run. Nothing is best effort here."""

    code = "sandbox.layer"


class CompileFailed(FailedError):
    """The component could not be compiled within the limits. It is not installed."""

    code = "component.compile"


async def _unseen(_order: AttemptOrder, _transition: AgentTransition) -> None:
    """The default listener: nobody wants to know."""


class Runtime:
    """Runs guests in worker processes. One per daemon."""

    def __init__(
        self,
        *,
        cache_dir: Path,
        mac_key: bytes,
        on_transition: OnTransition = _unseen,
        max_workers: int = 256,
        max_spares: int = 4,
        grace_ms: int = 1_000,
        waiting_after_ms: int = 100,
        max_parked: int = 1_024,
        waived_layers: Collection[str] = (),
        ours: Collection[str] = (),
        groups: Groups | None = None,
    ) -> None:
        """``mac_key``: 32 bytes from the keyring. ``max_spares``: workers kept ready, one per kind of attempt
        seen lately, about 1.5 MiB each; 0 forks every worker when it is needed. ``grace_ms``: how much later
        than its worker the daemon ends a guest that overruns. ``waived_layers``: mandatory sandbox layers an
        operator does without, by name. ``ours``: digests of the runners that came with this build; each is
        instantiated once, in the zygote. ``groups``: where each process is put; None: nowhere."""
        unknown = set(waived_layers) - set(MANDATORY)
        if unknown:
            raise UsageError(
                f"unknown sandbox layer {sorted(unknown)[0]!r}",
                hint=f"known: {', '.join(MANDATORY)}",
                code="sandbox.layer",
            )
        self._cache = CompiledCache(cache_dir, mac_key)
        self._on_transition = on_transition
        self._slots = asyncio.Semaphore(max_workers)
        self._parked = asyncio.Semaphore(max_parked)
        self._grace_ms = grace_ms
        self._waiting_after_ms = waiting_after_ms
        self._waived = tuple(waived_layers)
        self._images: dict[str, int] = {}
        """Component digest -> sealed memfd of its compiled form, for this zygote and the next one."""
        self._ours = frozenset(ours)
        self._prepared: dict[Path, tuple[tuple[int, ...] | None, str]] = {}
        """Path -> the file as it was when it was read, and its digest."""
        self._preparing: dict[str, asyncio.Lock] = {}
        self._reading: dict[Path, asyncio.Lock] = {}
        self._zygote: ZygoteProcess | None = None
        self._replacing = asyncio.Lock()
        self._layers: dict[str, bool] = {}
        self._workers: set[Worker] = set()
        self._max_spares = max_spares
        self._spares: dict[_SpareKey, Worker] = {}
        self._making: set[asyncio.Task[None]] = set()
        self._count = 0
        self._closed = False
        self._shares = Shares(groups or undivided("nobody asked for any"))
        self.places = Places()
        """Every execution under way."""

    @property
    def engine(self) -> dict[str, int | str]:
        """``{sandbox, wasmtime}``: what ``run.started`` records and a replay insists on."""
        return engine_version()

    def layers(self) -> dict[str, bool]:
        """Every sandbox layer by name, and whether it was seen to hold when the runtime started."""
        return dict(self._layers)

    @property
    def workers(self) -> int:
        """Living workers."""
        return len(self._workers)

    @property
    def spares(self) -> int:
        """Workers that wait for an order."""
        return len(self._spares)

    @property
    def zygote_pid(self) -> int | None:
        """The process that workers are forked from; None while there is none."""
        return None if self._zygote is None or not self._zygote.alive else self._zygote.pid

    async def start(self) -> None:
        """Start the zygote and prove the sandbox on a process of its own.

        Raises :class:`SandboxRefused` when a mandatory layer is missing, :class:`ZygoteGone` when nothing
        starts.
        """
        zygote = await self._live_zygote()
        try:
            self._layers = await self._prove(zygote)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Kill every worker and the zygote, and forget the components."""
        self._closed = True
        for making in list(self._making):
            making.cancel()
        await asyncio.gather(*self._making, return_exceptions=True)
        for worker in list(self._workers):
            worker.kill()
        for spare in self._spares.values():
            spare.kill()
            spare.release()
        self._spares.clear()
        if self._zygote is not None:
            await self._zygote.close()
            self._zygote = None
        await self._shares.close()
        for memfd in self._images.values():
            os.close(memfd)
        self._images.clear()

    # --- components -------------------------------------------------------------------------------

    async def prepare(self, component_path: Path) -> str:
        """Make a component ready to run; return its digest. Compiles it if the cache has no trustworthy form.

        Raises :class:`ComponentRefused` (not a component of this ABI), :class:`CompileFailed`,
        ``CacheRefused``.
        """
        identity = _identity(component_path)
        known = self._prepared.get(component_path)
        if known is not None and known[0] == identity and known[1] in self._images:
            return known[1]  # the same file, unchanged: a change sets its ctime, which nobody can set back
        # One at a time: after a crash hundreds of attempts may ask for the same file at once.
        async with self._reading.setdefault(component_path, asyncio.Lock()):
            known = self._prepared.get(component_path)
            if known is not None and known[0] == identity and known[1] in self._images:
                return known[1]
            return await self._prepare_file(component_path, identity)

    async def _prepare_file(self, component_path: Path, identity: tuple[int, ...] | None) -> str:
        wasm = await asyncio.to_thread(_read_component, component_path)
        component = await asyncio.to_thread(blob_digest, wasm)
        async with self._preparing.setdefault(component, asyncio.Lock()):
            if component not in self._images:
                memfd = await self._cache.obtain(
                    component, lambda: self._compile(wasm), in_thread=asyncio.to_thread
                )
                try:
                    memfd = await self._load(component, memfd, wasm)
                except BaseException:
                    os.close(memfd)
                    raise
                self._images[component] = memfd
        self._prepared[component_path] = (identity, component)
        return component

    async def _load(self, component: str, memfd: int, wasm: bytes) -> int:
        zygote = await self._live_zygote()
        try:
            await zygote.load(component, memfd, ours=component in self._ours)
        except ComponentRefused as error:
            # An entry of our own that the engine does not take, for instance after a change of processor.
            log.warning("compiled_form_rejected", component=component, reason=error.message)
            fresh = await asyncio.to_thread(self._cache.store, component, await self._compile(wasm))
            try:
                await zygote.load(component, fresh, ours=component in self._ours)
            except BaseException:
                os.close(fresh)
                raise
            os.close(memfd)
            return fresh
        return memfd

    async def _compile(self, wasm: bytes) -> bytes:
        """Compile in a limited subprocess."""
        source = await asyncio.to_thread(sealed_copy, wasm)
        result = os.memfd_create("runloop", os.MFD_CLOEXEC)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", "runloopd.runtime.compiler", str(source), str(result),
                str(os.getpid()), *self._waived,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[source, result],
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"},
                cwd="/",
                start_new_session=True,
            )  # fmt: skip
            try:
                async with self._shares.compiling(process.pid):
                    status = await asyncio.wait_for(process.wait(), COMPILE_LIMITS.wall_seconds)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                if isinstance(error, TimeoutError):
                    raise CompileFailed("the component takes too long to compile") from error
                raise
            size = os.fstat(result).st_size
            text = await asyncio.to_thread(os.pread, result, size, 0)
        finally:
            os.close(source)
            os.close(result)
        if status == _EXIT_REFUSED:
            raise ComponentRefused(text.decode(errors="replace")[:_REASON_CHARS])
        if status != 0:
            raise CompileFailed(
                f"compiling the component ended with status {status}",
                hint=text.decode(errors="replace")[:_REASON_CHARS]
                or "it may need more memory or time than a component may",
            )
        return text

    # --- the zygote -------------------------------------------------------------------------------

    async def _live_zygote(self) -> ZygoteProcess:
        if self._closed:
            raise ZygoteGone("the runtime is closed")
        async with self._replacing:
            if self._zygote is not None and self._zygote.alive:
                return self._zygote
            if self._zygote is not None:
                log.error("zygote_died", pid=self._zygote.pid)
                await self._zygote.close()
            zygote = await self._shares.beginning(await ZygoteProcess.start(self._waived))
            if zygote.facts["wasmtime"] != wasmtime_version() or zygote.facts["threads"] != 1:
                await zygote.close()
                raise ZygoteGone(f"the worker host is not as expected: {zygote.facts}")
            for component, memfd in self._images.items():
                await zygote.load(component, memfd, ours=component in self._ours)
            self._zygote = zygote
            return zygote

    async def _prove(self, zygote: ZygoteProcess) -> dict[str, bool]:
        """Have one process harden itself and try to get out; see that it did not."""
        quiet = await self._probe(zygote, "open")
        if quiet.missing is not None:
            raise SandboxRefused(
                f"a guest would not be contained: {quiet.missing}",
                hint=f"run on a kernel that offers it; every guest needs {', '.join(MANDATORY)}",
            )
        found = {*quiet.layers, *zygote.facts["layers"]}
        filtered = quiet.status == 0
        for escape in ("socket", "exec", "exec_memory"):
            filtered = filtered and (await self._probe(zygote, escape)).killed
        if not filtered:
            found.discard("seccomp")
            if "seccomp" not in self._waived:
                raise SandboxRefused(
                    "a guest would not be contained: the system call filter is there and does not hold",
                    hint=f"run on another kernel; every guest needs {', '.join(MANDATORY)}",
                )
        return {layer: layer in found for layer in (*MANDATORY, *OPTIONAL)}

    async def _probe(self, zygote: ZygoteProcess, attempt: str) -> _Probe:
        worker = await zygote.probe(attempt)
        try:
            status = await asyncio.wait_for(worker.exited, 10)
            try:
                said = msgspec.json.decode(worker.connection.recv(4096) or b"{}")
            except BlockingIOError:
                said = {}
            return _Probe(said.get("missing"), said.get("layers", []), status)
        finally:
            worker.kill()
            worker.release()

    # --- attempts ---------------------------------------------------------------------------------

    async def run_attempt(self, order: AttemptOrder, answerer: Answerer) -> AttemptResult:
        """Run one attempt in a worker of its own; return how it ended, whatever the guest did.

        Cancelling kills the worker. Raises :class:`NotFoundError` for a component that was not prepared,
        :class:`UsageError` for an input that is not JSON, and whatever the answerer raises (a replay that
        diverges).
        """
        if order.component_digest not in self._images:
            raise NotFoundError(
                f"component {order.component_digest[:12]} is not prepared", code="component.unknown"
            )
        with self.places.taken(order) as place:
            async with _Slot(self._slots, self._parked) as slot:
                self._count += 1
                life = _Life(place, f"{order.node}.{order.attempt}#{self._count}", self._on_transition)
                try:
                    return await self._live(place, answerer, life, slot)
                except BaseException:
                    await life.abandon("stopped")
                    raise

    def end_worker(self, place: Place, reason: str) -> bool:
        """End the process of an execution, for it to go on in a fresh one; False when it has none.

        A guest that waits for an answer goes on when that is there. Spares of its kind are not used either.
        """
        worker = place.worker
        if worker is None:
            return False
        place.restart = reason
        if (spare := self._take_spare(_spare_key(place.order))) is not None:
            spare.kill()
            spare.release()
        worker.kill()
        return True

    async def _live(self, place: Place, answerer: Answerer, life: _Life, slot: _Slot) -> AttemptResult:
        """From the first worker to the end, with up to three recoveries from lost workers between."""
        order = place.order

        async def waiting(waits: bool) -> None:
            await life.waiting(waits)
            await slot.lend(waits)

        await life.go(Trigger.SPAWN)
        recoveries = 0
        try:
            worker = await self._spawn(order)
            await self._activate(life, worker, Trigger.ACTIVATE)
            while True:
                result, breached = await self._execute(place, answerer, worker, waiting)
                if not _transient(result) or not isinstance(answerer, Rewindable):
                    break
                asked_for = _restarted(place, result)
                await life.fault(asked_for or result)
                if asked_for is None:
                    if recoveries == MAX_RECOVERIES:
                        await life.go(Trigger.RECOVERY_EXHAUSTED, f"{recoveries} recoveries did not help")
                        return result
                    recoveries += 1
                # Every answer the guest has heard is remembered: it arrives at the same point again.
                await answerer.rewind()
                worker = await self._spawn(order)
                await self._activate(life, worker, Trigger.RECOVERY_SUCCESS)
        except ZygoteGone as error:
            await life.lost(error.message)
            failure = GuestError(code=NO_WORKER, message=f"no worker: {error.message}", retryable=True)
            return AttemptResult(ok=False, output=None, error=failure, fuel=0, calls=0)
        await life.end(result, breached)
        return result

    async def _activate(self, life: _Life, worker: Worker, trigger: Trigger) -> None:
        """State that the instance is active; a worker whose activity cannot be stated does not live on."""
        try:
            await life.go(trigger)
        except BaseException:
            worker.kill()
            worker.release()
            raise

    async def _execute(
        self, place: Place, answerer: Answerer, worker: Worker, waiting: Waiting
    ) -> tuple[AttemptResult, str | None]:
        """One execution in one worker, which is gone afterwards; and why it is not believed, if it is not."""
        order = place.order
        self._workers.add(worker)
        try:
            session = Session(
                order,
                answerer,
                kill=worker.kill,
                exited=worker.exited,
                waiting=waiting,
                give_way=worker.give_way,
                grace_ms=self._grace_ms,
                waiting_after_ms=self._waiting_after_ms,
            )
            async with self._shares.of(worker, order) as share:
                with self.places.served_by(place, worker, session):
                    result = await session.run(worker.connection)
                return await share.judged(result), session.breached
        finally:
            # Nothing of an attempt survives it, not even for the time of a transition.
            worker.kill()
            self._workers.discard(worker)
            worker.release()
            self._foresee(_spare_key(order))

    async def _spawn(self, order: AttemptOrder) -> Worker:
        limits = order.limits
        spare = self._take_spare(_spare_key(order))
        if spare is not None:
            return spare
        for last in (False, True):  # once more, if the zygote died in our hands
            zygote = await self._live_zygote()
            try:
                return await zygote.spawn(
                    order.component_digest, memory_bytes=limits.memory_bytes, guest_ms=limits.guest_ms
                )
            except ZygoteGone:
                if last:
                    raise
        raise AssertionError

    def _take_spare(self, key: _SpareKey) -> Worker | None:
        """A worker forked and sandboxed ahead of need, still alive; it has seen no order."""
        spare = self._spares.pop(key, None)
        if spare is not None and spare.exited.done():
            spare.release()
            return None
        return spare

    async def _make_spare(self, key: _SpareKey) -> None:
        """Have a worker ready for the next attempt like this one; failing costs nothing but the time."""
        component, memory_bytes, guest_ms = key
        with contextlib.suppress(ZygoteGone, TimeoutError):
            zygote = await self._live_zygote()
            worker = await zygote.spawn(component, memory_bytes=memory_bytes, guest_ms=guest_ms)
            old = [self._spares.pop(key)] if key in self._spares else []
            self._spares[key] = worker
            while len(self._spares) > self._max_spares:
                old.append(self._spares.pop(next(iter(self._spares))))  # the one made first
            for each in old:
                each.kill()
                each.release()

    def _foresee(self, key: _SpareKey) -> None:
        if self._max_spares and key not in self._spares and not self._closed:
            task = asyncio.create_task(self._make_spare(key))
            self._making.add(task)
            task.add_done_callback(self._making.discard)


def _transient(result: AttemptResult) -> bool:
    return result.error is not None and failure_class(result.error.code) is FailureClass.TRANSIENT


def _restarted(place: Place, result: AttemptResult) -> AttemptResult | None:
    """The end of a worker as the operator asked for it; None where it was not, or came by something else."""
    reason, place.restart = place.restart, None
    if reason is None or result.error is None or result.error.code != CRASHED:
        return None
    return replace(result, error=GuestError(code=RESTARTED, message=reason, retryable=True))


def _spare_key(order: AttemptOrder) -> _SpareKey:
    return order.component_digest, order.limits.memory_bytes, order.limits.guest_ms


class _Probe:
    def __init__(self, missing: str | None, layers: list[str], status: int) -> None:
        self.missing, self.layers, self.status = missing, layers, status

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGSYS


class _Slot:
    """A place among the working guests. One that waits for an answer lends it to others.

    Without that, as many unanswered questions as there are places would stop every other run. Those that
    wait are bounded too, by ``parked``: beyond it a waiting guest keeps its place.
    """

    def __init__(self, slots: asyncio.Semaphore, parked: asyncio.Semaphore) -> None:
        self._slots = slots
        self._parked = parked
        self._lent = False

    async def __aenter__(self) -> _Slot:
        await self._slots.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        (self._parked if self._lent else self._slots).release()

    async def lend(self, waits: bool) -> None:
        """Give the place away while waiting; take one again, when there is one, to go on."""
        if waits and not self._lent and not self._parked.locked():
            await self._parked.acquire()
            self._lent = True
            self._slots.release()
        elif not waits and self._lent:
            await self._slots.acquire()
            self._lent = False
            self._parked.release()


class _Life:
    """One instance along the lifecycle table; every move is stated before it is made."""

    def __init__(self, place: Place, instance: str, on_transition: OnTransition) -> None:
        self._place = place
        self._order = place.order
        self._instance = instance
        self._on_transition = on_transition
        self.state = State.DEFINED

    async def go(self, trigger: Trigger, reason: str = "") -> None:
        after = move(self.state, trigger)
        await self._on_transition(
            self._order,
            AgentTransition(
                agent=self._order.agent or self._order.node,
                instance=self._instance,
                before=self.state.value,
                after=after.value,
                trigger=trigger.value,
                reason=reason[:500],
                node=self._order.node,
                attempt=self._order.attempt,
            ),
        )
        self.state = after
        self._place.state = after.value

    async def waiting(self, waits: bool) -> None:
        """The instance waits long enough to be seen waiting, or goes on."""
        await self.go(Trigger.AWAIT_TOOL if waits else Trigger.RESUME)

    async def end(self, result: AttemptResult, breached: str | None) -> None:
        """The moves after the guest's own part."""
        if breached is not None:
            await self.go(Trigger.BREACH, breached)
        elif result.ok:
            await self.go(Trigger.COMPLETE)
            await self.go(Trigger.TEARDOWN_OK)
        else:
            assert result.error is not None
            await self.abandon(f"{result.error.code}: {result.error.message}")

    async def fault(self, result: AttemptResult) -> None:
        """The worker is lost and another one is to take over: FAULTED, then RECOVERING."""
        assert result.error is not None
        reason = f"{result.error.code}: {result.error.message}"
        await self.go(Trigger.ERROR, reason)
        await self.go(Trigger.RECOVER, reason)

    async def lost(self, reason: str) -> None:
        """There is no worker to go on in."""
        if self.state is State.RECOVERING:
            await self.go(Trigger.RECOVERY_EXHAUSTED, reason)
        else:
            await self.go(Trigger.BREACH, reason)  # the only way out of SPAWNED that the table knows

    async def abandon(self, reason: str) -> None:
        """The shortest legal way to the end from wherever the instance is."""
        if self.state in (State.ACTIVE, State.WAITING, State.COMPLETING):
            await self.go(Trigger.ERROR, reason)
        if self.state is State.FAULTED:
            await self.go(Trigger.ABANDON, reason)
        elif self.state is State.RECOVERING:
            await self.go(Trigger.RECOVERY_EXHAUSTED, reason)
        elif self.state is State.SPAWNED:
            await self.go(Trigger.BREACH, reason)


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None when there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _read_component(path: Path) -> bytes:
    """The bytes of a component, its size and header checked before anything else looks at them."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            wasm = file.read(COMPILE_LIMITS.wasm_bytes + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError as error:
        raise NotFoundError(
            f"cannot read the component {path}: {error.strerror}", code="component.unknown"
        ) from error
    if len(wasm) > COMPILE_LIMITS.wasm_bytes:
        raise ComponentRefused(f"{path.name} is larger than {COMPILE_LIMITS.wasm_bytes} bytes")
    if not wasm.startswith(COMPONENT_HEADER):
        core = "a core module; 'rlp agent build' makes a component of it"
        kind = core if wasm.startswith(b"\0asm") else "no WebAssembly"
        raise ComponentRefused(f"{path.name} is not a component in binary form: {kind}")
    return wasm
