"""A process that holds keys: what it leaves in ``/proc``, in its children and in a core file."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloopd.privacy import take_keys
from tests.canary import found

CANARY = "sk-canary-privacy-5Tq/9"
ROOT = Path(__file__).parents[2]
PYTHON = next(filter(os.path.exists, ["/usr/bin/python3.11"]), os.path.realpath(sys.executable))
"""Not the one of the virtual environment, or of somebody's home, which others may not be able to reach."""
NOBODY = 65_534 if os.geteuid() == 0 else None
"""Root may look at everything: what another process of the same user may is tried as somebody else."""

HOLDER = """
import os, subprocess, sys
from runloopd.privacy import guard_process, take_keys
if "guarded" in sys.argv:
    kept = take_keys(os.environ, {"MY_OWN"})
    guard_process()
else:
    kept = dict(os.environ)
if "child" in sys.argv:
    subprocess.run([sys.executable, "-c", "print(open('/proc/self/environ').read())"])
print("ready", len(kept["SERVICE_API_KEY"]), len(kept["MY_OWN"]), flush=True)
sys.stdin.readline()
os.abort()
"""


def holder(*words: str, cwd: Path, code: Path = ROOT, **more: Any) -> subprocess.Popen[bytes]:
    """A process that was given keys, and waits."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(code),
        "SERVICE_API_KEY": CANARY,
        "HARMLESS": "stays",
        "MY_OWN": f"{CANARY}-own",
    }
    argv = [PYTHON, "-c", HOLDER, *words]
    return subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more)


@pytest.fixture
def readable() -> Iterator[Path]:
    """The code under test where everybody may read it, wherever the checkout lies."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "runloopd")
        package.mkdir()
        (package / "__init__.py").touch()
        shutil.copy(ROOT / "runloopd" / "privacy.py", package)
        for path in (Path(folder), package, *package.iterdir()):
            path.chmod(0o755)
        yield Path(folder)


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    lines = b""
    while b"ready" not in lines:
        line = process.stdout.readline()
        assert line, lines
        lines += line
    return lines


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.requirement("K5", "I6.secrets.8")
def test_what_proc_shows_of_the_environment_holds_no_key_even_for_root(tmp_path: Path) -> None:
    for words, leaks in (((), True), (("guarded",), False)):
        process = holder(*words, cwd=tmp_path)
        assert b"ready 23 27" in said(process), "the process itself still has them"
        shown = Path(f"/proc/{process.pid}/environ").read_bytes()
        end(process)
        assert bool(found(CANARY, shown)) is leaks
        assert b"HARMLESS=stays" in shown


@pytest.mark.requirement("K5", "I6.secrets.8")
def test_a_child_inherits_no_key(tmp_path: Path) -> None:
    for words, leaks in ((("child",), True), (("guarded", "child"), False)):
        process = holder(*words, cwd=tmp_path)
        heard = said(process)
        end(process)
        assert bool(found(CANARY, heard)) is leaks and b"HARMLESS=stays" in heard


LOOKER = """
import ctypes, os, sys
pid = int(sys.argv[1])
for what in ("environ", "mem", "maps"):
    try:
        with open(f"/proc/{pid}/{what}", "rb", buffering=0) as file:
            what == "mem" or file.read(1)
        print(what)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(0x4206, pid, 0, 0) == 0:  # PTRACE_SEIZE
    print("ptrace")
"""


@pytest.mark.requirement("K5", "I6.secrets.8")
def test_another_process_of_the_same_user_cannot_look_into_it(readable: Path) -> None:
    more: dict[str, Any] = {} if NOBODY is None else {"user": NOBODY}
    for words, seen in (((), {b"environ", b"mem", b"maps"}), (("guarded",), set[bytes]())):
        process = holder(*words, cwd=Path("/"), code=readable, **more)
        said(process)
        argv = [PYTHON, "-c", LOOKER, str(process.pid)]
        looked = subprocess.run(argv, cwd="/", capture_output=True, check=True, **more)
        end(process)
        # Where the kernel lets no sibling attach at all (Yama), the first one is not seen by ptrace either.
        assert set(looked.stdout.split()) - ({b"ptrace"} if not words else set()) == seen


@pytest.mark.requirement("K1", "I6.secrets.8")
def test_when_it_dies_badly_it_leaves_no_core_file(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    cores = {}
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        for words in ((), ("guarded",)):
            folder = tmp_path / ("guarded" if words else "plain")
            folder.mkdir()
            process = holder(*words, cwd=folder)
            said(process)
            process.communicate(b"\n")
            assert process.returncode == -signal.SIGABRT
            cores[words] = [path.name for path in folder.iterdir()]
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert cores["guarded",] == []
    if not pattern.startswith(("|", "/")) and hard != 0:
        assert cores[()], "the test would see one"


def test_what_is_taken_is_what_is_named_and_what_its_name_gives_away() -> None:
    environ = {
        "OPENAI_API_KEY": "1", "GITHUB_TOKEN": "2", "AWS_SECRET_ACCESS_KEY": "3", "PGPASSWORD_FILE": "4",
        "SMTP_PASSWORD": "5", "my_token": "6", "NAMED": "7",
        "PATH": "p", "HOME": "h", "KEYBOARD": "k", "SSH_AUTH_SOCK": "s", "MONKEY": "m", "TOKENIZERS": "t",
        "CREDENTIALS_DIRECTORY": "/run/c", "RUNLOOP__MAIL__PASSWORD_ENV": "SMTP_PASSWORD",
        "XDG_SESSION_TOKEN": "x",
    }  # fmt: skip
    before = take_keys(environ, {"NAMED", "ABSENT"})
    assert sorted(set(before) - set(environ)) == [
        "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "NAMED", "OPENAI_API_KEY", "SMTP_PASSWORD", "my_token",
    ]  # fmt: skip
    assert before["NAMED"] == "7"


SAYING = f"""
import structlog
from runloopd.__main__ import _configure_logging
from runloopd.broker.secrets import Known, SecretRef, SecretStore
known = Known()
_configure_logging("info", known)
log = structlog.get_logger()
store = SecretStore(environ={{"K": "{CANARY}"}}, known=known)
found = store.find(SecretRef(env="K"))
log.info("said", text=f"a {{found.reveal()}} b", also={{found.reveal(): [found.reveal()]}})
try:
    raise ValueError(f"bad header {{found.reveal()!r}}")
except ValueError:
    log.exception("failed", raw=found.reveal().encode())
"""


@pytest.mark.requirement("K1")
def test_whatever_is_logged_of_a_secret_that_was_used_is_masked_as_the_line_is_written() -> None:
    done = subprocess.run([sys.executable, "-c", SAYING], capture_output=True, check=True)
    assert done.stderr.count(b"[secret]") >= 4 and found(CANARY, done.stderr + done.stdout) == []
