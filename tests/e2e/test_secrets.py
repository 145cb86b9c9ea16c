"""Canary secrets through a real daemon: every provider, every failure, a crash; then everything is searched.

One story, told once: an agent asks models whose servers say the key back in every way, fetches with a
reference, sends a mail whose server quotes the password, lends two secrets to a program that tells them to
whoever listens; processes are looked at while that happens; the
daemon is killed in the middle of a call. Then no file, output or process may hold a canary, however spelt.
"""

from __future__ import annotations

import base64
import html
import json
import os
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from runloop.events import NodeFinished, SecretUsed
from tests.canary import found
from tests.home import Home, wait_gone, wait_until

pytestmark = pytest.mark.timeout(300)  # the story is told in the set-up of the first test

STORED = "sk-canary-stored/8Rw+Zt&1"
ENV = "sk-canary-environ-4Kp9Wm2"
RANDOM = "tok-canary-unnamed-77xQz"
MAIL = "pw-canary-mail/6Gh+Bn3"
WEB = "key-canary-web/2Lc+Vd5"
LENT = "lent-canary-program/3Jw+Xs8"
HANDED = "fd-canary-handed/5Qk+Ty1"
CANARIES = {
    "stored": STORED, "environ": ENV, "unnamed": RANDOM, "mail": MAIL, "web": WEB,
    "lent": LENT, "handed": HANDED,
}  # fmt: skip
MODEL_KEY, MAIL_KEY, WEB_KEY = "runloop/models/hostile", "runloop/mail/smtp", "runloop/tools/web"
LENT_KEY, HANDED_KEY = "runloop/tools/lent", "runloop/tools/handed"

MANIFEST = """\
name = "prober"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Calls whatever it is told to, and writes down what it hears."
ops = ["model.complete", "secret.use", "http.fetch", "log.write", "mail.send", "msg.next", "tool.call"]

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard, held = {}, {}
    for name, op, args in task.param("asks"):
        if "headers" in args:
            args = {**args, "headers": {k: v.format(**held) for k, v in args["headers"].items()}}
        try:
            answer = host.call(op, args)
            if op == "secret.use":
                held[name] = answer["reference"]
        except HostRefused as refused:
            answer = {"code": refused.code, "message": str(refused)}
        heard[name] = answer
        host.call("log.write", {"message": name, "fields": {"heard": answer}})
    return Result.of(out=heard)
"""


LEAK = """
import base64, json, os, sys, time
from urllib.parse import quote
how, lent = sys.argv[1], [os.environ["TOKEN"], os.read(int(os.environ["HANDED_FD"]), 999).decode()]
spelt = []
for value in lent:
    raw = value.encode()
    spelt += [value, quote(value, safe=""), json.dumps(value), raw.hex(), raw.hex(" ")]
    spelt.append(base64.b64encode(raw).decode())
    spelt += [base64.encodebytes(b"x" * n + raw).decode() for n in (0, 1, 50, 59)]
    spelt.append("\\n".join(value))
if how == "hang":
    time.sleep(60)
if how in ("stderr", "abort"):
    print(*spelt, file=sys.stderr, flush=True)
    os.abort() if how == "abort" else sys.exit(3)
if how == "cut":
    for value in lent:
        sys.stderr.write("x " * (2**19 - 6) + value)
    sys.exit(3)
if how == "pages":
    sys.stdout.write("no JSON " + " ".join(spelt))
for char in json.dumps([[value, spelt] for value in lent]):
    sys.stdout.write(char)
    sys.stdout.flush()
"""
TOOLS = {
    "version": 1,
    "tools": [
        {
            "id": "box.leak",
            "description": "Says what it was lent.",
            "transport": {
                "kind": "exec",
                "argv": ["python3", "-c", LEAK, "{how}"],
                "env": {"TOKEN": f"{{secret:{LENT_KEY}}}"},
            },
            "input_schema": {
                "type": "object",
                "properties": {"how": {"type": "string"}},
                "required": ["how"],
            },
            "result_schema": True,
            "capabilities": ["exec:python3"],
            "secrets": [LENT_KEY, HANDED_KEY],
            "effect": "read",
        }
    ],
}
LEAKS = ("answer", "pages", "stderr", "abort", "cut")


