"""The capability ``talk``: denied by default, narrowed by every layer, never widened."""

from __future__ import annotations

import pytest

from runloop.caps.policy import CapsError, Policy, ceiling, effective, parse_override, parse_policy


def policy(text: str) -> Policy:
    return parse_policy(f"[capabilities]\n{text}")


@pytest.mark.requirement("I5.talk.5")
@pytest.mark.parametrize(
    ("grants", "target", "allowed"),
    [
        ("", "node/bob", False),
        ("talk = false", "node/bob", False),
        ("talk = true", "node/bob", True),
        ('talk = ["node/bob"]', "node/bob", True),
        ('talk = ["node/bob"]', "node/bob[1]", False),
        ('talk = ["node/bob*"]', "node/bob[1]", True),
        ('talk = ["node/bob[*]"]', "node/bob[1]", True),
        ('talk = ["node/bob"]', "talk/bob", False),
        ('talk = ["talk/prices.*"]', "talk/prices.eu", True),
        ('talk = ["talk/prices.*"]', "talk/pricesXeu", False),
        ('talk = ["node/*"]', "talk/prices", False),
    ],
)  # fmt: skip
def test_a_grant_covers_addresses_by_pattern(grants: str, target: str, allowed: bool) -> None:
    assert policy(grants).allows("talk", target).allowed == allowed


@pytest.mark.parametrize("word", ["bob", "*", "node/", "talk/A", "agent/bob", "node/bob/x", "node/ bob"])
def test_what_is_no_address_pattern_is_refused(word: str) -> None:
    with pytest.raises(CapsError, match="talk"):
        policy(f'talk = ["{word}"]')


def test_every_layer_narrows_and_none_widens() -> None:
    top = ceiling(["msg.publish"])
    assert top.value("talk") is True
    assert ceiling(["msg.next", "time.now"]).value("talk") is False
    own = policy('talk = ["node/bob", "talk/prices*"]')
    override = parse_override('[capabilities]\ntalk = ["talk/prices.eu", "node/eve"]')
    left = effective(top, own, override)
    assert left.policy.value("talk") == ("talk/prices.eu",)
    assert "node/eve" in " ".join(left.warnings)
    assert Policy.from_json(left.policy.to_json()) == left.policy
    assert left.policy.explain() == ["may talk with agents of the same run at talk/prices.eu"]
