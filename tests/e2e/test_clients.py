"""Programs in JavaScript and Rust against the installed daemon: they talk to each other, are refused what is
not theirs, and outlive the daemon."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import clients
from tests.conformance.rmp import Probe
from tests.e2e.test_docs import blocks_of
from tests.home import ROOT, Home

LANGUAGES = [
    pytest.param("javascript", marks=clients.javascript),
    pytest.param("rust", marks=clients.rust),
]
PATIENCE_MS = 30_000


class Talk:
    """One program; told what to do, it answers in a line."""

    def __init__(self, program: Probe) -> None:
        self._program = program

    def __call__(self, *words: str) -> str:
        (answer,) = self._program.ask([" ".join(words)])
        return answer

    def next(self) -> str:
        return self("next", str(PATIENCE_MS))


Start = Callable[[str], Talk]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a program in a language."""
    started: list[Probe] = []

    def make(language: str) -> Talk:
        command = (
            [clients.node() or "", str(clients.JS / "probe/talk.mjs")]
            if language == "javascript"
            else [str(clients.rust_programs(tmp_path_factory) / "talk")]
        )
        started.append(Probe(*command))
        return Talk(started[-1])

    yield make
    for program in started:
        program.close()


def running(home: Home) -> tuple[str, str]:
    """The socket of a started daemon, and the operator credential in hex."""
    home.rlp("daemon", "start").check()
    return str(socket_of(home)), (home.path / "keys/operator.key").read_bytes().hex()


def socket_of(home: Home) -> Path:
    (found,) = home.path.rglob("*.sock")
    return found


@clients.javascript
@clients.rust
@pytest.mark.requirement("I4.clients.3")
def test_a_program_in_javascript_and_one_in_rust_talk_to_each_other(home: Home, start: Start) -> None:
    socket, credential = running(home)
    script, crate = start("javascript"), start("rust")
    for program in (script, crate):
        assert program("connect", socket, credential) == "ok operator"
        assert program("ping") == "ok pong"
    assert script("subscribe", "demo/*") == "ok"
    assert crate("subscribe", "demo/to-rust") == "ok"
    assert crate("publish", "demo/to-js", "hello") == "ok 1"
    assert script.next() == "ok demo/to-js hello - passing"
    assert script("publish", "demo/to-rust", "back") == "ok 2", "the script itself listens, too"
    assert crate.next() == "ok demo/to-rust back - passing"
    assert crate("unsubscribe", "demo/to-rust") == "ok"
    assert script("publish", "demo/to-rust", "again") == "ok 1"
    assert script("call", "status") == crate("call", "status") == "ok " + ",".join(sorted(status(home)))


@clients.javascript
@clients.rust
@pytest.mark.requirement("I4.clients.3")
def test_the_directory_shows_programs_as_they_say_and_as_they_say_anew(home: Home, start: Start) -> None:
    socket, credential = running(home)
    script, crate = start("javascript"), start("rust")
    for program in (script, crate):
        assert program("connect", socket, credential) == "ok operator"
    assert script("find", "talk") == crate("find", "talk") == "ok 2"
    assert crate("announce", "listen") == "ok"
    assert script("find", "talk") == script("find", "listen") == "ok 1"
    assert script("announce", "listen") == "ok"
    assert crate("find", "listen") == "ok 2"


def status(home: Home) -> list[str]:
    return list(home.rlp("daemon", "status", "--json").check().json)


@pytest.mark.requirement("I4.clients.3")
@pytest.mark.parametrize("language", LANGUAGES)
def test_without_the_credential_a_program_may_talk_and_decide_nothing(
    home: Home, start: Start, language: str
) -> None:
    socket, _ = running(home)
    peer = start(language)
    assert peer("connect", socket, "-") == "ok peer"
    assert peer("publish", "demo/a", "hi") == "ok 0"
    assert peer("decide") == "error refused bus.refused"
    assert peer("subscribe", "agent/writer") == "error refused bus.refused"
    assert peer("publish", "rlp/sys/metrics", "hi") == "error refused bus.refused"
    assert peer("call", "daemon.stop").startswith("error refused"), "for the operator alone"
    assert peer("call", "no.such").startswith("error")
    assert peer("publish", "not//a-topic", "hi") == "error usage topic"
    assert start(language)("connect", socket, "00" * 32) == "ok peer", "a wrong key proves nothing"
    assert start(language)("connect", socket + ".gone", "-") == "error unreachable client.unreachable"
    assert peer("ping") == "ok pong", "a refusal harms nothing"


