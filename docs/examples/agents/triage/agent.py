"""Sorts a mail by fixed rules. Its text is data: no rule does what a mail says."""

from __future__ import annotations

import re
from typing import Any

from runloop.agent import Fail, Result, Task, handler

RULES = (
    ("bulk", r"\b(?:unsubscribe|newsletter|view (?:this|it) in (?:your|a) browser)\b"),
    ("urgent", r"\b(?:urgent|asap|immediately|today|deadline|by tomorrow)\b"),
    ("answer", r"\?(?:\s|$)|\b(?:could you|can you|please (?:confirm|reply|send))\b"),
)
"""The first that matches decides."""


@handler
def handle(task: Task, host: Any) -> Result:
    """Port ``mail`` -> its label on port ``verdict``."""
    mail = task.port("mail")
    if not isinstance(mail, dict):
        raise Fail("triage.input", "the mail on port 'mail' is not an object")
    title, text = str(mail.get("title") or "no subject"), str(mail.get("text") or "")
    own = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(">"))
    label, why = "read", "no rule applies"
    for name, rule in RULES:
        if (found := re.search(rule, f"{title}\n{own}", re.IGNORECASE)) is not None:
            label, why = name, f"it says {' '.join(found.group().split()) or '?'!r}"
            break
    return Result.of(
        verdict={
            "title": title,
            "when": str(mail.get("when") or ""),
            "label": label,
            "why": why,
            "line": f"{label}: {title} ({why})",
        }
    )
