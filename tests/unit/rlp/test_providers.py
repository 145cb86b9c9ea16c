"""What ``rlp providers`` says: prices people can read, and what would help when there is no model."""

from __future__ import annotations

from typing import Any

import pytest

from rlp.commands.providers import _price, _row, providers
from runloop.exits import Exit

FREE = {"input_micro_usd_per_mtok": 0, "output_micro_usd_per_mtok": 0, "version": "local"}
RULES = {
    "target": "rules:template-1", "kind": "rules", "local": True, "price": FREE, "tools": "no",
    "json": "from facts", "stream": "yes", "state": "ready", "why": "",
}  # fmt: skip
MODEL = {**RULES, "target": "ollama:tiny", "kind": "ollama", "state": "answers", "took_ms": 12}


class Told:
    """Stands in for a session: answers one method, and keeps what is said."""

    json = False

    def __init__(self, *rows: dict[str, Any]) -> None:
        self._rows = list(rows)
        self.asked: dict[str, Any] = {}
        self.shown: list[dict[str, Any]] = []
        self.said = ""
        self.console = self

    def ask(self, method: str, timeout_s: float, **params: Any) -> Any:
        assert method == "provider.list"
        self.asked = params
        return {"providers": self._rows}

    def rows(self, rows: list[dict[str, Any]], columns: Any) -> None:
        self.shown = rows

    def say(self, text: str) -> None:
        self.said += text


@pytest.mark.parametrize(
    ("rows", "check", "code", "helped"),
    [
        ([RULES], False, Exit.OK, True),
        ([RULES, {**RULES, "kind": "openai", "state": "absent", "price": None}], True, Exit.FAILED, True),
        ([MODEL, RULES], True, Exit.OK, False),
        ([{**MODEL, "state": "fails", "why": "no"}, RULES], True, Exit.FAILED, False),
    ],
    ids=["none", "none that answers", "one that answers", "one that fails"],
)
def test_the_exit_code_and_the_advice_tell_whether_there_is_a_model(
    rows: list[dict[str, Any]], check: bool, code: Exit, helped: bool
) -> None:
    session = Told(*rows)
    assert providers(session, check=check, yes=False) == code  # type: ignore[arg-type]
    assert ("[models.providers]" in session.said) == helped
    assert session.asked == {"check": check, "spend": False}


def test_a_price_is_in_dollars_for_a_million_tokens() -> None:
    priced = {"input_micro_usd_per_mtok": 150_000, "output_micro_usd_per_mtok": 15_000_000, "version": "x"}
    assert _price({**MODEL, "price": priced}) == "$0.15/$15 per million"
    assert _price(MODEL) == "free"
    assert _price({**MODEL, "price": None, "state": "unpriced"}) == "unknown"


def test_what_a_check_cost_is_told_also_when_nobody_can_tell() -> None:
    assert "12 ms" in _row(MODEL)["why"]
    assert "cost $0.000048" in _row({**MODEL, "cost_micro_usd": 48})["why"]
    assert "nobody can tell" in _row({**MODEL, "cost_micro_usd": None})["why"]
