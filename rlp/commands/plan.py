"""``rlp plan``: the graph of an opening, checked, and nothing executed. Needs no daemon."""

from __future__ import annotations

from rlp.prepare import EXAMPLES, prepare
from rlp.session import Session
from runloop.exits import Exit

__all__ = ["plan"]


def plan(session: Session, *, opening: str, params: tuple[str, ...], mermaid: bool) -> Exit:
    """Validate and draw what would run; parameters are judged only when some are given."""
    from openings.drawing import mermaid as chart
    from openings.plan import plan as make_plan

    wish = prepare(session, opening, params, judge=bool(params))
    made = make_plan(wish.opening)
    if session.json:
        found = made.to_json()
        session.console.json({**found, "given": wish.params, "path": str(wish.path)})
        return Exit.OK
    if mermaid:
        session.console.text(chart(wish.opening))
        return Exit.OK
    session.console.text(made.text(ascii_only=not session.console.can_draw))
    missing = [
        name for name, param in wish.opening.params.items() if param.required and name not in wish.params
    ]
    if missing:
        words = " ".join(
            f"-p {name}:={EXAMPLES[kind]}"
            if (kind := wish.opening.params[name].type) in EXAMPLES
            else f"-p {name}=..."
            for name in missing
        )
        session.console.say(f"run it with: rlp run {opening} {words}")
    return Exit.OK
