"""``rlp providers``: which models there are, what they cost and can do, and whether they answer."""

from __future__ import annotations

from typing import Any

from rlp.session import Session
from runloop.exits import Exit
from runloop.quantities import dollars

__all__ = ["providers"]

_CHECK_S = 300.0


def providers(session: Session, *, check: bool, yes: bool) -> Exit:
    """List the models; ``check``: ask each for one token; ``yes``: also those that cost money."""
    found = session.ask("provider.list", _CHECK_S if check else 30.0, check=check, spend=yes)["providers"]
    rows = found if session.json else [_row(row) for row in found]
    session.console.rows(rows, ("model", "where", "price", "tools", "json", "stream", "state", "why"))
    failed = check and not any(row["state"] == "answers" for row in found)
    models = [row for row in found if row["state"] != "absent" and row["kind"] != "rules"]
    if not models and not session.json:
        session.console.say(
            "no model: start Ollama, llama.cpp, vLLM or LM Studio on this machine, or name a provider under"
            " [models.providers]; until then only templates are filled"
        )
    return Exit.FAILED if failed else Exit.OK


def _row(row: dict[str, Any]) -> dict[str, Any]:
    took = f"{row['took_ms']} ms" if "took_ms" in row else ""
    cost = row.get("cost_micro_usd")
    paid = "" if not cost else f"cost {dollars(cost)}"
    if cost is None and "cost_micro_usd" in row:
        paid = "may have cost something: nobody can tell"
    return {
        "model": row["target"],
        "where": "here" if row["local"] else "remote",
        "price": _price(row),
        "tools": row["tools"],
        "json": row["json"],
        "stream": row["stream"],
        "state": row["state"],
        "why": ", ".join(part for part in (row["why"], took, paid) if part),
    }


def _price(row: dict[str, Any]) -> str:
    """Dollars for a million tokens in and out."""
    price = row["price"]
    if price is None:
        return "" if row["state"] == "absent" else "unknown"
    read, written = price["input_micro_usd_per_mtok"], price["output_micro_usd_per_mtok"]
    if not read and not written:
        return "free"
    return f"{dollars(read, digits=0)}/{dollars(written, digits=0)} per million"
