"""Policies: read strictly, narrow only, say no in words."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.caps.grants import NetRule, pattern_covers, pattern_matches
from runloop.caps.policy import (
    CAPABILITIES,
    NOTHING,
    CapsError,
    Policy,
    ceiling,
    effective,
    everything,
    parse_override,
    parse_policy,
    union,
)


def caps(text: str) -> Policy:
    return parse_policy("[capabilities]\n" + text)


def findings(text: str) -> list[str]:
    with pytest.raises(CapsError) as caught:
        parse_policy(text)
    return caught.value.findings


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.requirement("I2.caps.2")
def test_a_policy_without_a_table_grants_nothing() -> None:
    assert parse_policy("").empty
    assert parse_policy("[capabilities]") == NOTHING
    assert NOTHING.explain() == ["may do nothing but compute"]


def test_every_key_is_read_and_written_back() -> None:
    policy = caps(
        """
fs = ["/home/ann/notes"]
fs_rw = ["/tmp/work/"]
net = ["api.example.org:443", { hosts = ["*.example.org"], methods = ["get"], paths = ["/v1"] }]
time = true
random = true
kb_read = ["contacts"]
kb_write = true
model = ["rules:*"]
secrets = ["runloop/mail/password"]
tools = ["fs.list"]
exec = ["git"]
spawn = ["critic"]
mail = ["*@Example.org"]
"""
    )
    assert parse_policy(policy.to_toml()) == policy
    assert Policy.from_json(policy.to_json()) == policy
    assert policy.to_json()["fs_rw"] == ["/tmp/work"]
    assert policy.to_json()["mail"] == ["*@example.org"]
    assert len(policy.explain()) == 13
    assert hash(policy) == hash(parse_policy(policy.to_toml()))


def test_every_mistake_is_told_at_once_with_a_suggestion() -> None:
    found = findings('[capabilities]\nkb_raed = true\ntime = 1\nnet = true\nfs = ["../x"]\nsecrets = true')
    assert len(found) == 5
    assert "did you mean 'kb_read'" in found[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[capabilities", "not TOML"),
        ("capabilities = 3", "must be a table"),
        ("[caps]\n", "unknown key 'caps'"),
        ('[capabilities]\nfs = "/x"', "list of absolute directories"),
        ('[capabilities]\nfs = ["x"]', "not an absolute"),
        ('[capabilities]\nfs = ["/a/../b"]', "'..'"),
        ('[capabilities]\nfs = ["/a\\u0000"]', "control character"),
        ("[capabilities]\nfs = [1]", "not a text"),
        ('[capabilities]\nfs = ["/a"]\nfs_ro = ["/b"]', "say the same"),
        ('[capabilities]\nnet = ["http://x"]', "not a host name"),
        ('[capabilities]\nnet = ["a b"]', "not a host name"),
        ('[capabilities]\nnet = ["*"]', "not a host name"),
        ('[capabilities]\nnet = ["ex*mple.org"]', "not a host name"),
        ('[capabilities]\nnet = ["x:0"]', "port"),
        ('[capabilities]\nnet = ["x:99999"]', "port"),
        ('[capabilities]\nnet = ["x:"]', "not a host name"),
        ('[capabilities]\nnet = ["[::1"]', "ipv6"),
        ('[capabilities]\nnet = ["[::1]:"]', "empty port"),
        ("[capabilities]\nnet = [3]", "neither"),
        ('[capabilities]\nnet = [{ host = "x" }]', "unknown key 'host'"),
        ("[capabilities]\nnet = [{ }]", "'hosts' is missing"),
        ('[capabilities]\nnet = [{ hosts = ["x"], methods = ["STEAL"] }]', "STEAL"),
        ('[capabilities]\nnet = [{ hosts = ["x"], methods = [] }]', "allow nothing"),
        ('[capabilities]\nnet = [{ hosts = ["x"], allow_http = 1 }]', "true or false"),
        ("[capabilities]\nkb_read = 1", "true, false or a list"),
        ('[capabilities]\nkb_read = ["everything"]', "domains"),
        ("[capabilities]\nkb_read = { all = true }", "unknown key 'all'"),
        ("[capabilities]\nkb_read = { domains = false, contacts_raw = true }", "nothing to unmask"),
        ('[capabilities]\n"kb_read.contacts_raw" = true', "nothing to unmask"),
        ('[capabilities]\nmail = ["nobody"]', "recipient patterns"),
        ('[capabilities]\nsecrets = ["aws/key"]', "runloop/<scope>/<name>"),
        ('[capabilities]\nspawn = ["Writer"]', "names of agents"),
        ('[capabilities]\nexec = ["rm -rf"]', "program names"),
        ("[capabilities]\nfs = [" + '"/a",' * 20_000 + "]", "longer than"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, says: str) -> None:
    assert says in " ".join(findings(text))


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(CapsError, match="not TOML"):
        parse_policy(b"\xff\xfe")


def test_the_three_spellings_of_contacts_raw_mean_the_same() -> None:
    dotted = caps("kb_read.contacts_raw = true")
    assert dotted == caps("kb_read = { domains = true, contacts_raw = true }")
    assert dotted == caps('kb_read = true\n"kb_read.contacts_raw" = true')
    assert dotted.allows("kb_read.contacts_raw").allowed


# --- checking -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "capability", "target", "allowed"),
    [
        ('fs = ["/a/b"]', "fs_ro", "/a/b", True),
        ('fs = ["/a/b"]', "fs_ro", "/a/b/c", True),
        ('fs = ["/a/b"]', "fs_ro", "/a/bc", False),
        ('fs = ["/a/b"]', "fs_ro", "/a/b/../c", False),
        ('fs = ["/a/b"]', "fs_ro", "a/b", False),
        ('fs = ["/a/b"]', "fs_rw", "/a/b", False),
        ('fs_rw = ["/a/b"]', "fs_ro", "/a/b/c", True),
        ('fs = ["/"]', "fs_ro", "/etc/passwd", True),
        ('net = ["x.org"]', "net", "https://x.org/", True),
        ('net = ["x.org"]', "net", "https://X.ORG./", True),
        ('net = ["x.org"]', "net", "http://x.org/", False),
        ('net = ["x.org"]', "net", "https://a.x.org/", False),
        ('net = ["*.x.org"]', "net", "https://a.x.org/", True),
        ('net = ["*.x.org"]', "net", "https://x.org/", False),
        ('net = ["*.x.org"]', "net", "https://evilx.org/", False),
        ('net = ["x.org:443"]', "net", "https://x.org:8443/", False),
        ('net = ["x.org"]', "net", "https://x.org@evil.example/", False),
        ('net = ["x.org"]', "net", "https://evil.example/?x.org", False),
        ('net = ["x.org"]', "net", "ftp://x.org/", False),
        ('net = ["x.org"]', "net", "https://x.org:bad/", False),
        ('net = ["[::1]:8080"]', "net", "https://[::1]:8080/", True),
        ('net = [{ hosts = ["x.org"], allow_http = true }]', "net", "http://x.org/", True),
        ('net = [{ hosts = ["x.org"], methods = ["GET"] }]', "net", "POST https://x.org/", False),
        ('net = [{ hosts = ["x.org"], methods = ["GET"] }]', "net", "https://x.org/", True),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/a", True),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v12", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/../a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/%2e%2e/a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/..;/a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/..;b=c/a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/..%3b/a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/..%00/a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/..%09/a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/%252e%252e/a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/%252f../a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/.;/a", False),
        ('net = [{ hosts = ["x.org"], paths = ["/v1"] }]', "net", "https://x.org/v1/a;b=c/..d", True),
        ('model = ["rules:*"]', "model", "rules:rules", True),
        ('model = ["rules"]', "model", "rules:rules", True),
        ('model = ["gpt-*"]', "model", "openai:gpt-4", True),
        ('model = ["gpt-*"]', "model", "openai:o1", False),
        ('mail = ["*@example.org"]', "mail", "Ann@Example.ORG", True),
        ('mail = ["*@example.org"]', "mail", "ann@example.org.evil.example", False),
        ('mail = ["*@example.org"]', "mail", "eve@evil.example,ann@example.org", False),
        ('mail = ["*@example.org"]', "mail", "<eve@evil.example> ann@example.org", False),
        ("time = true", "time", "", True),
        ("time = false", "time", "", False),
        ('kb_read = ["notes"]', "kb_read", "", True),
        ('kb_read = ["notes"]', "kb_read", "mail", False),
        ("time = true", "launch_missiles", "", False),
    ],
)
def test_a_check_follows_the_grant(grant: str, capability: str, target: str, allowed: bool) -> None:
    assert caps(grant).allows(capability, target).allowed is allowed


@pytest.mark.requirement("I2.caps.3")
def test_a_denial_says_why_and_what_to_type() -> None:
    verdict = caps('mail = ["*@example.org"]').allows("mail", "ann@acme.example", agent="mailer")
    assert "not granted to mailer: only *@example.org is granted" in verdict.reason
    assert verdict.how_to_obtain is not None
    assert verdict.how_to_obtain.endswith("""type: rlp cap grant mailer mail '["ann@acme.example"]'""")


@pytest.mark.parametrize(
    ("capability", "target"),
    [
        ("mail", "a@x.example"),
        ("fs_rw", "/srv/it's here"),
        ("model", "openai:o1"),
        ("kb_read", "mail"),
        ("time", ""),
    ],
)
def test_what_a_denial_says_to_type_is_a_grant_that_would_allow_it(capability: str, target: str) -> None:
    verdict = caps("").allows(capability, target, agent="worker")
    assert verdict.how_to_obtain is not None
    words = shlex.split(verdict.how_to_obtain.partition("type: ")[2])
    assert words[:5] == ["rlp", "cap", "grant", "worker", capability]
    value = json.loads(words[5]) if len(words) > 5 else True
    assert Policy.from_json({capability: value}).allows(capability, target).allowed


@pytest.mark.parametrize("target", ["eve@evil.example; rm -rf /", "*@*.example", "a@b\x1b[2J", "'\n"])
def test_a_denial_does_not_have_an_operator_type_what_a_stranger_made_up(target: str) -> None:
    verdict = caps("").allows("mail", target, agent="mailer")
    assert verdict.how_to_obtain is not None
    assert verdict.how_to_obtain.endswith("type: rlp cap grant mailer mail")


@pytest.mark.parametrize(
    ("value", "reached"),
    [
        (["api.example.org"], True),
        ([{"hosts": ["api.example.org"], "methods": ["GET", "POST"]}], True),
        (["*.example.org"], False),
        (["api.example.org", "evil.example"], False),
        (True, True),
    ],
)
def test_a_host_is_reached_whatever_narrows_what_may_be_done_there(value: Any, reached: bool) -> None:
    policy = caps('net = [{ hosts = ["api.example.org"], methods = ["GET"] }]')
    entries = value if value is True else Policy.from_json({"net": value}).value("net")
    assert policy.reaches("net", entries) is reached
    assert not caps("time = true").reaches("net", entries)


# --- narrowing ------------------------------------------------------------------------------------


def test_nested_directories_meet_in_the_narrower_one_and_writing_needs_both() -> None:
    base = caps('fs = ["/home"]\nfs_rw = ["/tmp", "/var/a"]')
    left = effective(base, caps('fs = ["/tmp/x"]\nfs_rw = ["/home/ann", "/var"]')).policy
    assert left.to_json() == {"fs_ro": ["/home/ann", "/tmp/x"], "fs_rw": ["/var/a"]}


def test_a_port_narrows_a_portless_host_and_wildcards_meet_names() -> None:
    base = caps('net = ["x.org", "*.y.org:443", "z.org:80"]')
    other = caps('net = ["x.org:8443", "a.y.org", "z.org:81"]')
    assert effective(base, other).policy.to_json() == {"net": ["a.y.org:443", "x.org:8443"]}


def test_methods_and_paths_of_hosts_meet() -> None:
    base = caps(
        'net = [{ hosts = ["x.org"], methods = ["GET", "POST"], paths = ["/v1"], allow_http = true }]'
    )
    other = caps('net = [{ hosts = ["x.org"], methods = ["GET"], paths = ["/v1/a", "/v2"] }]')
    (rule,) = effective(base, other).policy.value("net")  # type: ignore[misc]
    assert rule == NetRule(host="x.org", methods=("GET",), paths=("/v1/a",))
    disjoint = caps('net = [{ hosts = ["x.org"], methods = ["PUT"] }]')
    assert effective(base, disjoint).policy.empty


def test_an_override_leaves_alone_what_it_does_not_name_and_revokes_with_an_empty_list() -> None:
    base = caps('model = true\nmail = true\nkb_read.contacts_raw = true\nfs = ["/a"]\nfs_rw = ["/b"]')
    override = parse_override('[capabilities]\nmail = []\nfs_rw = []\nmodel = ["rules:*"]')
    left = effective(everything(), base, override)
    assert left.policy.to_json() == {
        "fs_ro": ["/a", "/b"],
        "kb_read": True,
        "kb_read.contacts_raw": True,
        "model": ["rules:*"],
    }
    assert left.warnings == ()


def test_revoking_reading_revokes_writing_and_unmasking_too() -> None:
    base = caps('fs_rw = ["/b"]\nkb_read.contacts_raw = true')
    override = parse_override("[capabilities]\nfs_ro = []\nkb_read = false")
    assert effective(everything(), base, override).policy.empty


def test_what_an_override_grants_in_excess_is_ignored_and_told() -> None:
    override = parse_override('[capabilities]\nmail = ["*@example.org"]\nmodel = true')
    left = effective(everything(), caps('model = ["rules:*"]'), override)
    assert left.policy.to_json() == {"model": ["rules:*"]}
    assert [w.partition(",")[0] for w in left.warnings] == [
        "the operator's override grants model",
        "the operator's override grants mail *@example.org",
    ]


def test_the_ceiling_is_what_the_declared_ops_need() -> None:
    top = ceiling(["kb.search", "log.write", "no.such.op"])
    assert top.to_json() == {"kb_read": True, "kb_read.contacts_raw": True}
    left = effective(top, caps("kb_read = true\nmail = true"))
    assert left.policy.to_json() == {"kb_read": True}
    assert left.warnings and "mail" in left.warnings[0]


def test_a_token_narrows_without_a_word() -> None:
    left = effective(everything(), caps("time = true"), None, caps("time = true\nmail = true"))
    assert left.policy.to_json() == {"time": True} and left.warnings == ()


def test_the_union_covers_each_of_its_parts() -> None:
    parts = [caps('model = ["rules:*"]\ntime = true'), caps('model = ["rules:a", "x:*"]')]
    both = union(parts)
    assert both.to_json() == {"time": True, "model": ["rules:*", "x:*"]}
    assert all(effective(both, part).warnings == () for part in parts)


WORDS = st.text("ab*", min_size=1, max_size=6)


@given(pattern=WORDS, word=st.text("ab", max_size=8))
def test_a_pattern_matches_as_a_regular_expression_would(pattern: str, word: str) -> None:
    import re

    wanted = re.fullmatch(pattern.replace("*", ".*"), word) is not None
    assert pattern_matches(pattern, word) is wanted


@given(wide=WORDS, narrow=WORDS, word=st.text("ab", max_size=8))
def test_a_pattern_that_covers_another_matches_whatever_it_matches(wide: str, narrow: str, word: str) -> None:
    if pattern_covers(wide, narrow) and pattern_matches(narrow, word):
        assert pattern_matches(wide, word)


ROOTS = st.lists(st.sampled_from(["/a", "/a/b", "/a/b/c", "/ab", "/c"]), max_size=3)
HOSTS = st.lists(
    st.one_of(
        st.sampled_from(["x.org", "*.x.org", "a.x.org:443", "x.org:443", "y.org"]),
        st.fixed_dictionaries(
            {"hosts": st.just(["x.org", "*.x.org"])},
            optional={
                "methods": st.sampled_from([["GET"], ["GET", "POST"]]),
                "paths": st.sampled_from([["/v1"], ["/v1/a", "/v2"]]),
                "allow_http": st.booleans(),
            },
        ),
    ),
    max_size=3,
)


def switch(names: list[str]) -> st.SearchStrategy[Any]:
    return st.one_of(st.booleans(), st.lists(st.sampled_from(names), max_size=3))


TABLES = st.fixed_dictionaries(
    {},
    optional={
        "fs_ro": ROOTS,
        "fs_rw": ROOTS,
        "net": HOSTS,
        "time": st.booleans(),
        "kb_read": switch(["contacts", "notes", "mail"]),
        "model": switch(["rules:*", "openai:*", "openai:gpt-*", "gpt-*"]),
        "mail": switch(["*@x.org", "a@x.org", "*@*.org"]),
    },
)
PROBES = [
    ("fs_ro", "/a/b/x"),
    ("fs_rw", "/a/b/c"),
    ("fs_ro", "/ab/x"),
    ("net", "https://x.org/v1/a"),
    ("net", "POST https://a.x.org/v2"),
    ("net", "http://x.org/"),
    ("time", ""),
    ("kb_read", "notes"),
    ("model", "openai:gpt-4"),
    ("model", "rules:x"),
    ("mail", "a@x.org"),
    ("mail", "b@y.org"),
]


@pytest.mark.requirement("I2.caps.1")
@given(base=TABLES, layer=TABLES)
def test_narrowing_never_allows_what_a_layer_denies(base: Any, layer: Any) -> None:
    one, other = Policy.from_json(base), Policy.from_json(layer)
    left = effective(one, other).policy
    for capability, target in PROBES:
        if left.allows(capability, target).allowed:
            assert one.allows(capability, target).allowed, (capability, target)
            assert other.allows(capability, target).allowed, (capability, target)


@pytest.mark.requirement("I2.caps.1")
@given(base=TABLES, layer=TABLES)
def test_an_override_never_widens(base: Any, layer: Any) -> None:
    from runloop.caps.policy import Override

    policy, rules = Policy.from_json(base), Policy.from_json(layer)
    left = effective(everything(), policy, Override(rules, frozenset(layer))).policy
    for capability, target in PROBES:
        if left.allows(capability, target).allowed:
            assert policy.allows(capability, target).allowed


@given(table=TABLES)
def test_narrowing_by_itself_changes_nothing_and_warns_of_nothing(table: Any) -> None:
    policy = Policy.from_json(table)
    assert effective(policy, policy).policy == policy
    assert effective(policy, policy).warnings == ()
    assert effective(everything(), policy).policy == policy
    assert effective(policy, everything()).policy == policy


@given(base=TABLES, layer=TABLES)
def test_what_is_granted_by_both_is_left(base: Any, layer: Any) -> None:
    one, other = Policy.from_json(base), Policy.from_json(layer)
    left = effective(one, union([one, other])).policy
    for capability, target in PROBES:
        assert left.allows(capability, target).allowed == one.allows(capability, target).allowed


def test_every_capability_has_a_meaning() -> None:
    assert all(row.meaning for row in CAPABILITIES.values())
