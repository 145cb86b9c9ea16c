"""Makes the standard library honest inside the sandbox: clock, chance and output go through the gate, the
rest of the outside world is a clear error instead of a dead instance.

Installed once, at build time, after every preloaded module was imported. A WASI call that slipped through
would trap (the component's WASI is stubbed out), so what is not rerouted here must be refused in words.
Knows nothing of agents. Runs on the runner's CPython only (see runner.toml for its version).
"""

from __future__ import annotations

import builtins
import datetime as datetime_module
import importlib.machinery
import io
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from runloop.host import Host, HostRefused

__all__ = ["GateRandom", "install"]

_NS = 1_000_000_000


def install(host: Host) -> Callable[[], None]:
    """Reroute or refuse everything that a guest must not reach on its own.

    Returns what to call at the end of a task: it sends on the half line that a ``print`` left.
    """
    _clock(host)
    _dates(host)
    _chance(host)
    _files()
    _processes()
    _imports()
    return _talk(host)  # last, so that a mistake above is still printed by the build


def _put(owner: Any, **attributes: Any) -> None:
    for name, value in attributes.items():
        if hasattr(owner, name):
            setattr(owner, name, value)


def _refuse(what: str, instead: str) -> Callable[..., Any]:
    def refused(*_args: Any, **_kwargs: Any) -> Any:
        raise PermissionError(f"an agent has no {what}; {instead}")

    return refused


# --- time -----------------------------------------------------------------------------------------


def _clock(host: Host) -> None:
    real_gmtime, real_strftime, real_asctime = time.gmtime, time.strftime, time.asctime

    def time_ns() -> int:
        return host.now_ms() * 1_000_000

    def now() -> float:
        return host.now_ms() / 1000

    def gmtime(seconds: float | None = None) -> time.struct_time:
        return real_gmtime(now() if seconds is None else seconds)

    def strftime(form: str, moment: Any = None) -> str:
        return real_strftime(form, gmtime() if moment is None else moment)

    def asctime(moment: Any = None) -> str:
        return real_asctime(gmtime() if moment is None else moment)

    def ctime(seconds: float | None = None) -> str:
        return real_asctime(gmtime(seconds))

    _put(
        time,
        time=now,
        time_ns=time_ns,
        monotonic=now,
        monotonic_ns=time_ns,
        perf_counter=now,
        perf_counter_ns=time_ns,
        process_time=now,
        process_time_ns=time_ns,
        thread_time=now,
        thread_time_ns=time_ns,
        gmtime=gmtime,
        localtime=gmtime,  # a guest's zone is UTC
        strftime=strftime,
        asctime=asctime,
        ctime=ctime,
        sleep=_refuse("clock to sleep by", "use the opening's retry and timeout instead"),
        clock_gettime=_refuse("clocks", "use host.now_ms()"),
        clock_gettime_ns=_refuse("clocks", "use host.now_ms()"),
        clock_getres=_refuse("clocks", "use host.now_ms()"),
        get_clock_info=_refuse("clocks", "use host.now_ms()"),
        tzset=_refuse("time zone", "it is always UTC"),
    )


def _dates(host: Host) -> None:
    """``datetime.now``, ``utcnow``, ``date.today`` ask the gate; all else is as it was."""
    real_datetime, real_date = datetime_module.datetime, datetime_module.date
    utc = datetime_module.timezone.utc  # noqa: UP017  the name datetime.UTC is the same object
    epoch = real_datetime(1970, 1, 1, tzinfo=utc)

    class _DateMeta(type):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, real_date)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, real_date)

    class _DatetimeMeta(_DateMeta):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, real_datetime)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, real_datetime)

    def moment() -> Any:
        return epoch + datetime_module.timedelta(milliseconds=host.now_ms())

    class date(real_date, metaclass=_DateMeta):
        @classmethod
        def today(cls) -> Any:
            at = moment()
            return cls(at.year, at.month, at.day)

    class datetime(real_datetime, metaclass=_DatetimeMeta):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            at = moment() if tz is None else moment().astimezone(tz)
            zone = None if tz is None else at.tzinfo
            return cls(
                at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, zone, fold=at.fold
            )

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now()

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    for made in (date, datetime):
        made.__module__ = "datetime"
        made.__qualname__ = made.__name__
    for module in list(sys.modules.values()):  # whoever imported the names already sees the new ones
        for name, value in list(vars(module).items()) if isinstance(module, type(sys)) else ():
            if value is real_datetime:
                setattr(module, name, datetime)
            elif value is real_date:
                setattr(module, name, date)


