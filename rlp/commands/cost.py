"""``rlp cost``: what models have cost, by whom and for what; nothing is estimated anew.

Knows: the sums a person asks for. Does not know: prices: every amount is as it was booked, with the price
list of its day (attacks.md L10). Reads the views through the daemon.

Three kinds of money stand apart: what was spent, the part of it that was booked because nobody knows how the
call ended (*lost*), and what is or was held for calls without any end on record (*open*).
"""

from __future__ import annotations

from typing import Any

from rlp.moments import since_ms
from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit
from runloop.quantities import dollars
from runloop.spelling import did_you_mean

__all__ = ["cost"]

_NO_RUN = "CASE WHEN m.source = 'check' THEN 'rlp providers --check' ELSE 'the search index' END"
"""Whose a call of no run was."""
_KEYS = {
    "opening": f"coalesce(top.opening, {_NO_RUN})",
    "agent": f"""coalesce(
        (SELECT agent FROM nodes AS n WHERE n.run = m.run AND n.node = m.node),
        (SELECT agent FROM nodes AS n WHERE n.run = m.run
         AND n.node = substr(m.node, 1, instr(m.node || '[', '[') - 1)),
        CASE WHEN m.run IS NULL THEN {_NO_RUN} ELSE '?' END)""",  # noqa: S608 - ours, whole
    "provider": "m.provider",
    "model": "m.provider || ':' || m.model",
    "run": f"coalesce(m.run, {_NO_RUN})",
    "day": "date(m.called_ms / 1000, 'unixepoch', 'localtime')",
}
"""What ``--by`` may be -> its expression over a call, its run and the run at the top of its tree."""
_LOST = "(m.finish = 'unknown_outcome' OR m.finish GLOB '*.*')"
"""Booked without an answer: the finish is the code of an error, or says that nobody knows."""
_SUMS = f"""
    count(*) AS calls,
    coalesce(sum(m.input_tokens), 0) AS input_tokens,
    coalesce(sum(m.output_tokens), 0) AS output_tokens,
    coalesce(sum(m.cost_micro_usd), 0) AS cost_micro_usd,
    coalesce(sum(CASE WHEN {_LOST} THEN m.cost_micro_usd END), 0) AS lost_micro_usd,
    coalesce(sum(m.saved_micro_usd), 0) AS saved_micro_usd,
    coalesce(sum(CASE WHEN r.via = 'schedule' OR top.via = 'schedule' THEN m.cost_micro_usd END), 0)
        AS scheduled_micro_usd
FROM model_calls AS m
LEFT JOIN runs AS r ON r.run = m.run
LEFT JOIN runs AS top ON top.run = r.root_run
WHERE m.called_ms >= ?
"""
_OPEN = """
SELECT coalesce(sum(CASE WHEN r.finished_ms IS NULL THEN h.reserved_micro_usd END), 0) AS held_micro_usd,
       coalesce(sum(CASE WHEN r.finished_ms IS NOT NULL THEN h.reserved_micro_usd END), 0) AS untold_micro_usd
FROM hostcalls AS h JOIN runs AS r ON r.run = h.run
WHERE h.state = 'admitted' AND h.reserved_micro_usd > 0 AND r.started_ms >= ?
  AND NOT EXISTS (SELECT 1 FROM model_calls AS m WHERE m.run = h.run AND m.node = h.node
                  AND m.attempt = h.attempt AND m.call = h.call)
"""
_MOST = 1_000
_COLUMNS = ("calls", "read", "written", "cost", "lost", "saved")


def cost(session: Session, *, since: str, by: str) -> Exit:
    """Sums of what models cost since then, the dearest first (days in order)."""
    if by not in _KEYS:
        raise UsageError(
            f"--by {by[:40]!r} is no sum",
            hint=did_you_mean(by, _KEYS, f"--by {'|'.join(_KEYS)}"),
            code="cli.option",
        )
    began = since_ms(since)
    order = "1" if by == "day" else "cost_micro_usd DESC, saved_micro_usd DESC, 1"
    grouped = f"SELECT {_KEYS[by]} AS key, {_SUMS} GROUP BY 1 ORDER BY {order}"
    rows = _asked(session, grouped, began)
    (total,) = _asked(session, f"SELECT {_SUMS}", began)
    (held,) = _asked(session, _OPEN, began)
    budgets = _budgets(session)
    if session.json:
        session.console.json(
            {"since_ms": began, "by": by, "rows": rows, "total": {**total, **held}, "budgets": budgets}
        )
        return Exit.OK
    if rows:
        shown = [*(_row(by, row["key"], row) for row in rows), _row(by, "all", total)]
        session.console.rows(shown, (by, *_COLUMNS))
    else:
        session.console.say(f"no model was called ({since} looked at)")
    _say(session, total, held, budgets)
    return Exit.OK


def _asked(session: Session, sql: str, began: int) -> list[dict[str, Any]]:
    answer = session.ask("kb.query", sql=sql, params=[began], limit=_MOST)
    columns = answer["columns"]
    return [row if isinstance(row, dict) else dict(zip(columns, row, strict=True)) for row in answer["rows"]]


def _budgets(session: Session) -> dict[str, int | None]:
    config = session.config
    return {
        "run_micro_usd": config.budgets.run_micro_usd,
        "ask_micro_usd": config.budgets.ask_micro_usd,
        "scheduled_day_micro_usd": config.scheduler.day_micro_usd,
        "index_micro_usd": config.kb.embed_micro_usd,
    }


def _row(by: str, key: Any, sums: dict[str, Any]) -> dict[str, Any]:
    return {
        by: key,
        "calls": sums["calls"],
        "read": sums["input_tokens"],
        "written": sums["output_tokens"],
        "cost": _usd(sums["cost_micro_usd"]),
        "lost": _usd(sums["lost_micro_usd"]) if sums["lost_micro_usd"] else None,
        "saved": _usd(sums["saved_micro_usd"]) if sums["saved_micro_usd"] else None,
    }


def _say(
    session: Session, total: dict[str, Any], held: dict[str, Any], budgets: dict[str, int | None]
) -> None:
    """What stands beside the table: who started it, what has no end on record, and the limits."""
    say = session.console.say
    if total["cost_micro_usd"]:
        by_hand = total["cost_micro_usd"] - total["scheduled_micro_usd"]
        say(f"by hand {_usd(by_hand)}, by schedules {_usd(total['scheduled_micro_usd'])}")
    if total["lost_micro_usd"]:
        say(f"lost: {_usd(total['lost_micro_usd'])} is booked for calls that nobody knows the end of")
    if held["held_micro_usd"]:
        say(f"held at this moment for calls under way: {_usd(held['held_micro_usd'])}")
    if held["untold_micro_usd"]:
        untold = _usd(held["untold_micro_usd"])
        say(f"may have been spent, and is in no sum: {untold}, held for calls whose runs ended first")
    asks = budgets["ask_micro_usd"]
    asked = "nobody is asked before" if asks is None else f"a person is asked from {_usd(asks)} on"
    day = _usd(budgets["scheduled_day_micro_usd"] or 0)
    say(f"a run may cost {_usd(budgets['run_micro_usd'] or 0)}, {asked}; schedules {day} in a day")


def _usd(micro_usd: int) -> str:
    """With all six digits: a model call may cost less than a cent, and sums stand below one another."""
    return dollars(micro_usd, digits=6)