def coded(text: str) -> str:
    """A text in many spellings, as an unlucky server might log or answer it."""
    raw = text.encode()
    return " ".join(
        [
            text, quote(text, safe=""), html.escape(text), json.dumps(text), raw.hex(),
            *(base64.b64encode(b"x" * n + raw + b"!").decode() for n in range(3)),
            base64.urlsafe_b64encode(b"Bearer " + raw).decode(),
        ]
    )  # fmt: skip


class Hostile(ThreadingHTTPServer):
    """Says back what it was told, in the way the first part of the path names."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hostile)
        self.told: dict[str, str] = {}
        """Way -> the authorization it was asked with."""
        self.stalled, self.released = threading.Event(), threading.Event()


class _Hostile(BaseHTTPRequestHandler):
    server: Hostile

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer("stream" if self._way() == "answer" and b'"stream":true' in asked else self._way())

    def do_GET(self) -> None:
        self._answer(self._way())

    def _way(self) -> str:
        return self.path.split("/")[1]

    def _answer(self, way: str) -> None:
        key = self.headers.get("Authorization") or self.headers.get("x-api-key") or ""
        self.server.told[self._way()] = key
        bare = key.removeprefix("Bearer ")
        match way:
            case "answer":
                content = f"Your key: {coded(bare)}"
                choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 1, "completion_tokens": 1}
                self._say(200, json.dumps({"model": f"m-{bare}", "choices": [choice], "usage": usage}))
            case "stream":
                text = coded(bare)
                deltas = [{"choices": [{"index": 0, "delta": {"content": c}}]} for c in text]
                deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                events = [f"data: {json.dumps(delta)}\n\n" for delta in deltas]
                self._say(200, "".join([*events, "data: [DONE]\n\n"]), "text/event-stream")
            case "refused":
                self._say(401, json.dumps({"error": {"message": f"Incorrect API key: {coded(bare)}"}}))
            case "headers":
                self._say(400, json.dumps({"error": {"message": f"{self.headers} {coded(key)}"}}))
            case "page":
                self._say(200, f"<html>{coded(bare)}", "text/html")
            case "malformed":
                self._say(200, json.dumps({"choices": bare, "error": {"message": coded(bare)}}))
            case "utf16":
                self._say(400, bare.encode("utf-16").decode("latin-1"))
            case "redirect":
                self._say(302, coded(bare), Location=f"http://127.0.0.1:9/{quote(bare, safe='')}?k={bare}")
            case "status":
                self.wfile.write(f"HTTP/1.1 400 {bare}\r\nX-{bare}: 1\r\nContent-Length: 0\r\n\r\n".encode())
            case "nonsense":
                self.wfile.write(f"{bare}\r\n\r\n".encode())
            case "cut":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(bare.encode())
            case _:
                self.server.stalled.set()
                self.server.released.wait(60)
        self.close_connection = True

    def _say(self, status: int, text: str, media: str = "application/json", **headers: str) -> None:
        body = text.encode("latin-1", "replace")
        self.send_response(status)
        for name, value in {"Content-Type": media, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class RudePost(threading.Thread):
    """An SMTP server that quotes the password it refuses."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard: list[bytes] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                connection.sendall(b"220 here\r\n")
                for line in lines:
                    if line.upper().startswith(b"EHLO"):
                        connection.sendall(b"250-here\r\n250 AUTH PLAIN\r\n")
                    elif line.upper().startswith(b"AUTH PLAIN "):
                        sent = base64.b64decode(line.split()[2])
                        self.heard.append(sent)
                        password = sent.split(b"\0")[2]
                        connection.sendall(b"535 no: " + line[11:].strip() + b" " + password + b"\r\n")
                    else:
                        connection.sendall(b"221 bye\r\n")
                        break

    def stop(self) -> None:
        self._listener.close()


WAYS = ("refused", "headers", "page", "malformed", "utf16", "redirect", "status", "nonsense", "cut")


