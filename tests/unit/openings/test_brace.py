"""Brace text: the same definition as YAML, and mistakes that hide none of the others."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openings.definition import Opening, Retry
from openings.load import Reading, catalogue, find, load, parse, read
from openings.write import to_brace, to_yaml
from tests.unit.openings.conftest import LIBRARY

COMPOSE = """\
# The reference opening, as one would type it.
opening compose_email {
  goal "write an email to {recipient} about {topic}";
  goal "an email to {recipient} about {topic}";
  goal "write to {recipient} about {topic}"; goal "email {recipient} about {topic}";
  goal "tell {recipient} about {topic} by email"; goal "write an email to {recipient}";

  param recipient: string "Whom to write to: a name, a nickname or an address.";
  param topic: string "What the mail is about.";
  param tone = "friendly" "How it should sound.";

  policy { confirm external }

  node contacts = agent:contact_resolver {
    with query = "{{params.recipient}}"; retry 2 every 2500ms; timeout 30s
  }
  node context = agent:context_gatherer { with topic = "{{params.topic}}" }
  node draft = agent:writer {
    with tone = "{{params.tone}}"; with topic = "{{params.topic}}"; timeout 120s; budget 4000 tokens
  }
  node review = agent:critic;
  node send = agent:mailer;

  contacts.out -> draft.recipients;  contacts.out -> context.contact;  context.out -> draft.context;
  draft.out -> review.in;  draft.out -> send.draft;  review.review -> send.review;
  contacts.out -> send.contact;  review.ok == true -> send.in;

  success any { review.ok == true }
  save draft.out
}
"""


def told(text: str, name: str = "x.opening") -> list[str]:
    return [f"{f.line}:{f.column} {f.code.removeprefix('opening.')}" for f in parse(text, name=name).findings]


def test_the_reference_opening_in_braces_has_the_digest_of_the_yaml() -> None:
    assert load(COMPOSE).digest == read(LIBRARY / "compose_email.yaml").digest


@pytest.mark.parametrize(
    ("text", "retry"),
    [
        ("retry 3", Retry(max_attempts=3)),
        ("retry 3 every 2s", Retry(max_attempts=3, initial_ms=2000)),
        ("retry 3 from 1s", Retry(max_attempts=3, initial_ms=1000, multiplier=2)),
        (
            "retry 3 from 1m30s times 1.5 at most 1h jitter 0.5",
            Retry(max_attempts=3, initial_ms=90_000, multiplier=1.5, max_ms=3_600_000, jitter=0.5),
        ),
    ],
)
def test_a_retry_is_written_as_it_is_said(text: str, retry: Retry) -> None:
    assert load(f"opening x {{ node a = agent:a {{ {text} }} }}").nodes[0].retry == retry


@pytest.mark.parametrize(
    ("param", "type_", "required", "default"),
    [
        ("p", "any", True, None),
        ("p: string", "string", True, None),
        ("p: string?", "string", False, None),
        ("p = 3", "number", False, 3),
        ("p: any = 3", "any", False, 3),
        ("p: list! = [1, {a: null,}]", "list", True, [1, {"a": None}]),
    ],
)
def test_a_parameter_says_its_type_whether_it_is_required_and_its_default(
    param: str, type_: str, required: bool, default: object
) -> None:
    made = load(f"opening x {{ param {param}; node a = agent:a }}").params["p"]
    assert (made.type, made.required, made.default) == (type_, required, default)


@pytest.mark.requirement("I5.language.5")
def test_every_mistake_of_a_brace_text_is_told_with_its_line_and_column() -> None:
    text = """opening Wrong {
  goal "never ends;
  parm x: string;
  param y: sting;
  policy { timeout 5 parsecs; budget $0.50; budget 3 apples; }
  node a = agent:a { with q = [1, 2; retry 3 often; retri 2; timeout 5s; timeout 6s; with k = {a: 1, a: 2}; }
  node b = nobody
  node c = agent:c { for each in, 0 at a time; with p = "{{params.z}}" }
  a.out -> b.in;
  a.out => c.in;
  a.out.x -> c.in;
  nobody.out -> c.in;
  success some { a.out == 1 }
  success any { a.out = 1; exists(b.x) }
  save a.out, a.out.x;
}
trailing
"""
    assert told(text) == [
        "2:8 syntax",
        "3:3 syntax",
        "5:20 syntax",
        "5:54 syntax",
        "6:36 syntax",
        "6:46 syntax",
        "6:53 syntax",
        "6:74 duplicate",
        "6:102 duplicate",
        "8:3 syntax",
        "10:16 syntax",
        "13:11 syntax",
        "17:1 syntax",
        "1:9 name",
        "4:12 type",
        "7:12 use",
        "8:35 type",
        "11:3 edge",
        "12:3 unknown_node",
        "14:23 expression",
        "15:15 artifact",
        "8:57 unknown_param",
    ]


def test_a_forgotten_brace_is_told_once_and_the_rest_is_read() -> None:
    text = "opening x {\n  node a = agent:a { timeout 5s;\n  node b = agent:b;\n  a.out -> b.in;\n}\n"
    reading = parse(text)
    assert told(text) == ["3:3 syntax"]
    assert reading.opening is not None
    assert [node.id for node in reading.opening.nodes] == ["a", "b"]
    assert told("opening x { node a = agent:a;") == ["1:30 syntax"]


@pytest.mark.parametrize(
    "text", ["", "# nothing", "opening", "opening x", "version: 0", "opening {", "\x00", "}"]
)
def test_what_is_no_opening_is_told_and_not_guessed(text: str) -> None:
    reading = parse(text, name="f.opening")
    assert reading.findings
    assert reading.opening is None


def test_a_text_is_told_from_yaml_by_how_it_begins_or_by_its_suffix() -> None:
    brace = "# a comment\n\nopening x { node a = agent:a }"
    assert load(brace) == load("version: 0\nname: x\nnodes: [{id: a, use: agent:a}]")
    assert told("opening: x", "f.yaml")[0] == "1:1 unknown_key"


def test_files_in_braces_are_found_like_those_in_yaml(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("openings")
    (folder / "one.opening").write_text("opening one { node a = agent:a }")
    (folder / "two.opening").write_text("opening two { node a = agent:a }")
    (folder / "two.yaml").write_text("version: 0\nname: two\nnodes: [{id: a, use: agent:b}]")
    assert {name: path.suffix for name, path in catalogue([folder]).items()} == {
        "one": ".opening",
        "two": ".yaml",
    }
    assert read(find("one", [folder])).name == "one"
    assert read(find(str(folder / "two.opening"), [])).nodes[0].use == "agent:a"


# --- hostile texts --------------------------------------------------------------------------------

PIECES = [
    "opening x {", "node a = agent:a", "{", "}", ";", "[", "]", '"', "'", "->", ".", "a.b", "== 1", "with",
    "for each", "retry", "9" * 400, "1e999", "-", "$", "#", "\n", "\\u0000", '"\\ud800"', "\u202e", "\ud800",
    "é", "param p =", "policy {", "success any {", "save", "exists(", "timeout 99999999999999999999d", "goal",
    "\x00", "\ufeff", "&a *a", "- ", ": ", "!!python/object:os.system", "nodes:", "version: 0",
]  # fmt: skip


def survives(text: str) -> Reading:
    reading = parse(text)
    assert all(found.what and found.why and found.fix for found in reading.findings)
    if not reading.findings:
        assert isinstance(reading.opening, Opening)
        assert load(to_brace(reading.opening)) == load(to_yaml(reading.opening)) == reading.opening
    return reading


@pytest.mark.requirement("I5.language.6")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join) | st.text(max_size=60), st.booleans())
def test_no_text_breaks_the_reader(text: str, inside: bool) -> None:
    survives(f"opening x {{ node a = agent:a; {text} }}" if inside else text)


@pytest.mark.requirement("I5.language.6")
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([COMPOSE, to_yaml(load(COMPOSE))]), st.data())
def test_no_mutation_of_an_opening_breaks_the_reader(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 20))
    survives(text[:at] + data.draw(st.sampled_from(["", *PIECES])) + text[at + length :])


@pytest.mark.requirement("I5.language.6")
@pytest.mark.parametrize(
    "text",
    [
        "opening x { node a = agent:a { with v = " + "[" * 5_000,
        "opening x { node a = agent:a { with v = " + "{a:" * 5_000,
        "opening x {" + "{" * 50_000,
        "opening x {" + "a" * 200_000,
        "opening x {" + ";" * 200_000,
        "opening x {" + "#" * 200_000,
        "opening x {" + "\n" * 200_000 + "y",
        "opening x {" + "zz; " * 30_000,
        "opening x {" + "node a = agent:a;" * 5_000,
        "opening x { node a = agent:a { " + "x.y; " * 20_000,
        "opening x { goal " + '"' * 100_001,
        " " * 250_000 + "opening",
        "#" * 250_000,
        "\n" * 100_000 + "opening" + " " * 100_000,
    ],
    ids=lambda text: f"{text[:24].strip()!r}-{text[-6:].strip()!r}",
)
@pytest.mark.timeout(60)
def test_a_text_of_one_thing_over_and_over_costs_little(text: str) -> None:
    assert len(survives(text).findings) <= 200
