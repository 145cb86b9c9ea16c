"""``rlp schedule``: what runs by itself, at a time or when files change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit
from runloop.quantities import dollars, moment

__all__ = ["add", "coming", "list_", "pause", "rm", "run_now", "show", "span_ms"]

_COLUMNS = ("schedule", "opening", "when", "next", "state", "fired", "missed", "file")


def add(
    session: Session,
    *,
    name: str,
    opening: str,
    cron: str | None,
    zone: str | None,
    watch: tuple[str, ...],
    patterns: tuple[str, ...],
    settle: str | None,
    params: tuple[str, ...],
    missed: str,
    overlap: str,
) -> Exit:
    """Have an opening run by itself from now on."""
    from rlp.prepare import prepare

    if not watch and (alone := "--pattern" if patterns else "--settle" if settle else None):
        raise UsageError(f"{alone} says nothing without --watch", hint="name what to watch, or leave it out")
    if zone and not cron:
        raise UsageError("--zone says nothing without --cron", hint="name a time, or leave it out")
    wish = prepare(session, opening, params, judge=False)
    said = {
        "trigger": name,
        "source": wish.source,
        "name": wish.opening.name,
        "path": str(Path(wish.path).absolute()),
        "agents_dir": str(Path("agents").absolute()),
        "params": wish.params,
        "openings": dict(wish.nested),
        "cron": cron,
        "zone": zone,
        "watch": [str(Path(path).expanduser().absolute()) for path in watch],
        "patterns": list(patterns),
        "settle_ms": span_ms("--settle", settle or "2s"),
        "missed": _one_of("--missed", missed, ("skip", "once")),
        "overlap": _one_of("--overlap", overlap, ("skip", "parallel")),
    }
    found = session.ask("trigger.set", **said)
    if session.json:
        session.console.json(found)
        return Exit.OK
    console = session.console
    console.say(f"{found['trigger']} runs {found['opening']} {_when(found)}")
    if found["next_at"] is not None:
        console.say(f"next: {found['next_at']} {found['zone']}")
    console.say("nobody will be asked: what needs a person waits in 'rlp approvals'")
    return Exit.OK


def list_(session: Session) -> Exit:
    """List what runs by itself."""
    found = session.ask("trigger.list")
    triggers: list[dict[str, Any]] = found["triggers"]
    session.console.rows(
        triggers if session.json else [_row(trigger) for trigger in triggers],
        _COLUMNS,
        empty="nothing runs by itself; 'rlp schedule add NAME OPENING --cron \"0 8 * * 1-5\"' changes that",
    )
    if triggers:
        charged, limit = dollars(found["charged_micro_usd"]), dollars(found["day_micro_usd"])
        session.console.say(f"in 24 hours: {charged} of {limit} are spent or set aside")
    return Exit.OK


def _row(trigger: dict[str, Any]) -> dict[str, Any]:
    running = len(trigger["running"])
    paused = trigger["paused_ms"] is not None
    return {
        "schedule": trigger["trigger"],
        "opening": trigger["opening"],
        "when": _when(trigger),
        "next": trigger["next_at"],
        "state": "paused" if paused else f"{running} running" if running else "waiting",
        "fired": trigger["fired"],
        "missed": trigger["missed"],
        "file": {"differs": "differs now", "gone": "gone"}.get(trigger["file"]),
    }


def _when(trigger: dict[str, Any]) -> str:
    if trigger["cron"] is not None:
        return f"at {trigger['cron']} ({trigger['zone']})"
    watch = trigger["watch"]
    files = f" matching {', '.join(watch['patterns'])}" if watch["patterns"] else ""
    return f"when files{files} change in {', '.join(watch['paths'])}"


def show(session: Session, *, name: str) -> Exit:
    """Show one schedule, and the text that it runs."""
    found = session.ask("trigger.show", trigger=name)
    if session.json:
        session.console.json(found)
        return Exit.OK
    console = session.console
    console.data(f"{found['trigger']} runs {found['opening']} {_when(found)}", "bold")
    said = {
        "next": found["next_at"],
        "missed times": "made up for by one run" if found["missed_times"] == "once" else "only reported",
        "while a run goes on": "starts another" if found["overlap"] == "parallel" else "starts none",
        "set": f"{moment(found['set_ms'])} by {found['principal']}",
        "paused": moment(found["paused_ms"]) if found["paused_ms"] is not None else None,
        "running": ", ".join(found["running"]),
        "last run": found["last_run"],
        "fired": found["fired"],
        "missed": found["missed"],
        "parameters": ", ".join(_param(name, value) for name, value in found["params"].items()),
        "from": _file(found),
    }
    for what, value in said.items():
        if value not in (None, ""):
            console.data(f"  {what:<20} {value}")
    console.data("")
    console.text(found["source"])
    return Exit.OK


def _param(name: str, value: Any) -> str:
    """A parameter as it is typed after ``-p``."""
    return f"{name}={value}" if isinstance(value, str) else f"{name}:={json.dumps(value, ensure_ascii=False)}"


def _file(found: dict[str, Any]) -> str | None:
    notes = {"differs": " (which says something else now; set it again to take it up)", "gone": " (gone)"}
    return f"{found['source_path']}{notes.get(found['file'], '')}" if found["source_path"] else None


def rm(session: Session, *, name: str) -> Exit:
    """Have it start nothing any more; runs it started go on."""
    return _done(session, session.ask("trigger.remove", trigger=name), f"{name} is removed")


def pause(session: Session, *, name: str, off: bool) -> Exit:
    """Have it start nothing for a while; ``off`` resumes it."""
    found = session.ask("trigger.pause", trigger=name, off=off)
    return _done(session, found, f"{name} {'goes on' if off else 'is paused'}")


def _done(session: Session, found: Any, words: str) -> Exit:
    if session.json:
        session.console.json(found)
    else:
        session.console.say(words)
    return Exit.OK


def run_now(session: Session, *, name: str) -> Exit:
    """Start what it would start, now, with no more authority than it would have."""
    found = session.ask("trigger.run", 120.0, trigger=name)
    if session.json:
        session.console.json(found)
        return Exit.OK
    session.console.data(found["run"])
    session.console.say(f"'rlp trace {found['run'][:8]}' shows it, 'rlp approvals' what it waits for")
    return Exit.OK


def coming(session: Session, *, name: str | None, limit: int) -> Exit:
    """Print the coming due times, with the offset of their zone's clocks."""
    found = session.ask("trigger.next", trigger=name, limit=limit)["next"]
    rows = found if session.json else [{"schedule": one["trigger"], **one} for one in found]
    session.console.rows(rows, ("at", "zone", "schedule"), empty="nothing is due at any time")
    return Exit.OK


def span_ms(flag: str, text: str) -> int:
    """A duration as people write it: ``500ms``, ``2s``, ``1m``."""
    from openings.durations import milliseconds

    try:
        return milliseconds(text)
    except ValueError as error:
        raise UsageError(
            f"{flag} {text[:40]!r} is no length of time", hint="such as 500ms, 2s or 1m", code="cli.option"
        ) from error


def _one_of(flag: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise UsageError(
            f"{flag} {text[:40]!r} is not known", hint=f"one of {', '.join(choices)}", code="cli.option"
        )
    return text
