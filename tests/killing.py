"""Runs that are killed at a write and go on: homes, daemons and clients cheap enough for every write.

Knows: how a run is begun, answered and followed in-process, what must be the same however often its daemon
died. Does not know: which runs, which writes (``tests/e2e/test_crashes.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from pog.maintain import verify
from pog.reader import Reader
from runloop.client import BlockingClient
from runloop.config import Paths
from runloop.credential import read_key
from runloop.errors import ConflictError, NotFoundError, RunloopError, UnreachableError
from runloop.events import (
    ActionDecided,
    ActionRequested,
    PromiseCreated,
    PromiseResolved,
    PromiseTimedOut,
    RunFinished,
    RunStarted,
    TimerFired,
    TimerSet,
)
from runloop.rmp import topics
from tests.home import PATIENCE_S, ROOT, Home, example_paths

DECISION = "toolresult.action.decision.v1"
MESSAGE_ID = re.compile("<[0-9a-f]{40}@")
"""Of a mail, drawn from the run's id."""
PLACE = ("node", "attempt")
TOLD: Mapping[str, tuple[str, ...]] = {
    "run.started": ("opening", "params"),
    "run.finished": ("outcome", "clause", "error"),
    "node.finished": (*PLACE, "status", "output"),
    "node.gathered": ("node", "status", "items", "failed", "output_digest"),
    "timer.set": ("timer",),
    "timer.fired": ("timer",),
    "action.decided": ("node", "decision"),
    "email.sent": ("recipients", "subject"),
    "artifact.created": ("node", "name"),
    "memory.updated": ("namespace", "key", "value", "entry_version"),
    "promise.resolved": ("value",),
    "message.posted": (*PLACE, "to", "act", "content_digest"),
    "hostcall.delivered": (*PLACE, "call", "op", "ok"),
}
"""Kind -> what of it must be the same however often the run was killed."""
ONCE = {
    *TOLD, "node.scheduled", "node.skipped", "node.cancelled", "node.expanded", "action.requested",
    "action.claimed", "promise.created",
}  # fmt: skip
"""Kinds of which there must be as many. The others tell how it went: tokens, frames, guests, models asked."""


@dataclass(frozen=True)
class Death:
    """The write at which a daemon dies: the n-th one with a sign (what :class:`Ground` lists), or of all."""

    nth: int
    sign: str = ""
    moment: str = "before"

    def __str__(self) -> str:
        return f"{self.moment} {self.sign or 'write'} {self.nth}"


class Nursery:
    """The process that forks daemons (``tests/e2e/mortal_daemons.py``)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.mortal_daemons"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)

    def _ask(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(self, home: Home, death: Death | None = None, *, diary: bool = False) -> int:
        """Fork the daemon of a home; returns its process id. With a death it is a mortal one; ``diary``: one
        that writes down what the mortal ones would have died of."""
        mortal = death or Death(nth=0)
        return int(
            self._ask(
                do="start",
                home=str(home.path),
                env=home.env,
                log=str(home.path / "daemon.log"),
                diary=str(home.path / "diary") if death or diary else "",
                sign=mortal.sign,
                nth=mortal.nth,
                moment=mortal.moment,
            )
        )

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait."""
        assert self._ask(do="kill", pid=pid) == -9

    def buried(self, pid: int) -> None:
        """Wait for a daemon that has killed itself."""
        code = self._ask(do="wait", pid=pid)
        assert code == -9, f"the daemon ended by itself: {code}"

    def spent(self) -> float:
        """CPU seconds of all the daemons that are gone, and of whatever they started."""
        return float(self._ask(do="spent"))


@dataclass(frozen=True)
class Story:
    """A run to be killed: what is submitted, what people answer."""

    name: str
    source: str
    params: Mapping[str, Any]
    openings: Mapping[str, str] = field(default_factory=dict)
    answer: Any = None
    """To every question."""
    mails: int = 0
    """That it sends."""
    settle: Callable[[Home], None] = lambda home: None
    """Puts what it needs into a home."""


