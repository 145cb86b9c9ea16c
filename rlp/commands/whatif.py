"""``rlp policy test``, ``rlp cap shrink`` and ``rlp replay --faults``: what would have been.

Knows: how a time that lies back is written, where a policy is read from, how the answers look. Does not know:
how runs are driven again; the daemon does it, and performs nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rlp.moments import since_ms
from rlp.session import Session
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.exits import Exit

__all__ = ["faults", "shrink", "test"]

ASK_S = 600.0
MAX_POLICY_BYTES = 65_536


def test(session: Session, *, file: str, since: str, agent: str | None, rerun: bool) -> Exit:
    """Say of every run since then what would change; 6 if anything would."""
    asked = {**_policy(Path(file), agent), "execute": rerun}
    began_ms = since_ms(since)
    client = session.client()
    named = agent if agent is not None else None
    runs: list[str] = client.call("policy.runs", {"since_ms": began_ms, "agent": named}, timeout_s=ASK_S)[
        "runs"
    ]
    changed, shown = 0, []
    for run in runs:
        told: dict[str, Any] = client.call("policy.test", {**asked, "run": run}, timeout_s=ASK_S)
        changed += not told["same"]
        if session.json:
            session.console.json(told)
        else:
            shown.append(_row(told))
            session.console.passing(f"{len(shown)} of {len(runs)} runs")
    if not session.json:
        session.console.wipe()
        session.console.rows(
            shown,
            ("run", "opening", "verdict", "changes", "outcome", "failing"),
            empty=f"no finished runs since {since}",
        )
    session.console.say(f"{len(runs)} runs, {len(runs) - changed} as they were, {changed} changed")
    return Exit.DIVERGED if changed else Exit.OK


def _row(told: dict[str, Any]) -> dict[str, Any]:
    stops = told["needs_live"]
    if told["problem"]:
        verdict = f"cannot be told: {told['problem']}"
    elif told["same"]:
        verdict = "same"
    elif stops:
        verdict = f"needs live: {stops[0]['node']} {stops[0]['op']}, {stops[0]['why']}"
    else:
        verdict = "changed"
    first = told["changes"][0] if told["changes"] else None
    what = (
        ""
        if first is None
        else f"{first['node']} {first['op']} {first['before']}->{first['after']} {first['target']}".rstrip()
    )
    more = f" (+{len(told['changes']) - 1})" if len(told["changes"]) > 1 else ""
    return {
        "run": told["run"][:8],
        "opening": told["opening"],
        "verdict": verdict,
        "changes": what + more,
        "outcome": _outcome(told["before"], told["after"]),
        "failing": ", ".join(told["failing"]),
    }


def _outcome(before: str | None, after: str | None) -> str:
    return str(before) if before == after else f"{before} -> {after or 'unknown'}"


def shrink(session: Session, *, agent: str, since: str, output: str | None) -> Exit:
    """Print the smallest policy of an agent, or write it to a file that is not there yet."""
    place = None if output is None else Path(output)
    if place is not None and place.exists():
        raise ConflictError(f"{place} is there already", hint="name another file", code="cli.output")
    told: dict[str, Any] = session.client().call(
        "cap.shrink", {"agent": agent, "since_ms": since_ms(since)}, timeout_s=ASK_S
    )
    if place is not None:
        _write(place, told["text"])
    if session.json:
        session.console.json(told)
    elif place is None:
        session.console.text(told["text"])
    console = session.console
    console.say(f"{told['runs']} runs with {told['calls']} calls of {agent}, all driven again: the same")
    for needed in told["needed"]:
        by = needed["by"]
        console.say(f"  {needed['grant']}  needed by {by['op']} of {by['node']} in {by['run'][:8]}")
    if place is not None:
        console.say(f"written to {place}; as an override it belongs into caps/overrides/{agent}.toml")
    return Exit.OK


def _write(place: Path, text: str) -> None:
    """Make a file of the owner's; what is there stays."""
    try:
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise ConflictError(f"{place} cannot be written: {error.strerror}", code="cli.output") from error


def faults(session: Session, *, run: str, every_call: bool) -> Exit:
    """Put a fault at each effect of a good run, and say what would be left half done; 6 if anything would."""
    report: dict[str, Any] = session.client().call(
        "run.faults", {"run": run, "every_call": every_call}, timeout_s=ASK_S
    )
    if session.json:
        session.console.json(report)
    else:
        rows = [_fault_row(one) for one in report["faults"]]
        columns = ("node", "call", "fault", "outcome", "failed", "half done")
        session.console.rows(rows, columns, empty="the run has no effect to put a fault at")
        bad = sum(not one["clean"] for one in report["faults"])
        session.console.say(
            f"{report['effects']} effects, {len(rows)} faults: "
            + (f"{bad} leave something half done or open" if bad else "none leaves anything half done")
        )
    return Exit.OK if report["clean"] else Exit.DIVERGED


def _fault_row(one: dict[str, Any]) -> dict[str, Any]:
    left = [_about(effect) for effect in one["half_done"]]
    left += [f"made twice: {_about(effect)}" for effect in one["repeated"]]
    left += [f"other bytes: {effect['op']} by attempt {effect['attempt']}" for effect in one["otherwise"]]
    left += [f"open: {stop['op']} of {stop['node']}, {stop['why']}" for stop in one["needs_live"]]
    return {
        "node": one["node"] if one["attempt"] == 1 else f"{one['node']} attempt {one['attempt']}",
        "call": f"{one['call']} {one['op']}",
        "fault": one["fault"],
        "outcome": one["outcome"] or "unknown",
        "failed": ", ".join(one["failed"]),
        "half done": "; ".join(left),
    }


def _about(effect: dict[str, Any]) -> str:
    sure = "" if effect["state"] == "done" else " (perhaps)"
    return f"{effect['op']} {effect.get('about', '')}".rstrip() + sure


# --- what is asked --------------------------------------------------------------------------------


def _policy(place: Path, agent: str | None) -> dict[str, Any]:
    """A file, or a folder of overrides."""
    if place.is_dir():
        if agent is not None:
            raise UsageError(
                f"{place} is a folder of overrides, which name their agents themselves",
                hint="leave --agent out, or name one file",
                code="cli.argument",
            )
        files = sorted(place.glob("*.toml"))
        if not files:
            raise NotFoundError(f"{place} holds no <agent>.toml", code="cli.file")
        return {"overrides": {file.stem: _text(file) for file in files}}
    return {"policy": _text(place), "agent": agent}


def _text(place: Path) -> str:
    try:
        with place.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
        if len(data) > MAX_POLICY_BYTES:
            raise UsageError(f"{place} is larger than {MAX_POLICY_BYTES} bytes", code="cli.file")
        return data.decode()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {place}", code="cli.file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} cannot be read: {error}", code="cli.file") from error
