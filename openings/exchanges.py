"""What attempts exchanged with others: kept until the attempt is executed, and compared with it then.

Knows: which frames and messages belong to an attempt that is under way. Does not know: how they are made
again (the driver), what makes two of them the same (``openings.comparers``).
"""

from __future__ import annotations

from typing import cast

from openings import comparers as compare
from openings.demands import AttemptOutcome
from openings.talk import message_id
from openings.transcript import Key, Transcript
from runloop.events import Event, MessagePosted, MessageSent

__all__ = ["Exchanges"]


class Exchanges:
    """Of one run."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._waiting: dict[Key, list[Event]] = {}
        self._posts: dict[str, MessagePosted] = {}
        """Message -> what was said, of all attempts so far."""
        self.lineage = ""
        """The run that ids of messages are drawn from."""

    def take(self, key: Key, event: Event) -> None:
        """A frame or a message of an attempt that is under way."""
        self._waiting.setdefault(key, []).append(event)
        if isinstance(event.payload, MessagePosted):
            self._posts[event.payload.message] = event.payload

    def drop(self, key: Key) -> int:
        """The attempt is not compared; how many events that concerns."""
        return len(self._waiting.pop(key, ()))

    def compare(self, key: Key, outcome: AttemptOutcome, *, whole: bool) -> tuple[int, int]:
        """Compare all that an attempt exchanged; ``whole``: it came to its end by itself.

        Returns how many events were compared, and how many of an attempt that was cut off were taken as they
        are. Ends the replay at a difference.
        """
        where = f"node {key[0]} attempt {key[1]}"
        events = self._waiting.pop(key, [])
        frames = [event for event in events if isinstance(event.payload, MessageSent)]
        posts = [event for event in events if isinstance(event.payload, MessagePosted)]
        compared = self._frames(where, frames, outcome, whole=whole)
        if self._transcript.has_frames:
            compare.said(where, outcome.frames, frames)
        compared += self._messages(where, key, posts, outcome, whole=whole)
        return compared, len(events) - compared

    def _frames(self, where: str, events: list[Event], outcome: AttemptOutcome, *, whole: bool) -> int:
        compared = 0
        for event in events:
            sent = cast(MessageSent, event.payload)
            if not whole and all(made.type != sent.type for made in outcome.frames):
                continue  # the answer of an attempt whose end is not the guest's
            compare.frame(event, sent, where, outcome.frames)
            compared += 1
        return compared

    def _messages(
        self, where: str, key: Key, events: list[Event], outcome: AttemptOutcome, *, whole: bool
    ) -> int:
        calls = {message_id(self.lineage, *key, call): call for call in outcome.said}
        compared = 0
        for event in events:
            posted = cast(MessagePosted, event.payload)
            call = calls.pop(posted.message, None)
            if call is None and not whole:
                continue  # said by the very call that was cut off
            compare.post(
                event,
                posted,
                where,
                call=call,
                said=None if call is None else outcome.said[call],
                lineage=self.lineage,
                earlier=self._posts.get,
            )
            compared += 1
        before = [self._transcript.of(key[0], attempt) for attempt in range(1, key[1])]
        compare.unposted(where, calls, self._transcript.of(*key), before)
        return compared