@pytest.mark.requirement("I4.clients.3")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_outlives_the_daemon_and_what_it_wanted_stands(
    home: Home, start: Start, language: str
) -> None:
    socket, credential = running(home)
    program, other = start(language), start(language)
    assert program("connect", socket, credential) == "ok operator"
    assert program("subscribe", "demo/*") == "ok"
    home.kill()
    home.rlp("daemon", "start").check()
    assert program("ping") == "ok pong"
    assert program("principal") == "ok operator", "the proof is made anew for the new nonce"
    assert other("connect", socket, credential) == "ok operator"
    assert other("publish", "demo/after", "still-there") == "ok 1"
    assert program.next() == "ok demo/after still-there - passing"


@pytest.mark.requirement("I4.clients.4")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_durable_consumer_gets_everything_once_in_order_through_a_crash(
    home: Home, start: Start, language: str
) -> None:
    socket, credential = running(home)
    writer, reader = start(language), start(language)
    for program in (writer, reader):
        assert program("connect", socket, credential) == "ok operator"
    assert reader("consume", "books", "durable/orders/*") == "ok"
    for number in range(3):
        assert writer("durable", "durable/orders/new", f"n{number}").startswith("ok ")
    assert reader.next() == "ok durable/orders/new n0 books recorded"
    assert reader("ack") == "ok"
    assert reader.next() == "ok durable/orders/new n1 books recorded"
    home.kill()
    home.rlp("daemon", "start").check()
    assert writer("durable", "durable/orders/new", "n3").startswith("ok ")
    assert reader.next() == "ok durable/orders/new n2 books recorded", (
        "n1 was handed over: it does not repeat"
    )
    assert reader.next() == "ok durable/orders/new n3 books recorded"
    assert reader("ack") == "ok"
    assert reader("leave", "books") == "ok"
    assert reader("consume", "books", "durable/orders/*") == "ok"
    assert writer("durable", "durable/orders/new", "n4").startswith("ok ")
    assert reader.next() == "ok durable/orders/new n4 books recorded"


@pytest.mark.requirement("I4.clients.5")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_consumer_that_another_program_takes_up_ends_with_the_reason(
    home: Home, start: Start, language: str
) -> None:
    socket, credential = running(home)
    first, second = start(language), start(language)
    for program in (first, second):
        assert program("connect", socket, credential) == "ok operator"
    assert first("consume", "books", "durable/orders/*") == "ok"
    assert second("durable", "durable/orders/new", "n0").startswith("ok ")
    assert first.next() == "ok durable/orders/new n0 books recorded"
    assert second("consume", "books", "durable/orders/*") == "ok"
    assert first.next() == "error conflict bus.consumer_taken"
    assert second.next() == "ok durable/orders/new n0 books recorded", "nobody acknowledged it"
    assert first("ack") == "ok", "too late, and no error"
    home.kill()
    home.rlp("daemon", "start").check()
    assert first("ping") == second("ping") == "ok pong"
    assert second("durable", "durable/orders/new", "n1").startswith("ok ")
    assert second.next() == "ok durable/orders/new n1 books recorded", "the first does not take it back"


# --- the pages --------------------------------------------------------------------------------------

HOWTO = ROOT / "docs/howto/clients-in-javascript-and-rust.md"


def block(page: Path, kind: str) -> str:
    (found,) = [one.text for one in blocks_of(page) if one.kind == kind]
    return found


def run_script(home: Home, place: Path, text: str) -> str:
    (place / "node_modules").mkdir()
    (place / "node_modules/runloop-rmp").symlink_to(clients.JS / "rmp")
    (place / "program.mjs").write_text(text)
    return run(home, clients.node() or "", str(place / "program.mjs"))


def run(home: Home, *command: str) -> str:
    done = subprocess.run(command, env=home.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@clients.javascript
def test_the_program_of_the_packages_readme_runs(home: Home, tmp_path: Path) -> None:
    running(home)
    shown = run_script(home, tmp_path, block(clients.JS / "rmp/README.md", "js"))
    assert shown == "1 receiver\ndemo/greeting: hello\nRefusedError, bus.refused\n"


@clients.javascript
def test_the_script_of_the_howto_prints_what_the_page_shows(home: Home, tmp_path: Path) -> None:
    running(home)
    assert run_script(home, tmp_path, block(HOWTO, "js")) == block(HOWTO, "text")


def test_the_python_program_of_the_howto_gets_what_it_published(home: Home) -> None:
    running(home)
    assert run(home, sys.executable, "-c", block(HOWTO, "python")) == "order 7\n"


@clients.rust
def test_the_rust_program_of_the_howto_prints_what_the_page_shows(
    home: Home, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert block(HOWTO, "rust") == (clients.RUST / "examples/hello.rs").read_text()
    running(home)
    assert run(home, str(clients.rust_programs(tmp_path_factory) / "hello")) == block(HOWTO, "text")
