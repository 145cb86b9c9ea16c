"""Decides on one order from whatever opinions came in time, and states it once.

The side is a model's where one answers, a rule's where none does; the quantity is always arithmetic. An order
is known by symbol, side and quantity. Shared memory says who decided it last, and is only ever written with
the version that was read: of two runs with one thought, one goes on and the other one holds.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host, HostRefused

SPACE = "shared:orders"
ANALYSTS = ("trend", "risk", "sentiment")
HOLD_MS = 300_000
"""The same order decided again within this time is held."""
WEIGHTS = {"trend": 0.6, "sentiment": 0.4}
ENOUGH = 0.25
"""A score beyond this, up or down, is an order."""
WILD = 0.8
"""At a volatility of a year beyond this the rule waits."""
BLIND_SHARE = 0.02
"""Without an opinion on risk no more than this share of the capital is moved."""
TRIES = 4

SIDES = {"type": "string", "enum": ["buy", "sell", "wait"]}
SCHEMA = {
    "type": "object",
    "properties": {"side": SIDES, "reason": {"type": "string"}},
    "required": ["side", "reason"],
    "additionalProperties": False,
}
TEMPLATE = '{"side": {{side | json}}, "reason": {{reason | json}}}'
INSTRUCTIONS = """\
You decide whether to buy, to sell or to wait, from the figures of three analysts. Scores go from -1 to 1. An
analyst that is missing gave no opinion: do not guess at it. Answer with JSON: "side" (buy, sell or wait) and
"reason", one sentence that names the figures it rests on."""


@handler
def handle(task: Task, host: Host) -> Result:
    """Ports ``series`` and any of ``trend``, ``risk``, ``sentiment`` -> the plan, and the page about it."""
    capital, share = amount(task, "capital", 100_000), amount(task, "risk_share", 0.01)
    hold_ms = amount(task, "hold_ms", HOLD_MS)
    series = task.port("series")
    opinions = {name: task.port(name) for name in ANALYSTS if task.all(name)}
    missing = [name for name in ANALYSTS if name not in opinions]
    for name in missing:
        host.log(f"no opinion came from {name}: deciding without it", level="warning")
    price = float(series["closes"][-1])
    score, rule_side, rule_reason = rule(opinions)
    side, reason, decided_by = decide(host, opinions, missing, rule_side, rule_reason)
    quantity = units(capital, share, price, opinions.get("risk"))
    plan: dict[str, Any] = {
        "symbol": series["symbol"],
        "as_of": series["dates"][-1],
        "price": price,
        "side": side,
        "quantity": 0 if side == "wait" else quantity,
        "score": round(score, 6),
        "rule": rule_side,
        "decided_by": decided_by,
        "reason": reason,
        "missing": missing,
        "status": "nothing to do",
        "order": "",
        "held_until_ms": None,
    }
    if side != "wait" and quantity > 0:
        place(host, plan, run=str(task.context["run"]), hold_ms=int(hold_ms))
    page = written(plan, opinions)
    host.put_artifact("plan.md", page)
    return Result.of(plan=plan, page=page)


# --- what to do -----------------------------------------------------------------------------------


def rule(opinions: dict[str, Any]) -> tuple[float, str, str]:
    """``(score, side, reason)`` by fixed arithmetic. Without a trend, and in wild times, it waits."""
    scores = {name: float(opinions[name]["score"]) for name in WEIGHTS if name in opinions}
    weight = sum(WEIGHTS[name] for name in scores)
    score = sum(WEIGHTS[name] * value for name, value in scores.items()) / weight if weight else 0.0
    said = ", ".join(f"{name} {value:+.2f}" for name, value in scores.items()) or "nothing"
    if "trend" not in opinions:
        return score, "wait", "there is no opinion on the trend"
    wild = float(opinions["risk"]["volatility"]) if "risk" in opinions else 0.0
    if wild > WILD:
        return score, "wait", f"the volatility is {wild:.0%} a year"
    if abs(score) < ENOUGH:
        return score, "wait", f"the score {score:+.2f} ({said}) is not beyond {ENOUGH}"
    return score, "buy" if score > 0 else "sell", f"the score is {score:+.2f} ({said})"


def decide(
    host: Host, opinions: dict[str, Any], missing: list[str], side: str, reason: str
) -> tuple[str, str, str]:
    """``(side, reason, who decided)``: a model where one answers well, else the rule."""
    if "trend" not in opinions:
        return side, reason, "rules: no model is asked without a trend"
    figures = {
        name: {key: value for key, value in told.items() if key != "notes"} for name, told in opinions.items()
    }
    asked = json.dumps({"opinions": figures, "missing": missing}, sort_keys=True)
    messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": asked}]
    try:
        answer = host.complete(
            messages,
            max_tokens=300,
            json_schema=SCHEMA,
            template=TEMPLATE,
            facts={"side": side, "reason": reason},
        )
    except HostRefused as refused:
        return side, reason, f"rules: the model was not available ({refused.code})"
    if not answer.generated:
        return side, reason, "rules: no model answered"
    try:
        told = answer.json()
        if told["side"] in SIDES["enum"]:
            return (
                told["side"],
                " ".join(str(told["reason"]).split())[:400],
                f"{answer.provider}:{answer.model}",
            )
    except (ValueError, TypeError, KeyError):
        pass
    return side, reason, "rules: the model's answer was of no use"


def units(capital: float, share: float, price: float, risk: Any) -> int:
    """As many as may lose ``share`` of the capital on the day that is the value at risk; never beyond it."""
    affordable = capital / price
    if risk is None:
        return math.floor(BLIND_SHARE * affordable)
    loss = float(risk["value_at_risk"]) * price
    return math.floor(min(affordable, capital * share / loss) if loss > 0 else affordable)


# --- doing it once --------------------------------------------------------------------------------


def place(host: Host, plan: dict[str, Any], *, run: str, hold_ms: int) -> None:
    """Hold the order if another run decided the same a moment ago; else state it, once by its key."""
    name = f"{plan['symbol']}/{plan['side']}/{plan['quantity']}"
    key = hashlib.sha256(f"{name} {run}".encode()).hexdigest()[:32]
    for _ in range(TRIES):
        now = host.now_ms()
        last, version = host.memory_get(name, namespace=SPACE)
        if isinstance(last, dict) and last["key"] != key and now - int(last["decided_ms"]) < hold_ms:
            plan.update(status="held", order=last["key"], held_until_ms=int(last["decided_ms"]) + hold_ms)
            return
        if isinstance(last, dict) and last["key"] == key:
            break  # this run, or the one it was forked from, was here before
        try:
            entry = {"key": key, "decided_ms": now, "run": run}
            host.memory_put(name, entry, namespace=SPACE, expected_version=version)
            break
        except HostRefused as refused:
            if refused.code != "memory.conflict":
                raise
    else:
        raise Fail("market.busy", f"others keep deciding on {name}", retryable=True)
    plan.update(status=execute(host, plan, key), order=key)


def execute(host: Host, plan: dict[str, Any], key: str) -> str:
    """State the order as a record under its key; a record that is there is the order, done before."""
    document = f"order-{key}"
    try:
        host.kb_read("document", document)
    except HostRefused as refused:
        if refused.code != "kb.absent":
            raise
    else:
        return "executed before"
    fields = ("symbol", "side", "quantity", "price", "as_of")
    text = "\n".join([f"key: {key}", *(f"{field}: {plan[field]}" for field in fields)])
    host.kb_propose(
        "document.imported",
        {
            "document": document,
            "type": "record",
            "title": f"Order: {plan['side']} {plan['quantity']} {plan['symbol']}",
            "text": text,
            "content_digest": hashlib.sha256(text.encode()).hexdigest(),
        },
    )
    return "executed"


# --- for people -----------------------------------------------------------------------------------


def written(plan: dict[str, Any], opinions: dict[str, Any]) -> str:
    """The page about the plan."""
    lines = [
        f"# {plan['symbol']}: {plan['side']} {plan['quantity'] or ''}".rstrip(),
        "",
        f"- {plan['status']}; price {plan['price']:.2f} on {plan['as_of']}",
        f"- decided by {plan['decided_by']}: {plan['reason']}",
        f"- no opinion from: {', '.join(plan['missing'])}"
        if plan["missing"]
        else "- every analyst was heard",
        "",
    ]
    for name, told in opinions.items():
        figures = ", ".join(f"{key} {value}" for key, value in told.items() if key != "notes")
        lines.append(f"- {name}: {figures}")
    return "\n".join(lines) + "\n"


def amount(task: Task, name: str, usual: float) -> float:
    """A number of the opening's that is not below 0."""
    value = task.param(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e12:
        raise Fail("market.input", f"{name!r} cannot be {value!r}; give a number from 0 up")
    return value