@dataclass
class Story:
    """What happened."""

    home: Home
    hostile: Hostile
    post: RudePost
    outputs: dict[str, str] = field(default_factory=dict)
    processes: dict[str, bytes] = field(default_factory=dict)
    """``<pid> environ`` and ``<pid> cmdline`` of the daemon and all it started."""
    programs: dict[str, bytes] = field(default_factory=dict)
    """The same of the program that was lent two secrets."""
    heard: dict[str, dict[str, object]] = field(default_factory=dict)

    def rlp(self, *args: str, **more: str) -> str:
        done = self.home.rlp(*args, **more)  # type: ignore[arg-type]
        self.outputs[" ".join(args)] = done.out + done.err
        return done.out

    def run(self, name: str, asks: list[list[object]], *flags: str) -> None:
        path = self.home.path / f"{name}.yaml"
        path.write_text(
            f"version: 0\nname: {name}\nnodes:\n"
            f'  - id: probe\n    use: "agent:prober"\n    with: {{asks: {json.dumps(asks)}}}\n'
        )
        self.rlp("run", str(path), "--no-input", "--json", *flags)

    def last_end(self) -> dict[str, dict[str, object]]:
        end = self.home.events("node.finished")[-1].payload
        assert isinstance(end, NodeFinished) and end.output is not None, self.outputs
        return end.output["ports"]["out"][0]  # type: ignore[no-any-return]

    def look_at_processes(self) -> None:
        pid = self.home.pid()
        assert pid is not None
        for each in [pid, *_below(pid)]:
            shown = {what: Path(f"/proc/{each}/{what}").read_bytes() for what in ("environ", "cmdline")}
            lent = shown["cmdline"].startswith(b"/usr/bin/python3\0-c\0")
            known = self.programs if lent else self.processes
            known |= {f"{each} {what}": data for what, data in shown.items()}


def _below(pid: int) -> list[int]:
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [each for child in children for each in (child, *_below(child))]


@pytest.fixture(scope="module")
def story(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    path = tmp_path_factory.mktemp("s")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    hostile, post = Hostile(), RudePost()
    threading.Thread(target=hostile.serve_forever, daemon=True).start()
    post.start()
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    # Where cores are made, one would be seen.
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    try:
        with Home(path) as home:
            told = Story(home, hostile, post)
            _configure(told)
            _tell(told)
            yield told
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limits)
        hostile.released.set()
        hostile.shutdown()
        hostile.server_close()
        post.stop()


def _configure(told: Story) -> None:
    port = told.hostile.server_port
    env = told.home.env
    stem = "RUNLOOP__MODELS__PROVIDERS__"
    for way in (*WAYS, "answer", "stream", "stall", "tls", "environ"):
        kind = "anthropic" if way in ("headers", "malformed") else "openai"
        env[f"{stem}{way.upper()}__KIND"] = kind
        env[f"{stem}{way.upper()}__BASE_URL"] = f"http://127.0.0.1:{port}/{way}"
        env[f"{stem}{way.upper()}__MODEL"] = "m"
        if way == "environ":
            env[f"{stem}{way.upper()}__API_KEY_ENV"] = "HIDDEN_IN_PLAIN_SIGHT"
        else:
            env[f"{stem}{way.upper()}__SECRET"] = MODEL_KEY
    env[f"{stem}TLS__BASE_URL"] = f"https://127.0.0.1:{port}/tls"
    env[f"{stem}ENVIRON__BASE_URL"] = f"http://127.0.0.1:{port}/refused"
    env["RUNLOOP__MODELS__DEFAULT"] = "rules"
    env |= {
        "HIDDEN_IN_PLAIN_SIGHT": ENV,
        "NOBODYS_TOKEN": RANDOM,
        "RUNLOOP__MAIL__PROVIDER": "smtp",
        "RUNLOOP__MAIL__HOST": "127.0.0.1",
        "RUNLOOP__MAIL__PORT": str(told.post.port),
        "RUNLOOP__MAIL__TLS": "none",
        "RUNLOOP__MAIL__FROM": "me@example.org",
        "RUNLOOP__MAIL__USER": "me",
        "RUNLOOP__MAIL__SECRET": MAIL_KEY,
    }
    place = f"127.0.0.1:{port}"
    caps = (
        f'model = true\nmail = ["*@example.org"]\nsecrets = ["{WEB_KEY}", "{LENT_KEY}", "{HANDED_KEY}"]\n'
        f'exec = ["python3"]\n'
        f'net = [{{hosts = ["{place}"], allow_http = true}}]\n'
    )
    folder = told.home.write_agent("prober", MANIFEST, SOURCE, caps)
    (folder / "tools.json").write_text(json.dumps(TOOLS))


