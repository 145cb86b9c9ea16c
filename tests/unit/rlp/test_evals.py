"""Golden tasks without a daemon: how a suite is read, when a check holds, what became of a task since."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openings.expressions import parse_condition
from rlp.evals import kept
from rlp.evals.checks import PREDICATES, Check, judge, numbers
from rlp.evals.suite import Allowed, SuiteError, locate, read
from runloop.errors import NotFoundError
from tests.contract import golden_scripts

FACTS = {
    "answer": {"text": "It is 1.240 euros, by 6 November.", "ok": True},
    "draft": {"to": ["a@example.org"]},
    "spent": {"calls": 3},
}


def at(path: str, predicate: str, want: Any) -> Check:
    return Check(that="", at=tuple(path.split(".")), predicate=predicate, want=want)


# --- checks ---------------------------------------------------------------------------------------


@pytest.mark.requirement("I6.eval.1")
@pytest.mark.parametrize(
    ("path", "predicate", "holds", "fails"),
    [
        ("draft.to", "is", ["a@example.org"], ["b@example.org"]),
        ("answer.ok", "is", True, 1),
        ("answer.text", "matches", "NOVEMBER", "december"),
        ("answer.text", "lacks", "december", "november"),
        ("answer.text", "number", 1240, 124),
        ("draft.to", "includes", ["a@example.org"], ["a@example.org", "b@example.org"]),
        ("draft.to", "excludes", ["b@example.org"], ["a@example.org"]),
        ("spent", "schema", {"required": ["calls"]}, {"required": ["turns"]}),
        ("answer.ok", "schema", {"type": "boolean"}, {"type": "string"}),
    ],
    ids=[
        "is",
        "is-of-its-type",
        "matches",
        "lacks",
        "number",
        "includes",
        "excludes",
        "schema",
        "schema-type",
    ],
)
def test_every_predicate_can_hold_and_can_fail(path: str, predicate: str, holds: Any, fails: Any) -> None:
    assert judge(at(path, predicate, holds), FACTS) == ""
    assert judge(at(path, predicate, fails), FACTS).startswith(path)


def test_every_predicate_fails_where_there_is_nothing_and_on_the_wrong_kind() -> None:
    wants = {"number": 1, "includes": ["x"], "excludes": ["x"], "schema": {"type": "null"}}
    for predicate in PREDICATES:
        assert judge(at("answer.nothing", predicate, wants.get(predicate, "x")), FACTS) == (
            "there is no answer.nothing"
        )
        if predicate != "is":
            odd = {"includes": "answer.text", "excludes": "answer.text"}.get(predicate, "answer.ok")
            assert judge(at(odd, predicate, wants.get(predicate, "x")), FACTS)


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        ("spent.calls <= 3", ""),
        ("spent.calls <= 2", "it is 3"),
        ("spent.turns <= 3", "holds nothing"),
        ('answer.ok == "yes"', "makes no sense"),
    ],
)
def test_an_expression_of_openings_is_a_check(expr: str, why: str) -> None:
    said = judge(Check(that="", expr=parse_condition(expr)), FACTS)
    assert (why in said) if why else said == ""


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("240 000 euros", 240000),
        ("240,000", 240000),
        ("240.000,50", Decimal("240000.50")),
        ("12 400,50", Decimal("12400.50")),
        ("3.5 hours", Decimal("3.5")),
        ("in 2026 there were 28.", 28),
        ("85000", 85000),
    ],
)
def test_a_number_is_found_however_it_is_written(text: str, meant: int | Decimal) -> None:
    assert Decimal(meant) in numbers(text)


def test_parts_of_a_number_are_no_numbers() -> None:
    assert Decimal(240) not in numbers("240 000")
    assert Decimal(85) not in numbers("85,000")
    assert numbers("version 1.2.3") == set()


@given(st.text(max_size=200), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5))
def test_no_answer_of_a_model_makes_a_check_raise(text: str, value: Any) -> None:
    facts = {"answer": {"text": text, "value": value}}
    for name, want in (("number", 1), ("matches", "x"), ("schema", {"type": "object"}), ("includes", ["x"])):
        judge(at("answer.text", name, want), facts)
        judge(at("answer.value", name, want), facts)


def test_json_in_a_fence_is_json() -> None:
    facts = {"answer": {"text": '```json\n{"a": 1}\n```'}}
    assert judge(at("answer.text", "schema", {"required": ["a"]}), facts) == ""
    assert "no JSON" in judge(at("answer.text", "schema", {"required": ["a"]}), {"answer": {"text": "a: 1"}})


# --- suites ---------------------------------------------------------------------------------------


def test_the_shipped_suite_has_its_tasks_each_with_a_script_that_does_it() -> None:
    suite = read(locate(None))
    assert len(suite.tasks) >= 30
    wishes = {task.id for task in suite.tasks if task.asks[0].wish}
    assert wishes == set(golden_scripts.RIGHT)
    assert suite.threshold > 0
    starts = [golden_scripts.wish_of(task) for task in suite.tasks if task.id in wishes]
    assert len(set(starts)) == len(starts)


def a_suite(
    folder: Path, task: str, head: str = 'version = 0\nname = "own"\n[homes.a]\nimport = ["n.md"]'
) -> Path:
    (folder / "suite.toml").write_text(head)
    (folder / "n.md").write_text("# A note\n")
    (folder / "t.toml").write_text(task)
    return folder


GOOD = """
[[task]]
id = "own.one"
tests = "something"
approve = [{ op = "mail.send", to = ["b@example.org", "a@example.org"] }]
wish = "Do it."
check = [{ expr = "answer.ok == true" }]
"""


def test_a_suite_of_ones_own_is_read(tmp_path: Path) -> None:
    (task,) = read(locate(str(a_suite(tmp_path, GOOD)))).tasks
    assert (task.home, task.alone, task.offline, task.limit_s) == ("a", False, "fail", 300)
    assert task.asks[0].approve == (Allowed("mail.send", ("a@example.org", "b@example.org")),)


def test_a_changed_file_of_a_suite_is_another_suite(tmp_path: Path) -> None:
    before = read(a_suite(tmp_path, GOOD)).digest
    (tmp_path / "n.md").write_text("# Another note\n")
    assert read(tmp_path).digest != before


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("wish =", "whish =", "did you mean 'wish'?"),
        ('wish = "Do it."', "", "a wish or an opening"),
        ('wish = "Do it."', 'wish = "Do it."\nopening = "../../etc/passwd.yaml"', "one of them"),
        ('wish = "Do it."', 'opening = "../elsewhere.yaml"', "not in the suite's folder"),
        ('{ expr = "answer.ok == true" }', "", "a task that cannot fail says nothing"),
        ('expr = "answer.ok == true"', 'expr = "answer.ok = true"', "is not understood"),
        ('expr = "answer.ok == true"', 'at = "answer.text"', "it needs expr, or at with one of"),
        ('expr = "answer.ok == true"', 'at = "answer.text", matches = "("', "no pattern"),
        ('expr = "answer.ok == true"', 'at = "answer.text", number = "1"', "it wants a number"),
        ('expr = "answer.ok == true"', 'at = "answer.text", schema = { type = 1 }', "no JSON Schema"),
        ('expr = "answer.ok == true"', 'at = "used", includes = []', "a list that is not empty"),
        ('id = "own.one"', 'id = "own.one"\nhome = "b"', "is none of this suite"),
        ('id = "own.one"', 'id = "Own one"', "id must be words"),
        ("approve = [{ op", "approve = [{ what", "approve is a list of"),
        ("[[task]]", "[[tasks]]", "did you mean 'task'?"),
        ("[[task]]", "[[task", "it cannot be read"),
        (GOOD, GOOD + GOOD, "is there twice"),
    ],
    ids=[
        *("key", "no-wish", "both", "outside", "no-check", "expression", "no-predicate", "pattern", "number"),
        *("schema", "empty", "home", "id", "approve", "table", "toml", "twice"),
    ],
)
def test_every_mistake_in_a_suite_is_told(tmp_path: Path, was: str, now: str, said: str) -> None:
    assert was in GOOD
    with pytest.raises(SuiteError) as caught:
        read(a_suite(tmp_path, GOOD.replace(was, now)))
    assert any(said in finding for finding in caught.value.data["findings"]), caught.value.data


def test_a_link_out_of_a_suite_is_not_followed(tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    a_suite(suite, GOOD)
    (tmp_path / "secret.md").write_text("secret")
    (suite / "n.md").unlink()
    (suite / "n.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(SuiteError):
        read(suite)


def test_a_suite_that_is_nowhere_is_said(tmp_path: Path) -> None:
    for named in (str(tmp_path), "no-such", "../golden"):
        with pytest.raises(NotFoundError):
            locate(named)


# --- earlier results ------------------------------------------------------------------------------


def result(
    ms: int, digest: str = "d", models: tuple[str, ...] = ("m",), **tasks: list[int]
) -> dict[str, Any]:
    return {"ms": ms, "suite": "own", "digest": digest, "models": list(models), "tasks": tasks}


def test_what_became_better_and_worse_is_told_of_results_that_compare(tmp_path: Path) -> None:
    kept.keep(tmp_path, result(1, a=[1, 1], b=[0, 1]))
    kept.keep(tmp_path, result(2, a=[0, 1]))
    kept.keep(tmp_path, result(3, models=("other",), a=[1, 1]))
    kept.keep(tmp_path, result(4, digest="e", a=[1, 1]))
    kept.keep(tmp_path, result(5, a=[2, 3], b=[1, 1]))
    kept.keep(tmp_path, {**result(6), "suite": "another"})
    rows = kept.rows(kept.earlier(tmp_path, "own"))
    assert [(row["passed"], row["better"], row["worse"]) for row in rows] == [
        (1, [], []),
        (0, [], ["a"]),
        (1, [], []),
        (1, [], []),
        (1, ["a", "b"], []),
    ]


def test_a_broken_line_of_results_hides_no_other(tmp_path: Path) -> None:
    kept.keep(tmp_path, result(1, a=[1, 1]))
    with (tmp_path / "eval" / "results.jsonl").open("a") as file:
        file.write(
            '{"suite": "own", "ms": 1, "tasks": {"a": 1}}\n[[[[\nnull\n' + json.dumps(result(2)) + "\n"
        )
    assert [one["ms"] for one in kept.earlier(tmp_path, "own")] == [1, 2]
    assert (tmp_path / "eval" / "results.jsonl").stat().st_mode & 0o777 == 0o600
