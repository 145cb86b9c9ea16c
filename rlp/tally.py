"""Where a run stands, in one line: how far it is, what works, what it has spent, whom it waits for.

Knows: what a run's events add up to for the person who watches. Does not know: terminals, the daemon, time
(the present moment is handed in).
"""

from __future__ import annotations

from typing import Any

from runloop.quantities import dollars

__all__ = ["Tally"]

_SHOWN = 3
"""Names in the line; of more only the number."""


class Tally:
    """The sum of a run's events so far."""

    def __init__(self) -> None:
        self._began = 0
        self._nodes = 0
        self._over: set[str] = set()
        self._working: dict[str, int] = {}
        """Node -> when its attempt began, unix milliseconds."""
        self._asks: dict[str, str] = {}
        """Approval or promise -> the node that waits for a person's answer."""
        self._limit: int | None = None
        self.micro_usd = 0
        self.tokens = 0

    def take(self, event: dict[str, Any]) -> None:
        """Add one event of the run."""
        payload, when = event["payload"], event["ts_ms"]
        match event["kind"]:
            case "run.started":
                self._began = when
                self._nodes = len((payload.get("definition") or {}).get("nodes") or payload["agents"])
                self._limit = (payload.get("policy") or {}).get("budget_micro_usd")
            case "node.expanded":
                self._nodes += payload["items"]
            case "node.scheduled":
                self._working[payload["node"]] = when
            case "node.finished" | "node.skipped" | "node.cancelled" | "node.gathered":
                self._end(payload["node"], payload.get("status", ""))
            case "model.called":
                self.micro_usd += payload.get("cost_micro_usd", 0)
                self.tokens += payload.get("input_tokens", 0) + payload.get("output_tokens", 0)
            case "action.requested":
                self._asks[payload["approval"]] = payload["node"]
            case "promise.created" if payload.get("resolver") == "operator":
                self._asks[payload["promise"]] = payload["node"]
            case "action.decided":
                self._asks.pop(payload.get("approval", ""), None)
            case "promise.resolved" | "promise.timed_out":
                self._asks.pop(payload["promise"], None)

    def take_inside(self, event: dict[str, Any], path: str) -> None:
        """Add an event of a run inside this one; ``path`` leads to it. Its nodes are not counted: the node
        that it serves is."""
        payload = event["payload"]
        if event["kind"] == "model.called" or "approval" in payload or "promise" in payload:
            named = {"node": f"{path}{payload['node']}"} if payload.get("node") else {}
            self.take({**event, "payload": {**payload, **named}})

    def _end(self, node: str, status: str) -> None:
        self._working.pop(node, None)
        self._asks = {name: asker for name, asker in self._asks.items() if asker != node}
        # An attempt that failed may be followed by another; then the node begins again.
        if status in ("", "succeeded") or node not in self._over:
            self._over.add(node)

    def line(self, now_ms: int, *, names: bool = True) -> str:
        """``3/5 nodes · 4 s · draft 2 s · $0.0021 of $0.50 · 1 234 tokens · waits for you: send``; without
        ``names`` only the sums."""
        over = len(self._over - self._working.keys())
        parts = [f"{over}/{self._nodes} nodes", _seconds(now_ms - self._began)]
        asking = sorted(set(self._asks.values()))
        working = [(node, since) for node, since in self._working.items() if node not in asking]
        if working and names:
            parts.append(_some([f"{node} {_seconds(now_ms - since)}" for node, since in working]))
        if spend := self.spend():
            parts.append(spend)
        if asking and names:
            parts.append(f"waits for you: {_some(asking)}")
        return " · ".join(parts)

    def spend(self) -> str:
        """Money and tokens; empty where neither was used."""
        if not self.tokens and not self.micro_usd:
            return ""
        limit = f" of {dollars(self._limit)}" if self._limit is not None and self.micro_usd else ""
        return f"{dollars(self.micro_usd)}{limit} · {self.tokens:,} tokens".replace(",", " ")


def _seconds(ms: int) -> str:
    seconds = max(0, ms) // 1000
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