def _tell(told: Story) -> None:
    place = f"127.0.0.1:{told.hostile.server_port}"
    for name, value in ((MODEL_KEY, "sk-before-rotation-11"), (MODEL_KEY, STORED), (MAIL_KEY, MAIL)):
        told.rlp("secret", "set", name, stdin=value)
    told.rlp("secret", "set", WEB_KEY, "--for", place, stdin=f"{WEB}\n")
    said = [{"role": "user", "content": "hello"}]
    models: list[list[object]] = [
        [way, "model.complete", {"messages": said, "model": f"{way}:*", "stream": way == "stream"}]
        for way in (*WAYS, "answer", "environ", "tls", "stream")
    ]
    told.run("models", models)
    told.heard["models"] = told.last_end()
    web: list[list[object]] = [["held", "secret.use", {"name": WEB_KEY}]]
    for way in (*WAYS, "answer"):
        fetch = {"url": f"http://{place}/{way}", "headers": {"Authorization": "Bearer {held}"}}
        web.append([way, "http.fetch", fetch])
    told.run("web", web)
    told.heard["web"] = told.last_end()
    told.run("mail", [["mail", "mail.send", {"to": ["a@example.org"], "subject": "Hi", "body": "there"}]])
    (waiting,) = (json.loads(line) for line in told.rlp("approvals", "--json").splitlines())
    told.rlp("approve", waiting["approval"])
    wait_until(lambda: len(told.home.events("run.finished")) == 3, "the mail to fail")
    told.heard["mail"] = told.last_end()
    _lend(told)
    _crash(told)
    _ask_for_everything(told)


def _lend(told: Story) -> None:
    """A program is lent two secrets, one in its environment and one by descriptor, and keeps neither."""
    for name, value in ((LENT_KEY, LENT), (HANDED_KEY, HANDED)):
        told.rlp("secret", "set", name, "--for", "program:python3", stdin=value)
    told.run("programs", [[how, "tool.call", {"tool": "box.leak", "args": {"how": how}}] for how in LEAKS])
    told.heard["programs"] = told.last_end()
    told.run("hang", [["hang", "tool.call", {"tool": "box.leak", "args": {"how": "hang"}}]], "--detach")

    def looked() -> bool:
        told.look_at_processes()
        return bool(told.programs)

    wait_until(looked, "the program to be started")
    told.rlp("cancel", str(told.home.events("run.started")[-1].run))


def _crash(told: Story) -> None:
    """The daemon dies while a key is on its way."""
    ended = len(told.home.events("run.finished"))
    asks: list[list[object]] = [
        ["stall", "model.complete", {"messages": [{"role": "user", "content": "x"}], "model": "stall:*"}]
    ]
    told.run("stall", asks, "--detach")
    wait_until(told.hostile.stalled.is_set, "the call to hang")
    told.look_at_processes()
    pid = told.home.pid()
    assert pid is not None
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    os.kill(pid, signal.SIGABRT)
    wait_gone(pid)
    told.hostile.released.set()
    told.rlp("daemon", "start")
    wait_until(lambda: len(told.home.events("run.finished")) == ended + 1, "the run to end after the crash")


def _ask_for_everything(told: Story) -> None:
    runs = [str(event.run) for event in told.home.events("run.started")]
    for run in runs:
        for words in (("trace", run), ("trace", run, "--json"), ("kb", "why", run, "--json")):
            told.rlp(*words)
    told.rlp("export-run", runs[0], "-o", "run.rlrun")
    for line in (
        "secret list", "secret list --json", "approvals --all --json", "runs --json", "daemon status --json",
        "config show", "doctor --json", "logs", "verify", "why " + runs[0],
    ):  # fmt: skip
        told.rlp(*line.split())
    told.rlp("kb", "query", "SELECT * FROM events", "--json")
    told.look_at_processes()


