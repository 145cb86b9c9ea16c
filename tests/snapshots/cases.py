"""The views that are kept: pane, history, size, the keys that lead there. Add a row, then
``python -m tests.snapshots NAME``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from agtop.feed.twin import TwinFeed
from tests.snapshots.frames import approval, feed, question
from tests.unit.agtop.samples import agent, sample

__all__ = ["CASES", "SIZES", "Case"]

SIZES = ((80, 24), (120, 40), (200, 60))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One view; drawn at each of its sizes."""

    name: str
    pane: str
    fed: Callable[[], TwinFeed]
    keys: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = SIZES
    options: dict[str, Any] = field(default_factory=dict)
    """Of the application, such as ``plain``."""

    def rows(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Name of the file, and size."""
        for size in self.sizes:
            yield f"{self.name}-{size[0]}x{size[1]}", size


def _waiting() -> TwinFeed:
    made = feed("approved")
    heard = approval(label="import:mail", requested_ms=1_799_999_940_000)
    sent = approval("ap_2222222222222222", state="active", dispatch_after_ms=1_800_000_004_000)
    sent["action"] = {**sent["action"], "summary": "send “Hello” to jane@example.org"}
    made.shown_approvals = {one["approval"]: one for one in (heard, sent)}
    made.shown_questions = [question(choices=["Friday", "Monday"])]
    return made


def _artifacts() -> TwinFeed:
    made = feed("approved", "crashed")
    content = (
        b'{"subject": "Q4 plan", "body": "Hello John,\\u202e\\nthe plan.", "to": ["john.carter@example.org"]}'
    )
    for facts in made._facts.values():
        for fact in facts:
            if fact.kind == "artifact.created":
                made.blobs[fact.payload.blob] = content  # type: ignore[attr-defined]
    return made


def _agents() -> TwinFeed:
    made = feed("approved")
    made.shown_metrics = sample(
        1,
        agent(
            "writer", state="running", workers=3, queue=2, cpu_percent=38.4, cpu_ms=4_200,
            rss_bytes=131 << 20, input_tokens=123_456, output_tokens=45_678, tokens_s=96.0, model_calls=30,
            cache_hits=12, cache_percent=40.0, cost_micro_usd=1_234_567, calls=2_210, refused=3, attempts=30,
            error_percent=0.0, fuel=1_900_000_000, fuel_s=2_000_000, calls_s=12.5,
        ),
        agent("mailer", state="asking", workers=1, asking=1, rss_bytes=40 << 20, calls=1, fuel=1_700_000),
        agent(
            "flapping", state="quarantined", attempts=8, failed=8, error_percent=100.0,
            why="8 failures within 600 s; the last one: guest.trap: \x1b[31munreachable",
        ),
        agent("torn", state="broken", why="its archive is cut", version=None),
        *(agent(f"helper_{number:02}", attempts=number) for number in range(40)),
        workers=4, queue=2,
    )  # fmt: skip
    return made


_PAST = ("less_than_sign", *["right_curly_bracket"] * 4, "m")
_FILTER = ("slash", *"node", "space", *"-send", "enter", "v")

CASES: tuple[Case, ...] = (
    Case(name="plan", pane="plan", fed=lambda: feed("crashed"), keys=("G",)),
    Case(name="plan-items", pane="plan", fed=lambda: feed("mapped"), keys=("j", "o"), sizes=SIZES[:1]),
    Case(name="plan-past", pane="plan", fed=lambda: feed("approved"), keys=_PAST, sizes=SIZES[:1]),
    Case(name="plan-node", pane="plan", fed=lambda: feed("denied"), keys=("G", "enter"), sizes=SIZES[:1]),
    Case(
        name="plan-plain", pane="plan", fed=lambda: feed("approved"), sizes=SIZES[:1], options={"plain": True}
    ),
    Case(name="log", pane="log", fed=lambda: feed("approved")),
    Case(name="log-filter", pane="log", fed=lambda: feed("denied"), keys=_FILTER, sizes=SIZES[:1]),
    Case(name="log-plain", pane="log", fed=lambda: feed("denied"), sizes=SIZES[:1], options={"plain": True}),
    Case(name="help", pane="plan", fed=lambda: feed("approved"), keys=("question_mark",), sizes=SIZES[:1]),
    Case(name="runs", pane="plan", fed=lambda: feed("approved", "denied"), keys=("r",), sizes=SIZES[:1]),
    Case(name="fork", pane="plan", fed=lambda: feed("approved"), keys=("j", "f"), sizes=SIZES[:1]),
    Case(name="agents", pane="agents", fed=_agents),
    Case(name="agents-detail", pane="agents", fed=_agents, keys=("enter",), sizes=SIZES[:1]),
    Case(name="agents-held", pane="agents", fed=_agents, keys=("E", "g", "Q"), sizes=SIZES[:1]),
    Case(name="agents-plain", pane="agents", fed=_agents, sizes=SIZES[:1], options={"plain": True}),
    Case(name="trace-ladder", pane="trace", fed=lambda: feed("approved"), keys=("k", "k")),
    Case(name="trace-tree", pane="trace", fed=lambda: feed("approved"), keys=("t", "g"), sizes=SIZES[:1]),
    Case(name="trace-nested", pane="trace", fed=lambda: feed("mapped"), keys=("g",), sizes=SIZES[:1]),
    Case(
        name="trace-plain", pane="trace", fed=lambda: feed("denied"), sizes=SIZES[:1], options={"plain": True}
    ),
    Case(name="trace-hop", pane="trace", fed=lambda: feed("denied"), keys=("g", "enter"), sizes=SIZES[:1]),
    Case(name="artifacts", pane="artifacts", fed=_artifacts),
    Case(name="artifacts-compare", pane="artifacts", fed=_artifacts, keys=("d", "enter"), sizes=SIZES[1:2]),
    Case(name="inbox", pane="inbox", fed=_waiting),
    Case(name="inbox-approval", pane="inbox", fed=_waiting, keys=("g", "enter", "G"), sizes=SIZES[:2]),
    Case(name="inbox-question", pane="inbox", fed=_waiting, keys=("g", "j", "j", "enter"), sizes=SIZES[:1]),
    Case(name="inbox-plain", pane="inbox", fed=_waiting, sizes=SIZES[:1], options={"plain": True}),
)