class Teller:
    """A client that submits a story, answers what is asked, and sees it to its end or to the daemon's."""

    def __init__(self, home: Home, story: Story) -> None:
        self._home = home
        self._story = story
        self._paths = Paths.resolve(home.env)
        self._root: str | None = None
        self._last = 0
        self._over = False
        self._open: dict[str, ActionRequested | PromiseCreated] = {}

    def tell(self) -> bool:
        """Submit the story unless the ledger has it, and see it through: whether it came to its end. If it
        did not, the daemon went away."""
        with Reader(self._home.events_db) as reader:
            self._read(reader)
            with contextlib.suppress(UnreachableError), self._connected() as client:
                client.subscribe("rlp/runs/*")
                if self._root is None:
                    self._submit(client)
                deadline = time.monotonic() + PATIENCE_S
                while not self._over:
                    assert time.monotonic() < deadline, self._log()
                    self._read(reader)
                    for name in [] if self._over else list(self._open):
                        self._answer(client, name)
                    client.next_delivery(0.0 if self._over else 0.05 if self._open else 1.0)
        return self._over

    def replayed(self) -> bool:
        """Whether the daemon that lives says that the whole tree came out the same again."""
        with self._connected() as client:
            return bool(client.call("run.replay", {"run": self._root}, PATIENCE_S)["identical"])

    @contextlib.contextmanager
    def _connected(self) -> Iterator[BlockingClient]:
        """A session of the operator's, as soon as the daemon listens."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                client = BlockingClient.connect(self._paths.socket, read_key(self._paths.operator_key), 30.0)
                break
            except UnreachableError:
                assert time.monotonic() < deadline, self._log()
                time.sleep(0.01)
        with client:
            yield client

    def _log(self) -> str:
        return (self._home.path / "daemon.log").read_text()[-4000:]

    def _submit(self, client: BlockingClient) -> None:
        wish = {
            "source": self._story.source,
            "name": self._story.name,
            "params": dict(self._story.params),
            "openings": dict(self._story.openings),
            "agents_dir": str(self._home.path / "agents"),
        }
        client.call("run.submit", wish)

    def _read(self, reader: Reader) -> None:
        for event in reader.events(after=self._last):
            self._last = event.id
            match event.payload:
                case RunStarted(parent=None):
                    self._root = event.run
                case ActionRequested() as asked:
                    self._open[asked.approval] = asked
                case PromiseCreated() as made:
                    self._open[made.promise] = made
                case ActionDecided() as decided:
                    self._open.pop(decided.approval, None)
                case PromiseResolved() | PromiseTimedOut() as settled:
                    self._open.pop(settled.promise, None)
                case RunFinished() if event.run == self._root:
                    self._over = True

    def _answer(self, client: BlockingClient, name: str) -> None:
        """Say the word that is waited for. The ledger is read while the daemon still writes: of what stands
        there it may not have heard yet, and what was answered may not stand there yet."""
        asked = self._open[name]
        with contextlib.suppress(NotFoundError, ConflictError):
            if isinstance(asked, PromiseCreated):
                client.call("promise.resolve", {"promise": name, "value": self._story.answer})
            else:
                decision = {"v": 1, "approval": name, "action_digest": asked.action_digest}
                client.request(topics.ACTION_DECISION, DECISION, {**decision, "decision": "approve"})


def facts(home: Home) -> Counter[str]:
    """What happened in the one tree of runs of a home, and how often: facts without ids and times."""
    places: dict[str, str] = {}
    found: Counter[str] = Counter()
    for event in home.events():
        if event.run is None or event.payload.kind not in ONCE:
            continue
        if isinstance(event.payload, TimerSet | TimerFired) and "backoff" not in event.payload.timer:
            continue  # time limits are set anew: the time without a daemon is not the attempt's
        if isinstance(event.payload, RunStarted):
            parent = event.payload.parent
            place = "" if parent is None else f"{places[parent.run]}/{parent.node}#{parent.attempt}"
            assert places.setdefault(event.run, place) == place
        fields = {name: getattr(event.payload, name, None) for name in TOLD.get(event.payload.kind, PLACE)}
        fact = f"{places[event.run]} {event.payload.kind} {json.dumps(fields, default=msgspec.to_builtins)}"
        found[MESSAGE_ID.sub("<id@", fact)] += 1
    return found


def sound(home: Home) -> list[str]:
    """What `rlp verify` finds wrong with the ledger and its views."""
    paths = Paths.resolve(home.env)
    report = verify(paths.events_db, views_path=paths.views_db, anchor_path=paths.ledger_anchor)
    return [finding.what for finding in report.findings]


class Ground:
    """A home that is prepared once and copied for every death, and how the stories go when nobody dies."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def prepared(cls, path: Path, seed: Path, stories: Iterable[Story], nursery: Nursery) -> Ground:
        """``seed``: a home with keys and the compiled runner in its cache."""
        ground = cls(path)
        shutil.copytree(seed / "keys", path / "home" / "keys")
        shutil.copytree(seed / "cache", path / "home" / "cache", copy_function=os.link)
        (path / "home" / "keys" / "ledger.head").unlink(missing_ok=True)  # it vouches for the seed's ledger
        (path / "home").chmod(0o700)
        with Home(path / "home") as home:
            home.rlp("import", *map(str, example_paths())).check()
            home.rlp("daemon", "stop").check()
            shutil.rmtree(home.path / "run", ignore_errors=True)
        for story in stories:
            home = ground.home(path / story.name, story)
            pid = nursery.start(home, diary=True)
            assert Teller(home, story).tell()
            nursery.kill(pid)
            (path / f"{story.name}.facts").write_text(json.dumps(facts(home)))
            (path / f"{story.name}.writes").write_text((home.path / "diary").read_text())
            shutil.rmtree(home.path)
        return ground

    def home(self, path: Path, story: Story) -> Home:
        """A copy of the home, with the agents of a story."""
        shutil.copytree(self.path / "home", path, ignore=shutil.ignore_patterns("cache"))
        shutil.copytree(self.path / "home" / "cache", path / "cache", copy_function=os.link)
        path.chmod(0o700)
        home = Home(path)
        story.settle(home)
        return home

    def facts(self, story: Story) -> Counter[str]:
        """What happens in an undisturbed run."""
        return Counter(json.loads((self.path / f"{story.name}.facts").read_text()))

    def signs(self, story: Story) -> list[str]:
        """What the writes of an undisturbed run are about, each once: the kinds of their facts, and whether
        a nested run's are among them."""
        return list(dict.fromkeys((self.path / f"{story.name}.writes").read_text().splitlines()))


