"""Reading openings: what is right is normalised, what is wrong is found all at once, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openings.definition import Opening, Param, Policy, Retry
from openings.errors import OpeningError
from openings.expressions import Compare, Ref
from openings.load import catalogue, find, load, read
from openings.source import MAX_BYTES
from runloop.errors import NotFoundError, UsageError
from runloop.exits import Exit

HEAD = "version: 0\nname: x\n"
NODES = "nodes:\n  - {id: a, use: agent:a}\n  - {id: b, use: agent:b}\n"


def findings(text: str) -> list[str]:
    with pytest.raises(OpeningError) as caught:
        load(text, name="f")
    return [f"{f.line}:{f.column} {f.code.removeprefix('opening.')}" for f in caught.value.findings]


# --- what is right --------------------------------------------------------------------------------


def test_the_reference_opening_is_the_one_of_the_specification(compose_email: Opening) -> None:
    nodes = {node.id: node for node in compose_email.nodes}
    assert {name: node.use for name, node in nodes.items()} == {
        "contacts": "agent:contact_resolver",
        "context": "agent:context_gatherer",
        "draft": "agent:writer",
        "review": "agent:critic",
        "send": "agent:mailer",
    }
    assert nodes["contacts"].with_ == {"query": "{{params.recipient}}"}
    assert nodes["contacts"].retry == Retry(max_attempts=2, initial_ms=2500)
    # Longer than the specification's: it times a processor of today, and a model in the network (ADR 41).
    assert nodes["contacts"].timeout_ms == 30_000
    assert (nodes["draft"].timeout_ms, nodes["draft"].budget_tokens) == (120_000, 4000)
    assert [str(edge) for edge in compose_email.edges] == [
        "contacts.out -> draft.recipients",
        "contacts.out -> context.contact",
        "context.out -> draft.context",
        "draft.out -> review.in",
        "draft.out -> send.draft",
        "review.review -> send.review",
        "contacts.out -> send.contact",
        "review.ok == true -> send.in",
    ]
    assert compose_email.success is not None
    assert compose_email.success.mode == "any_of"
    assert compose_email.success.clauses == (Compare(Ref("review", ("ok",)), "==", True),)
    assert compose_email.save == (Ref("draft", ("out",)),)
    assert compose_email.policy == Policy(confirm_external=True)


def test_every_opening_of_the_library_loads() -> None:
    from tests.unit.openings.conftest import LIBRARY

    for name, path in catalogue([LIBRARY]).items():
        assert read(path).name == name


def test_every_key_of_the_language_arrives_in_the_definition() -> None:
    opening = load(
        """
version: 0
name: everything
goals: [do it all]
params:
  any:
  text: hello
  size: {type: number, default: 3, description: how big}
  list: {type: list, required: false}
policy: {budget_tokens: 10, budget_usd: 0.000001, ask_micro_usd: 5, timeout_ms: 7, confirm_external: true}
nodes:
  - id: a
    use: agent:a@rust
    with: {deep: [{x: "{{ params.any }}"}], n: 0x10, f: 1.0, d: 2020-01-01, no: no}
    schema_hints: {out: {type: object}}
    retry: {max_attempts: 3, initial_ms: 10, max_ms: 100, multiplier: 1.5, jitter: 0.25}
    timeout_ms: 5
    budget_tokens: 6
    tags: [fast]
  - {id: b, use: agent:b@1.2.3}
