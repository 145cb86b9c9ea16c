"""Who is there: peers by what they say of themselves, agents by what the daemon knows of them.

Knows: entries, what finds them, when one counts as gone. Does not know: topics' rules or delivery; nothing
here opens a door. What a peer announces is a *claim* and is shown as one; its identity is the daemon's stamp.

Liveness: a peer that promises a heartbeat (``heartbeat_ms`` in its hello or announcement) is gone when
nothing came from it for three of them; any frame counts, ``ping`` is the cheapest. A peer that promises none
is live while it is connected.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runloop.bundle.semver import in_range, is_version
from runloop.clock import Clock
from runloop.errors import UsageError
from runloop.rmp import topics
from runloopd.bus.parts import Peer

__all__ = ["Claims", "Directory", "Hosted"]

MISSED = 3
"""Heartbeats in a row that a peer may miss."""
KEEP_MS = 600_000
"""How long a peer that left is listed as gone."""
MAX_GONE = 256
MAX_LIST = 64
MAX_CHARS = 4_096
"""Of everything a peer says of itself, as in a hello: whoever looks is told about all of them at once."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,63}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What a peer says of itself."""

    client: str = ""
    version: str | None = None
    serves: tuple[str, ...] = ()
    """Patterns of topics it answers on."""
    capabilities: tuple[str, ...] = ()
    heartbeat_ms: int | None = None

    @classmethod
    def read(cls, payload: dict[str, Any]) -> Claims:
        """From a hello or an announcement; raises :class:`UsageError` for what nobody should have to show."""
        version, beat = payload.get("version"), payload.get("heartbeat_ms")
        if version is not None and not (isinstance(version, str) and is_version(version)):
            raise _wrong("version is not MAJOR.MINOR.PATCH")
        if beat is not None and not (type(beat) is int and 1_000 <= beat <= 3_600_000):
            raise _wrong("heartbeat_ms is between 1000 and 3600000")
        serves, capabilities = _texts(payload, "serves"), _texts(payload, "capabilities")
        if sum(map(len, (*serves, *capabilities))) > MAX_CHARS:
            raise _wrong(f"serves and capabilities have at most {MAX_CHARS} characters together")
        return cls(
            client=ascii(payload.get("client") or "")[1:-1][:64],
            version=version,
            serves=tuple(topics.pattern(one) for one in serves),
            capabilities=tuple(_named(one) for one in capabilities),
            heartbeat_ms=beat,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Hosted:
    """An agent the daemon hosts: its capabilities are those of its policy, not a claim."""

    name: str
    version: str
    variant: str
    capabilities: tuple[str, ...]
    held: bool
    """Quarantined: it gets no work."""


class Directory:
    """Answers ``announce``, and whoever looks for somebody."""

    actions = frozenset(("announce",))

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._peers: dict[str, tuple[Peer, Claims, int]] = {}
        self._gone: OrderedDict[str, tuple[dict[str, Any], int]] = OrderedDict()

    # --- a session's face -----------------------------------------------------------------------------

    def greeted(self, peer: Peer, payload: dict[str, Any]) -> None:
        self._peers[peer.session] = (peer, Claims.read(payload), self._clock.now_ms())

    def act(self, peer: Peer, action: str, payload: dict[str, Any]) -> Any:
        """A new announcement replaces the one before; what it leaves out is claimed no more."""
        _, before, since = self._peers[peer.session]
        claims = Claims.read({"client": before.client, **payload})
        self._peers[peer.session] = (peer, claims, since)
        return {"id": peer.session, "principal": peer.principal.label}

    def roomy(self, peer: Peer) -> None:
        """Nothing here waits for room."""

    def left(self, peer: Peer) -> None:
        if peer.session in self._peers:
            entry = self._shown(peer.session)
            del self._peers[peer.session]
            now = self._clock.now_ms()
            self._gone[peer.session] = ({**entry, "state": "gone", "queued": 0, "patterns": []}, now)
            while len(self._gone) > MAX_GONE:
                self._gone.popitem(last=False)

    # --- who looks ----------------------------------------------------------------------------------------

    def find(
        self,
        *,
        id: str | None = None,
        topic: str | None = None,
        capability: str | None = None,
        version: str | None = None,
        gone: bool = False,
        hosted: Iterable[Hosted] = (),
    ) -> list[dict[str, Any]]:
        """Entries that every filter given accepts, agents first, then peers, the oldest first.

        ``id``: an agent's name, or a session or the beginning of one. ``topic``: somebody serves it.
        ``version``: a range such as ``>=1.2 <2``. ``gone``: also those who were there lately.
        ``hosted``: the daemon's own agents, whose capabilities are facts.
        """
        wanted = None if topic is None else topics.topic(topic)
        if version is not None:
            in_range("0.0.0", version)  # a range that is none is said, not answered with nobody
        return [
            entry
            for entry in self._all(hosted)
            if (gone or entry["state"] != "gone")
            and (id is None or entry["id"] == id or (entry["kind"] == "peer" and entry["id"].startswith(id)))
            and (wanted is None or any(topics.matches(one, wanted) for one in entry["serves"]))
            and (capability is None or capability in entry["capabilities"])
            and (version is None or (entry["version"] is not None and in_range(entry["version"], version)))
        ]

    def _all(self, hosted: Iterable[Hosted]) -> list[dict[str, Any]]:
        now = self._clock.now_ms()
        while self._gone and now - next(iter(self._gone.values()))[1] >= KEEP_MS:
            self._gone.popitem(last=False)
        agents = [_agent(one) for one in sorted(hosted, key=lambda one: (one.name, one.variant))]
        return [
            *agents,
            *(entry for entry, _ in self._gone.values()),
            *(self._shown(session) for session in self._peers),
        ]

    def _shown(self, session: str) -> dict[str, Any]:
        peer, claims, since = self._peers[session]
        heard = max(peer.heard_ms, since)
        silent = self._clock.now_ms() - heard
        late = claims.heartbeat_ms is not None and silent >= MISSED * claims.heartbeat_ms
        info = peer.info()
        return {
            "kind": "peer",
            "id": session,
            "principal": peer.principal.label,
            "pid": peer.principal.pid,
            "client": claims.client,
            "version": claims.version,
            "serves": list(claims.serves),
            "capabilities": list(claims.capabilities),
            "claimed": True,
            "state": "gone" if late else "live",
            "since_ms": since,
            "heard_ms": heard,
            "patterns": list(info.patterns),
            "queued": info.queued_frames,
            "queued_bytes": info.queued_bytes,
            "owed_bytes": info.owed_bytes,
            "bytes_in": info.bytes_in,
            "bytes_out": info.bytes_out,
            "reading": info.reading,
        }


def _agent(one: Hosted) -> dict[str, Any]:
    return {
        "kind": "agent",
        "id": one.name if one.variant == "default" else f"{one.name}@{one.variant}",
        "principal": f"agent:{one.name}",
        "client": "",
        "version": one.version,
        "serves": [topics.agent(one.name)],
        "capabilities": list(one.capabilities),
        "claimed": False,
        "state": "held" if one.held else "live",
    }


def _texts(payload: dict[str, Any], key: str) -> list[str]:
    given = payload.get(key, [])
    if not isinstance(given, list) or len(given) > MAX_LIST or not all(isinstance(one, str) for one in given):
        raise _wrong(f"{key} is a list of at most {MAX_LIST} texts")
    return given


def _named(text: str) -> str:
    if not _NAME.match(text):
        raise _wrong(f"{ascii(text)[:80]} is no name of a capability")
    return text


def _wrong(why: str) -> UsageError:
    return UsageError(
        f"what the peer says of itself: {why}", hint="docs/internals/session.md", code="hello.shape"
    )