@dataclass
class Survey:
    """What became of one story, killed again and again."""

    ground: Ground
    nursery: Nursery
    story: Story
    place: Path
    """Where homes are made; those of failures are left."""
    deaths: int = 0
    died: int = 0
    """Deaths before the run's end."""
    failures: list[str] = field(default_factory=list)

    def every_write(self, first: int, step: int) -> None:
        """Die before write ``first``, ``first + step``, … until the run outlives its daemon's death; that one
        dies after its last write."""
        for nth in count(first, step):
            if not self.die(Death(nth)):
                return

    def die(self, death: Death, *, replay: bool = True) -> bool:
        """Begin the story, die, go on; note what is wrong then. Whether the daemon died of it."""
        home = self.ground.home(self.place / f"{len(self.failures)}-{self.deaths}", self.story)
        pid = self.nursery.start(home, death)
        survived = None
        try:
            survived = Teller(home, self.story).tell()
        finally:
            if survived is False:
                self.nursery.buried(pid)
            else:
                self.nursery.kill(pid)
        self.deaths, self.died = self.deaths + 1, self.died + (not survived)
        wrong = self._afterwards(home, replay)
        if wrong:
            self.failures += [f"{self.story.name} killed {death} ({home.path}): {what}" for what in wrong]
        else:
            shutil.rmtree(home.path)
        return not survived

    def _afterwards(self, home: Home, replay: bool) -> list[str]:
        pid = self.nursery.start(home)
        teller = Teller(home, self.story)
        try:
            if not teller.tell():
                return ["the second daemon went away"]
            wrong = [] if not replay or teller.replayed() else ["its replay is not identical"]
        except (AssertionError, RunloopError) as error:
            return [f"it did not go on: {error}"]
        finally:
            self.nursery.kill(pid)
        happened, expected = facts(home), self.ground.facts(self.story)
        wrong += [f"missing: {fact}" for fact in expected - happened]
        wrong += [f"too often: {fact}" for fact in happened - expected]
        if len(home.outbox()) != self.story.mails:
            wrong.append(f"{len(home.outbox())} mails in the outbox, not {self.story.mails}")
        return wrong + sound(home)