edges: [{from: a.n >= 1.0, to: b.in}]
success: {all_of: [exists(b.out)]}
artifacts: {save: [b.out]}
"""
    )
    a = opening.nodes[0]
    assert opening.params == {
        "any": Param(),
        "text": Param(type="string", required=False, default="hello"),
        "size": Param(type="number", required=False, default=3, description="how big"),
        "list": Param(type="list", required=False),
    }
    assert opening.policy == Policy(budget_tokens=10, budget_micro_usd=1, timeout_ms=7, ask_micro_usd=5)
    assert a.with_ == {"deep": [{"x": "{{ params.any }}"}], "n": 16, "f": 1, "d": "2020-01-01", "no": "no"}
    assert a.retry == Retry(max_attempts=3, initial_ms=10, max_ms=100, multiplier=1.5, jitter=0.25)
    assert (a.timeout_ms, a.budget_tokens, a.tags) == (5, 6, ("fast",))
    assert a.schema_hints == {"out": {"type": "object"}}
    assert opening.edges[0].literal == 1
    assert Opening.from_json(opening.to_json()) == opening


def test_a_constant_backoff_does_not_grow_and_an_initial_one_does() -> None:
    def retry(terms: str) -> Retry:
        return load(f"{HEAD}nodes: [{{id: a, use: agent:a, retry: {{{terms}}}}}]").nodes[0].retry

    assert retry("max_attempts: 2, backoff_ms: 2500").multiplier == 1
    assert retry("max_attempts: 2, initial_ms: 2500").multiplier == 2
    assert retry("backoff_ms: 90000").max_ms == 90000


def test_places_and_spelling_are_no_part_of_the_digest() -> None:
    one = load(HEAD + NODES + "edges: [{from: a.x==1.0, to: b.in}]", name="one")
    two = load(
        "name: x\n\nversion: 0\n" + NODES + "edges:\n  - to: b.in\n    from: 'a.x   ==  1'", name="two"
    )
    assert one == two
    assert one.digest == two.digest
    assert one.digest != load(HEAD + NODES + "edges: [{from: a.x==2, to: b.in}]").digest


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.requirement("I2.faults.1")
def test_everything_that_is_wrong_is_found_at_once() -> None:
    text = """version: 1
name: Bad Name
gaols: [x]
params:
  who: {typ: string}
nodes:
  - id: a
    use: contact_resolver
    with: {q: "{{params.whom}} {{x}}"}
    retry: {max_attempts: 0, backoff_ms: 5, initial_ms: 2}
  - id: a
    use: agent:x
    id: b
  - {id: c, use: "opening:foo", timeout_ms: 1.5}
  - {id: d, use: agent:d, for_each: {port: x, concurrency: 0, max: 2}}
edges:
  - {from: a.out == , to: c.in}
  - {from: z.out, to: c.in.x}
  - from: a.out
  - {from: a.out ==1, to: c.in}
  - {from: a.out == 1, to: c.in}
  - {from: a.out.field, to: c.in}