# --- chance ---------------------------------------------------------------------------------------


class GateRandom(random.Random):
    """A generator that takes its seed from the gate at first use, unless the author gave one.

    Left alone, a prebuilt interpreter would give every run of every agent the same "random" numbers.
    """

    source: Callable[[int], bytes]
    _unseeded = True

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        return super().__new__(cls, 0)  # without an argument, C code would ask WASI for entropy

    def seed(self, a: Any = None, version: int = 2) -> None:
        self._unseeded = a is None
        super().seed(0 if a is None else a, version)

    def _settle(self) -> None:
        self.seed(int.from_bytes(type(self).source(32), "big"))

    def random(self) -> float:
        if self._unseeded:
            self._settle()
        return super().random()

    def getrandbits(self, k: int) -> int:
        if self._unseeded:
            self._settle()
        return super().getrandbits(k)

    def getstate(self) -> Any:
        if self._unseeded:
            self._settle()
        return super().getstate()

    def setstate(self, state: Any) -> None:
        self._unseeded = False
        super().setstate(state)


def _chance(host: Host) -> None:
    import uuid

    def urandom(n: int) -> bytes:
        return host.random_bytes(n)

    GateRandom.source = staticmethod(host.random_bytes)
    system = random.SystemRandom
    random.Random = GateRandom  # type: ignore[misc]
    shared = GateRandom()
    random._inst = shared  # type: ignore[attr-defined]
    for name in random.__all__:
        if name not in ("Random", "SystemRandom", "binomialvariate") and hasattr(shared, name):
            setattr(random, name, getattr(shared, name))
    _put(random, binomialvariate=shared.binomialvariate, _urandom=urandom)
    # SystemRandom inherits from the class that asks WASI for a seed when it is made.
    system.__new__ = staticmethod(lambda cls, *_a, **_k: GateRandom.__mro__[1].__new__(cls, 0))  # type: ignore[method-assign]
    os.urandom = urandom
    _put(os, getrandom=lambda size, flags=0: urandom(size))
    nowhere = _refuse("hardware address", "use uuid.uuid4() or uuid.uuid5()")
    _put(uuid, uuid1=nowhere, uuid6=nowhere, getnode=nowhere)


# --- print, input, logging ------------------------------------------------------------------------


class _LogStream(io.TextIOBase):
    """Standard output of an agent: every complete line is a ``log.write``."""

    def __init__(self, host: Host, level: str) -> None:
        self._host = host
        self._level = level
        self._rest = ""

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._send(line)
        return len(text)

    def flush(self) -> None:
        """Nothing: half a line waits for its end, or for the end of the task (see ``finish``)."""

    def finish(self) -> None:
        rest, self._rest = self._rest, ""
        if rest:
            self._send(rest)

    def _send(self, line: str) -> None:
        try:
            self._host.log(line.encode(errors="replace").decode(), level=self._level)
        except HostRefused:
            return  # a lost log line is not worth the attempt


def _talk(host: Host) -> Callable[[], None]:
    out, err = _LogStream(host, "info"), _LogStream(host, "warning")
    sys.stdout = sys.__stdout__ = out
    sys.stderr = sys.__stderr__ = err
    sys.stdin = sys.__stdin__ = io.StringIO("")
    builtins.input = _refuse("keyboard", "ask for what you need under 'with' in the opening")
    builtins.breakpoint = _refuse("debugger", "test the agent in process with runloop.guest_testing")

    def finish() -> None:
        out.finish()
        err.finish()

    return finish