@pytest.mark.requirement("K1", "K2", "I6.secrets.7")
def test_the_servers_did_get_the_secrets(story: Story) -> None:
    """Without this, the tests below would prove nothing."""
    assert {way for way, key in story.hostile.told.items() if key} >= {*WAYS, "answer", "stream", "stall"}
    assert f"Bearer {WEB}" in story.hostile.told["answer"]
    assert MAIL.encode() in story.post.heard[0]
    assert any(LENT.encode() in shown for what, shown in story.programs.items() if "environ" in what)
    used = {
        (e.payload.name, e.payload.by)
        for e in story.home.events("secret.used")
        if isinstance(e.payload, SecretUsed)
    }
    assert used >= {
        (MODEL_KEY, "models.refused"), ("$HIDDEN_IN_PLAIN_SIGHT", "models.environ"), (MAIL_KEY, "mail"),
        (WEB_KEY, "agent:prober"), (LENT_KEY, "agent:prober"), (HANDED_KEY, "agent:prober"),
    }  # fmt: skip


@pytest.mark.requirement("K2", "I6.secrets.7")
def test_what_is_left_of_the_answers_says_where_something_was_taken_out(story: Story) -> None:
    models, web = story.heard["models"], story.heard["web"]
    assert "[secret]" in json.dumps(models["answer"]) and "[secret]" in json.dumps(web["answer"])
    assert "[secret]" in json.dumps(models["refused"]) and "[secret]" in json.dumps(web["refused"])
    assert web["redirect"]["status"] == 302
    assert story.heard["mail"]["mail"]["code"] == "mail.auth"
    programs = story.heard["programs"]
    assert "[secret]" in json.dumps(programs["answer"])
    assert "[secret]" in str(programs["stderr"]["message"]) and programs["stderr"]["code"] == "tool.failed"
    assert {how: programs[how].get("code") for how in ("pages", "abort", "cut")} == {
        "pages": "tool.result", "abort": "tool.failed", "cut": "tool.failed",
    }  # fmt: skip


@pytest.mark.requirement("K1", "K2", "I6.secrets.7")
@pytest.mark.parametrize("name", CANARIES)
def test_no_file_of_the_home_holds_a_canary_in_any_spelling(story: Story, name: str) -> None:
    leaks = {}
    for path in story.home.path.rglob("*"):
        if path.is_file() and not path.is_symlink() and "cache" not in path.parts:
            for part, data in (("", path.read_bytes()), *_blobs(story, path)):
                if where := found(CANARIES[name], data):
                    leaks[f"{path.relative_to(story.home.path)} {part}"] = where
    assert leaks == {}
    assert not list(story.home.path.glob("core*")), "a core file"


def _blobs(story: Story, path: Path) -> list[tuple[str, bytes]]:
    """What a ledger keeps is packed: looked at unpacked, too."""
    if path.name != "events.db":
        return []
    from pog.reader import Reader

    with Reader(path) as reader:
        events = list(reader.events())
        digests = {event.payload.args_blob for event in events if hasattr(event.payload, "args_blob")}
        digests |= {getattr(event.payload, "result_blob", None) or "" for event in events}
        blobs = [(digest, reader.blob(digest)) for digest in digests if digest]
        return [("events", json.dumps([event.to_json() for event in events]).encode()), *blobs]


@pytest.mark.requirement("K1", "I6.secrets.7")
@pytest.mark.parametrize("name", CANARIES)
def test_nothing_rlp_said_holds_a_canary(story: Story, name: str) -> None:
    leaks = {words: found(CANARIES[name], text.encode()) for words, text in story.outputs.items()}
    assert {words: where for words, where in leaks.items() if where} == {}
    assert len(story.outputs) > 30


@pytest.mark.requirement("K5", "I6.secrets.8", "I6.secrets.10")
@pytest.mark.parametrize("name", CANARIES)
def test_no_process_of_the_daemon_shows_a_canary(story: Story, name: str) -> None:
    leaks = {what: found(CANARIES[name], shown) for what, shown in story.processes.items()}
    assert {what: where for what, where in leaks.items() if where} == {}
    commands = [shown for what, shown in story.programs.items() if "cmdline" in what]
    assert commands and not any(found(CANARIES[name], shown) for shown in commands)
    assert len(story.processes) >= 6 and any(b"RUNLOOP_HOME" in shown for shown in story.processes.values())