success: {any_of: [exists(q.x)], all_of: []}
artifacts: {save: [a.out.b]}
policy: {confirm_external: false}
"""
    assert findings(text) == [
        "1:10 version",
        "2:7 name",
        "3:1 unknown_key",
        "5:9 unknown_key",
        "8:10 use",
        "9:15 template",
        "9:15 unknown_param",
        "10:27 type",
        "10:30 retry",
        "11:9 duplicate",
        "13:5 duplicate",
        "14:45 type",
        "15:60 type",
        "15:63 unknown_key",
        "17:20 expression",
        "18:12 unknown_node",
        "18:23 edge",
        "19:5 missing",
        "21:5 duplicate",
        "22:12 edge",
        "23:10 success",
        "24:20 artifact",
        "25:28 confirm",
    ]


def test_an_error_tells_place_reason_and_fix() -> None:
    with pytest.raises(OpeningError) as caught:
        load(HEAD + NODES + "egdes: []\n", name="my.yaml")
    error = caught.value
    assert str(error) == (
        "1 thing is wrong with the opening:\n"
        "  my.yaml:6:1: unknown key 'egdes' in the opening; nothing would read it; did you mean 'edges'?"
    )
    assert error.exit is Exit.USAGE
    assert error.to_wire()["data"]["findings"][0]["line"] == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1 empty"]),
        ("# nothing", ["1:1 empty"]),
        ("- 1", ["1:1 type"]),
        ("text", ["1:1 type"]),
        ("a: [", ["1:5 yaml"]),
        ("a: b: c", ["1:5 yaml"]),
        ("a: 'x", ["1:6 yaml"]),
        ("a:\n\t- 1", ["2:1 yaml"]),
        ("a: 1\nb: \x07", ["2:4 yaml"]),
        ("%YAML 9.9\n---\na: 1", ["1:1 yaml"]),
        ("a: *x", ["1:4 alias"]),
        ("a: &x [1]\nb: *x", ["1:4 alias", "2:4 alias"]),
        ("a: !!python/object:os.system 1", ["1:4 tag"]),
        ("a: !mine 1", ["1:4 tag"]),
        ("a: 1\n---\nb: 2", ["2:1 documents"]),
        ("[" * 30 + "]" * 30, ["1:25 depth"]),
        ("[" * 20000, ["1:25 depth"]),
        ("{a: " * 5000, ["1:97 depth"]),
        ("a: " + "x" * MAX_BYTES, ["1:1 size"]),
    ],
)
def test_a_text_that_is_no_yaml_of_ours_is_refused_before_anything_is_built(
    text: str, expected: list[str]
) -> None:
    about_what_it_says = {"missing", "unknown_key"}
    assert [found for found in findings(text) if found.split()[1] not in about_what_it_says] == expected


def test_too_many_nodes_are_one_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openings.keys.MAX_NODES", 500)
    assert findings(HEAD + "nodes: [" + "{id: a, use: agent:a}, " * 501 + "]") == ["3:8 size"]


def test_too_many_values_are_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openings.source.MAX_VALUES", 20_000)
    assert findings("a: [" + "1, " * 21000 + "]") == ["1:59996 size"]


@pytest.mark.requirement("I5.language.5")
def test_what_is_no_yaml_hides_nothing_of_what_can_be_read() -> None:
    """The bad line is left out; that it may have held what is missing now is no finding."""
    text = "version: 0\nname: X\nnodes:\n  - {id: a, use: agent:a, retri: 1}\n  - {id: b: c}\nedgse: []\n"
    assert findings(text) == ["2:7 name", "4:27 unknown_key", "5:11 yaml", "6:1 unknown_key"]


def test_an_alias_hides_nothing_of_what_can_be_read() -> None:
    text = "version: 0\nname: &n x\nnodes:\n  - {id: a, use: agent:a, with: *n, retri: 1}\n"
    assert findings(text) == ["2:7 alias", "4:33 alias", "4:37 unknown_key"]


def test_a_bomb_of_aliases_does_not_go_off() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    found = {f.split()[1] for f in findings("a0: &a0 x\n" + levels)}
    assert found == {"alias", "missing", "unknown_key"}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (".inf", "number"),
        (".nan", "number"),
        ("-.Inf", "number"),
        ("9007199254740993", "number"),
        ("1e400", "number"),
        ("0x" + "f" * 50, "number"),
        ('"\\ud800"', "text"),
    ],
)
def test_a_value_without_canonical_form_is_refused(value: str, code: str) -> None:
    assert findings(f"{HEAD}nodes:\n  - {{id: a, use: agent:a, with: {{x: {value}}}}}") == [f"4:37 {code}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\n" + NODES, ["1:1 missing"]),
        ("version: false\nname: x\n" + NODES, ["1:10 version"]),
        (HEAD, ["1:1 missing"]),
        (HEAD + "nodes: []", ["3:8 missing"]),
        (HEAD + "nodes:", ["3:7 missing"]),
        (HEAD + "nodes: 5", ["3:8 type"]),
        (HEAD + "nodes: [5]", ["3:9 type"]),
        (HEAD + "nodes: [{id: A, use: agent:a}]", ["3:14 name"]),
        (HEAD + "nodes: [{id: 5, use: agent:a}]", ["3:14 type"]),
        (HEAD + "nodes: [{id: a, use: 'agent:A b'}]", ["3:22 use"]),
        (HEAD + NODES + "edges: {a: b}", ["6:8 type"]),
        (HEAD + NODES + "edges: [{from: 5, to: []}]", ["6:16 type", "6:23 type"]),
        (HEAD + NODES + "edges: [{from: a.x, to: b.in == 1}]", ["6:25 edge"]),
        (HEAD + NODES + "edges: [{from: a.x, to: c.in}]", ["6:25 unknown_node"]),
        (HEAD + NODES + "success: {}", ["6:10 success"]),
        (HEAD + NODES + "success: [1]", ["6:10 type"]),
        (HEAD + NODES + "success: {any_of: []}", ["6:19 success"]),
        (HEAD + NODES + "success: {any_of: [a.x]}", ["6:23 expression"]),
        (HEAD + NODES + "success: {any_of: [5]}", ["6:20 type"]),
        (HEAD + NODES + "artifacts: {save: [c.x]}", ["6:20 unknown_node"]),
        (HEAD + NODES + "goals: text", ["6:8 type"]),
        (HEAD + NODES + "params: [x]", ["6:9 type"]),
        (HEAD + NODES + "params: {X: 1}", ["6:10 name"]),
        (HEAD + NODES + "params: {x: {type: int}}", ["6:20 type"]),
        (HEAD + NODES + "params: {x: {type: number, default: y}}", ["6:37 type"]),
        (HEAD + NODES + "policy: {budget_usd: -1}", ["6:22 type"]),
        (HEAD + NODES + "policy: {confirm_external: 'no'}", ["6:28 type"]),
        (HEAD + NODES + "? [a]\n: 1", ["6:3 key"]),
        (HEAD + "nodes: [{id: a, use: agent:a, retry: {jitter: 2}}]", ["3:47 type"]),
    ],
)
def test_each_mistake_has_its_place(text: str, expected: list[str]) -> None:
    assert findings(text) == expected


@given(st.text(max_size=200) | st.text("abv:01 -{}[]&*!|>'\"\n#,?%@`", max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        load(text)
    except OpeningError as error:
        assert error.findings


# --- files ----------------------------------------------------------------------------------------


def test_an_opening_is_found_by_name_in_the_first_directory_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "shared.yaml").write_text("x")
    (second / "other.yml").write_text("x")
    (second / "No-Name.yaml").write_text("x")
    dirs = [tmp_path / "missing", first, second]
    assert find("shared", dirs) == first / "shared.yaml"
    assert find("other", dirs) == second / "other.yml"
    assert sorted(catalogue(dirs)) == ["other", "shared"]
    assert find(str(second / "other.yml"), []) == second / "other.yml"


def test_an_opening_that_is_not_there_is_named_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "compose_email.yaml").write_text("x")
    with pytest.raises(NotFoundError) as caught:
        find("compose_mail", [tmp_path])
    assert caught.value.hint == "did you mean compose_email?"
    with pytest.raises(NotFoundError):
        find("./nothing.yaml", [tmp_path])
    with pytest.raises(NotFoundError):
        read(tmp_path / "gone.yaml")


def test_a_file_that_is_not_utf8_or_too_large_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"version: 0\nname: \xff\n")
    with pytest.raises(OpeningError) as caught:
        read(path)
    assert (caught.value.findings[0].code, caught.value.findings[0].line) == ("opening.encoding", 2)
    path.write_bytes(b"#" * (MAX_BYTES + 5))
    with pytest.raises(OpeningError, match="too large"):
        read(path)


# --- definitions from the ledger ------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"nodes": [{"id": "a"}]},
        {"edges": [{"from": ["a"], "to": ["b", "in"]}]},
        {"edges": [{"from": ["zz", "x"], "to": ["b", "in"]}]},
        {"edges": None},
        {"success": {"some_of": []}},
        {"policy": {"surprise": 1}},
        {"artifacts": {}},
    ],
)
def test_json_that_is_no_definition_is_refused(change: dict[str, object]) -> None:
    whole = load(HEAD + NODES).to_json()
    with pytest.raises(UsageError) as caught:
        Opening.from_json({**whole, **change})
    assert caught.value.named_code == "opening.shape"