# --- files, processes, sockets --------------------------------------------------------------------

_FILE_CALLS = """
access chdir chmod close copy_file_range dup dup2 fchdir fchmod fdatasync fdopen fstat fstatvfs fsync
ftruncate get_terminal_size getcwd getcwdb isatty link listdir lseek lstat makedirs mkdir open openpty
pipe posix_fadvise posix_fallocate pread preadv pwrite pwritev read readinto readlink readv remove
removedirs rename renames replace rmdir scandir sendfile stat statvfs symlink truncate umask unlink utime
walk fwalk write writev
""".split()  # noqa: SIM905
_PROCESS_CALLS = """
abort execl execle execlp execlpe execv execve execvp execvpe fork forkpty getegid geteuid getgid
getgroups getloadavg getlogin getpgid getpgrp getppid getpriority getuid kill killpg nice popen
posix_spawn posix_spawnp putenv register_at_fork sched_yield setuid spawnl spawnv system times uname
unsetenv wait waitpid
""".split()  # noqa: SIM905


def _files() -> None:
    no_file = _refuse("files", "use host.kb_read(), host.blob_read() and host.put_artifact()")

    class NoFile:
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return no_file()

    import _io
    import tempfile

    builtins.open = no_file
    _put(io, open=no_file, open_code=no_file, FileIO=NoFile)
    _put(_io, open=no_file, open_code=no_file, FileIO=NoFile)
    for module in (os, sys.modules.get("posix")):
        if module is not None:
            _put(module, **dict.fromkeys(_FILE_CALLS, no_file))
    asked = ("exists", "lexists", "isfile", "isdir", "islink", "ismount")
    _put(os.path, **dict.fromkeys(asked, lambda *_: False))

    def audit(event: str, _args: tuple[Any, ...]) -> None:
        # C code opens files too: a SyntaxError looks for its own line, and the call itself would be a trap.
        if event == "open":
            no_file()

    sys.addaudithook(audit)
    made = ("mkstemp", "mkdtemp", "gettempdir", "TemporaryFile", "NamedTemporaryFile")
    _put(tempfile, **dict.fromkeys(made, no_file))


def _processes() -> None:
    no_process = _refuse("processes", "every effect is a host call")
    os.environ.clear()  # what the build machine had
    for module in (os, sys.modules.get("posix")):
        if module is not None:
            _put(module, **dict.fromkeys(_PROCESS_CALLS, no_process))
    os.system = os.popen = os.fork = no_process  # this platform lacks them; say why
    _put(os, environb={}, _exit=no_process, getpid=lambda: 1)  # logging stamps every record with it
    import _thread
    import threading

    no_thread = _refuse("threads", "split the work into nodes of the opening")
    _put(_thread, start_new_thread=no_thread, start_new=no_thread, start_joinable_thread=no_thread)
    _put(threading, _start_joinable_thread=no_thread, _start_new_thread=no_thread)


# --- imports --------------------------------------------------------------------------------------

_OUTSIDE = frozenset(
    """_socket socket ssl select selectors socketserver subprocess multiprocessing asyncio ctypes http.client
    urllib.request smtplib imaplib ftplib sqlite3 signal concurrent tkinter mmap fcntl termios""".split()  # noqa: SIM905
)


class _NoMore(importlib.machinery.PathFinder):
    """Last in line: says in words why a module cannot be had."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in _OUTSIDE or fullname in _OUTSIDE:
            why = "an agent has no network, processes or threads; every effect is a host call (runloop.host)"
        else:
            why = (
                "a Python agent has its own modules, runloop.agent and the runner's standard library; "
                'what needs more ships its own component (language = "component")'
            )
        raise ModuleNotFoundError(f"No module named {fullname!r}: {why}", name=fullname)


def _imports() -> None:
    keep = ("BuiltinImporter", "FrozenImporter")
    kept = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") in keep]
    sys.meta_path[:] = [*kept, _NoMore]
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