@pytest.mark.requirement("I6.secrets.9", "L7")
def test_a_run_that_used_a_secret_replays_without_it(story: Story) -> None:
    runs = [str(event.run) for event in story.home.events("run.started")]
    asked = len(story.hostile.told)
    story.rlp("secret", "rm", WEB_KEY)
    report = story.home.rlp("replay", runs[1], "--json").check().json
    assert report["identical"] is True and len(story.hostile.told) == asked


@pytest.mark.requirement("I6.secrets.1")
def test_a_secret_is_typed_without_echo(story: Story) -> None:
    done = story.home.terminal(
        "secret", "set", "runloop/tools/typed", answers={"not shown": "typed-canary-99\r"}
    )
    assert done.code == 0 and "typed-canary" not in done.out and "is set" in done.out
    listed = {row["name"]: row for row in story.home.rlp("secret", "list", "--json").ndjson}
    assert listed["runloop/tools/typed"]["store"] == "age"


@pytest.mark.requirement("I6.secrets.1")
def test_the_list_says_who_used_a_secret_and_neither_value_nor_length(story: Story) -> None:
    rows = {row["name"]: row for row in story.home.rlp("secret", "list", "--json").ndjson}
    assert rows[MODEL_KEY]["used_by"].startswith("models.") and rows[MAIL_KEY]["used_by"] == "mail"
    assert set(rows[MODEL_KEY]) == {
        "name", "store", "destinations", "set_ms", "used_ms", "used_by", "used_to"
    }  # fmt: skip


@pytest.mark.requirement("I6.secrets.1")
@pytest.mark.parametrize(
    ("words", "value", "code"),
    [
        (("set", "not-a-name"), "Val-99", 2),
        (("set", "runloop/a/b"), "", 2),
        (("set", "runloop/a/b"), "two\nlines", 2),
        (("set", "runloop/a/b", "--for", "http://x/"), "Val-99", 2),
        (("set", "runloop/a/b", "--store", "nowhere"), "Val-99", 2),
        (("set", "runloop/a/b", "on-the-command-line"), "Val-99", 2),
        (("allow", "runloop/a/b", "api.example.org"), "", 7),
        (("rm", "runloop/a/b"), "", 7),
        (("import",), "", 7),
    ],
    ids=["name", "empty", "lines", "destination", "store", "argument", "allow", "rm", "import"],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    story: Story, words: tuple[str, ...], value: str, code: int
) -> None:
    before = (story.home.path / "secrets.age").read_bytes()
    done = story.home.rlp("secret", *words, stdin=value).check(code)
    assert done.err.startswith("rlp") and (not value or value not in done.err)
    assert (story.home.path / "secrets.age").read_bytes() == before


@pytest.mark.requirement("I6.secrets.3")
def test_the_old_file_is_moved_over_and_gone(story: Story) -> None:
    old = story.home.path / "secrets.toml"
    old.write_text('"runloop/old/one" = "old-one-1"\n"runloop/old/two" = "old-two-2"\n')
    old.chmod(0o600)
    rows = {row["name"]: row["store"] for row in story.home.rlp("secret", "list", "--json").ndjson}
    assert rows["runloop/old/one"] == "file"
    moved = story.home.rlp("secret", "import", "--json").check().json
    assert moved == {"store": "age", "moved": ["runloop/old/one", "runloop/old/two"]}
    assert not old.exists()
    rows = {row["name"]: row["store"] for row in story.home.rlp("secret", "list", "--json").ndjson}
    assert rows["runloop/old/one"] == rows["runloop/old/two"] == "age"


@pytest.mark.requirement("I6.secrets.7")
def test_a_stored_secret_that_somebody_wrote_into_a_run_is_not_exported_with_it(story: Story) -> None:
    said = "plain words nobody takes for a key"
    story.home.rlp("secret", "set", "runloop/tools/said", stdin=said).check()
    story.run("said", [["said", "log.write", {"message": f"he told me: {said}"}]])
    run = str(story.home.events("run.started")[-1].run)
    refused = story.home.rlp("export-run", run, "-o", "said.rlrun", "--json")
    assert refused.code != 0 and "seal.secrets" in refused.out + refused.err
    story.home.rlp("export-run", run, "--redact", "secrets", "-o", "said.rlrun").check()
    assert said.encode() not in (story.home.path / "said.rlrun").read_bytes()
