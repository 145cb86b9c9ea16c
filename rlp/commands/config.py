"""``rlp config``: what the configuration says, and why. Needs no daemon."""

from __future__ import annotations

from typing import Any

from rlp.commands.daemon import settings_of
from rlp.session import Session
from runloop.config import RULES, Config, Origin
from runloop.errors import NotFoundError
from runloop.exits import Exit

__all__ = ["check", "get", "path", "show"]


def show(session: Session, *, settings: tuple[str, ...]) -> Exit:
    """List every value with its origin."""
    config = session.configured(settings_of(settings))
    session.console.rows(
        [_row(config, key, value) for key, value in config.flat().items()],
        ("key", "value", "origin", "where"),
    )
    return Exit.OK


def _row(config: Config, key: str, value: Any) -> dict[str, Any]:
    origin = config.origins.get(key, Origin("default", ""))
    return {"key": key, "value": value, "origin": origin.layer, "where": origin.where}


def get(session: Session, *, key: str) -> Exit:
    """Print one value."""
    values = session.config.flat()
    if key not in values:
        import difflib

        close = difflib.get_close_matches(key, [*RULES, *values], n=1)
        raise NotFoundError(
            f"there is no configuration key '{key}'",
            hint=f"did you mean '{close[0]}'?" if close else "'rlp config show' lists them",
            code="config.key",
        )
    if session.json:
        session.console.json(_row(session.config, key, values[key]))
    else:
        value = values[key]
        session.console.data(
            "" if value is None else str(value).lower() if value in (True, False) else str(value)
        )
    return Exit.OK


def path(session: Session) -> Exit:
    """Print where everything lies."""
    paths = session.paths
    found = {
        "home": paths.home,
        "config": paths.config_file,
        "socket": paths.socket,
        "ledger": paths.events_db,
        "views": paths.views_db,
        "keys": paths.keys_dir,
        "overrides": paths.overrides_dir,
        "cache": paths.cache_dir,
        "outbox": paths.outbox,
        "log": paths.log_file,
    }
    if session.json:
        session.console.json(
            {
                **{name: str(place) for name, place in found.items()},
                "agents": [str(place) for place in paths.agents_dirs],
                "openings": [str(place) for place in paths.openings_dirs],
            }
        )
        return Exit.OK
    rows = list(found.items())
    rows += [("agents", place) for place in paths.agents_dirs]
    rows += [("openings", place) for place in paths.openings_dirs]
    for name, place in rows:
        session.console.data(f"{name:<10}{place}")
    return Exit.OK


def check(session: Session) -> Exit:
    """Read every layer; findings are raised together by the reader."""
    config = session.config
    if session.json:
        session.console.json({"ok": True, "warnings": list(config.warnings)})
    else:
        session.console.say("the configuration is fine" + (", see the warnings" if config.warnings else ""))
    return Exit.OK
