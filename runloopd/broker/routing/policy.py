"""Which of several models is asked first, which may not be asked at all, and why: in words.

Knows: ``models.privacy`` and ``models.prefer``, and how a decision is told with the cost of what else there
was. Does not know: which routes there are (``catalogue``), who may use them (the gate's ``permits``), or
what happens then (``call``). Pure: the same facts, the same decision.

Privacy fails closed: what is not known to stay with the operator leaves, what is not known to be public is
private, and when nothing is left, nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runloop.config import Models
from runloop.errors import RefusedError
from runloop.ops import ModelComplete
from runloopd.broker.routing.route import Route

__all__ = ["Decision", "decide"]

_MOST_NAMED = 6
"""Other models that a reason names; of more only the number."""
_TARGET_CHARS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """In which order to ask, and why."""

    routes: tuple[Route, ...]
    """At least one."""
    why: str
    """Of the first route, in words."""
    left_out: tuple[Route, ...] = ()
    """What privacy forbids."""
    rule: str = ""
    """The rule of privacy that left them out, in words."""

    def words(self, request: ModelComplete, asked: Route | None = None, met: Sequence[str] = ()) -> str:
        """Why ``asked`` (the first, unless told) was asked, and what each alternative would have cost.

        ``met``: what was tried before it, as ``provider:model (code)``.
        """
        asked = asked or self.routes[0]
        why = self.why if asked is self.routes[0] else f"after {_some(met)}"
        parts = [f"{_name(asked)}: {why}; {_cost(asked, request)}"]
        others = [f"{_name(route)} ({_cost(route, request)})" for route in self.routes if route is not asked]
        if others:
            parts.append(f"others: {_some(others)}")
        if self.left_out:
            parts.append(f"not {_some([_name(route) for route in self.left_out])}: {self.rule}")
        return "; ".join(parts)


def decide(
    found: Sequence[Route],
    request: ModelComplete,
    settings: Models,
    *,
    private: bool,
    first_word_ms: Callable[[str], int | None],
) -> Decision:
    """The order in which the routes that policy grants are asked; ``found`` is in the configured order.

    Raises :class:`RefusedError` ``model.private`` when privacy leaves none.
    """
    rule = _privacy_rule(settings.privacy, private=private)
    kept = [route for route in found if route.stays or rule is None]
    out = tuple(route for route in found if route not in kept)
    if not kept:
        raise RefusedError(
            f"no model is left that may be asked: {_some([_name(route) for route in out])} would take the"
            f" request away from here, and {rule}",
            hint="use a model on this machine, or set models.privacy",
            code="model.private",
        )
    if request.model is None or settings.prefer != "order":
        kept.sort(key=lambda route: _rank(route, request, settings, first_word_ms))
    why = _why(kept, request, settings, first_word_ms)
    return Decision(routes=tuple(kept), why=why, left_out=out, rule=rule or "")


def _privacy_rule(privacy: str, *, private: bool) -> str | None:
    """Why nothing may leave this machine; None: it may."""
    if privacy == "cloud":
        return None
    if privacy == "hybrid":
        return "models.privacy is hybrid, and the request may hold what is private" if private else None
    return "models.privacy is local"


def _rank(
    route: Route, request: ModelComplete, settings: Models, first_word_ms: Callable[[str], int | None]
) -> tuple[bool, bool, int]:
    """Lower is asked earlier; equals stay in the configured order. The rules are no model: they come last."""
    away = settings.privacy == "hybrid" and not route.stays
    figure = 0
    match settings.prefer:
        case "cost":
            figure = 10**18 if route.price is None else route.bound(request)
        case "latency":
            measured = first_word_ms(route.target)
            figure = -1 if measured is None else measured  # asked once, it is known
        case "quality":
            figure = -(route.quality or 0)
    return route.kind == "rules", away, figure


def _why(
    routes: Sequence[Route],
    request: ModelComplete,
    settings: Models,
    first_word_ms: Callable[[str], int | None],
) -> str:
    first, count = routes[0], len(routes)
    named = f"the request names {request.model[:_TARGET_CHARS]!r}" if request.model is not None else ""
    if settings.prefer == "cost" and count > 1:
        why = f"the cheapest of {count}"
    elif settings.prefer == "latency" and count > 1:
        ms = first_word_ms(first.target)
        why = f"not measured yet, of {count}" if ms is None else f"the quickest of {count}, {ms} ms"
    elif settings.prefer == "quality" and count > 1:
        why = f"the best of {count}, {first.quality or 0} of 100"
    elif first.kind == "rules":
        why = "" if named else "no language model is there that may be asked"
    elif first.detected:
        why = "" if named else "found on this machine"
    elif named:
        why = ""
    elif settings.default == first.name:
        why = "it is models.default"
    else:
        why = "the first that is configured"
    away = settings.privacy == "hybrid" and first.stays and any(not route.stays for route in routes)
    if first.kind == "rules" and settings.default == "rules":
        why = named or "models.default is rules"
    return ", ".join(part for part in (named, why, "on this machine comes first" if away else "") if part)


def _name(route: Route) -> str:
    return route.target[:_TARGET_CHARS]


def _cost(route: Route, request: ModelComplete) -> str:
    if route.price is None:
        return "unpriced"
    bound = route.bound(request)
    return f"at most {bound} micro-dollars" if bound else "free"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
