"""At an upgrade a person sees what is asked now, what was asked before, and what was used."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle.diff import CapsDiff, capability_diff, render
from runloop.caps.policy import Policy, parse_policy
from runloop.digest import canonical


def policy(*lines: str) -> Policy:
    return parse_policy("[capabilities]\n" + "\n".join(lines))


def widening(diff: CapsDiff) -> list[tuple[str, object]]:
    return [(row.capability, row.entry) for row in diff.widening]


def test_a_first_install_asks_for_everything_it_wants() -> None:
    diff = capability_diff(None, policy("time = true", 'net = ["a.example"]'))
    assert widening(diff) == [("net", "a.example"), ("time", True)]
    assert diff.first
    assert render(diff) == ["asks for:", '  + net "a.example"', "  + time"]


def test_an_upgrade_shows_what_is_new_what_stays_and_what_goes() -> None:
    diff = capability_diff(
        policy("time = true", "random = true", 'net = ["a.example"]'),
        policy("time = true", 'net = ["a.example", "b.example"]'),
        [("net", "GET https://a.example/x"), ("random", "")],
    )
    assert render(diff) == [
        "asks for, not asked before:",
        '  + net "b.example"  [not used in the runs looked at]',
        "asked before and now:",
        '  = net "a.example"  [used]',
        "  = time  [not used in the runs looked at]",
        "no longer asked:",
        "  - random  [used]",
    ]
    assert [row.capability for row in diff.unused] == ["time"]
    assert [row.capability for row in diff.dropped] == ["random"]


@pytest.mark.parametrize(
    ("before", "now", "wider"),
    [
        ('net = ["a.example"]', 'net = ["a.example:443"]', False),
        ('net = ["a.example:443"]', 'net = ["a.example"]', True),
        ('net = ["*.example"]', 'net = ["a.example"]', False),
        ('net = [{hosts = ["a.example"], methods = ["GET"]}]', 'net = ["a.example"]', True),
        ('net = ["a.example"]', 'net = [{hosts = ["a.example"], allow_http = true}]', True),
        ('fs_ro = ["/data"]', 'fs_ro = ["/data/in"]', False),
        ('fs_ro = ["/data/in"]', 'fs_ro = ["/data"]', True),
        ('fs_rw = ["/data"]', 'fs_ro = ["/data"]', False),
        ('fs_ro = ["/data"]', 'fs_rw = ["/data"]', True),
        ("model = true", 'model = ["rules:*"]', False),
        ('model = ["rules:*"]', "model = true", True),
        ("kb_read = true", 'kb_read = ["notes"]', False),
        ("kb_read = true", "kb_read = { contacts_raw = true }", True),
    ],
)
def test_only_more_than_before_is_a_widening(before: str, now: str, wider: bool) -> None:
    assert bool(capability_diff(policy(before), policy(now)).widening) is wider


POLICIES = st.sets(
    st.sampled_from(
        [
            "time = true",
            'net = ["a.example", "b.example:8080"]',
            'fs_ro = ["/a"]',
            'fs_rw = ["/a/b"]',
            "model = true",
            'secrets = ["runloop/x/y"]',
            "mail = true",
        ]
    )
).map(lambda lines: policy(*sorted(lines)))


@given(POLICIES, POLICIES)
def test_nothing_granted_now_and_not_before_is_left_out(before: Policy, now: Policy) -> None:
    diff = capability_diff(before, now)
    granted = {row.capability for row in diff.rows if row.now}
    assert set(now.grants) <= granted
    for name in set(now.grants) - set(before.grants):
        assert name in {row.capability for row in diff.widening} or name == "fs_ro"
    assert capability_diff(now, now).widening == ()


def test_the_whole_of_a_right_is_said_to_be_without_bound() -> None:
    assert render(capability_diff(None, policy("model = true")))[1] == "  + model (anything, without bound)"


def test_a_use_under_a_wider_right_counts_for_reading() -> None:
    diff = capability_diff(None, policy('fs_rw = ["/a"]'), [("fs_ro", "/a/b")])
    assert diff.rows[0].used is True
    assert capability_diff(None, policy('fs_ro = ["/a"]'), [("fs_rw", "/a/b")]).rows[0].used is False


@pytest.mark.parametrize("sly", ["/x\u202egnp", "/a  [used]", "/a\u200b", '/a"\u00a0'])
def test_no_entry_can_look_like_something_else(sly: str) -> None:
    diff = capability_diff(None, policy(f"fs_ro = [{json.dumps(sly)}]"))
    (line,) = render(diff)[1:]
    assert line.isascii()
    assert line.isprintable()
    assert line.endswith('"'), "what stands behind the quotes is ours"


def test_a_long_list_says_first_which_capabilities_are_in_it() -> None:
    hosts = ", ".join(f'"h{number}.example"' for number in range(500))
    asked = policy(f'net = [{hosts}]\nexec = ["sh"]\nmail = ["*@example.org"]')
    head, summary, *rows = render(capability_diff(None, asked))
    assert head == "asks for:"
    assert summary == "  502 entries: net (500), exec (1), mail (1)"
    assert len(rows) == 502


def test_the_difference_is_data_that_an_approval_can_bind() -> None:
    diff = capability_diff(
        policy("time = true"), policy('net = [{hosts = ["a.example"], methods = ["GET"]}]')
    )
    assert canonical(diff.to_json()) == canonical(json.loads(canonical(diff.to_json())))
    assert [row["widening"] for row in diff.to_json()["rows"]] == [True, False]


def test_an_agent_that_asks_for_nothing_is_said_to() -> None:
    assert render(capability_diff(None, policy())) == ["asks for no right at all"]
