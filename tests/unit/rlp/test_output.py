"""Tables, JSON lines, colour, errors in words."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest

import rlp
from rlp.__main__ import hung
from rlp.output import Console, Style, columns_of, error_lines, words
from runloop.errors import NotFoundError, UsageError
from runloop.quantities import ago, brief_moment, dollars, moment, size


def console(**style: bool) -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Console(out, err, Style(**style)), out, err


def test_a_table_has_one_line_per_row_and_aligned_columns() -> None:
    shown, out, _ = console()
    shown.rows([{"a": "1", "b": None}, {"a": "日本", "b": ["x", "y"]}], ("a", "b"))
    assert out.getvalue() == "a     b\n1     -\n日本  x, y\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_at(width: int, rows: list[dict[str, str]]) -> list[str]:
    out = Terminal()
    Console(out, io.StringIO(), Style(), width=width).rows(rows, tuple(rows[0]))
    return out.getvalue().splitlines()


def test_a_table_that_a_terminal_cannot_hold_folds_its_widest_column_between_words() -> None:
    rows = [{"id": "n-1", "title": "Plan", "text": "the budget of the fourth quarter"}]
    assert shown_at(30, rows) == [
        "id   title  text",
        "n-1  Plan   the budget of the",
        "            fourth quarter",
    ]
    assert shown_at(80, rows) == ["id   title  text", "n-1  Plan   the budget of the fourth quarter"]


def test_where_a_table_would_cut_words_every_row_is_a_record_without_its_empty_cells() -> None:
    rows = [
        {"id": "a" * 16, "who": "agent:contact_resolver", "what": ""},
        {"id": "b", "who": "x", "what": "y"},
    ]
    assert shown_at(36, rows) == [
        f"id    {'a' * 16}",
        "who   agent:contact_resolver",
        "",
        "id    b",
        "who   x",
        "what  y",
    ]


@pytest.mark.parametrize("width", [20, 30, 40, 60])
def test_no_foreign_text_in_a_table_begins_a_line_of_a_terminal(width: int) -> None:
    forged = "a word and more and more " * 3 + "ours-1  forged " * 3
    lines = shown_at(width, [{"id": "ours-1", "said": forged, "by": forged}])
    assert all(columns_of(line) <= width for line in lines)
    assert not [line for line in lines[1:] if line.startswith("ours-1  forged")]
    assert len([line for line in lines if line.startswith("ours-1")]) <= 1


@pytest.mark.parametrize("width", [40, 60, 79])
def test_a_help_page_in_a_narrow_terminal_has_whole_words_in_its_columns(width: int) -> None:
    pages = (Path(rlp.__file__).parent / "_help.txt").read_text(encoding="utf-8")
    for line in pages.splitlines():
        rows = hung(line, width).split("\n")
        assert " ".join(" ".join(rows).split()) == " ".join(line.split())
        assert all(len(row) <= width or " " not in row.strip() for row in rows)
        assert len({len(row) - len(row.lstrip()) for row in rows[1:]}) <= 1


def test_with_json_every_row_is_one_object_with_every_key() -> None:
    shown, out, _ = console(json=True)
    shown.rows([{"a": 1, "hidden": True}, {"a": 2}], ("a",))
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [{"a": 1, "hidden": True}, {"a": 2}]


def test_an_empty_table_says_so_on_stderr_and_prints_nothing() -> None:
    shown, out, err = console()
    shown.rows([], ("a",), empty="nothing here")
    assert (out.getvalue(), err.getvalue()) == ("", "nothing here\n")


def test_quiet_silences_talk_but_neither_data_nor_what_must_be_said() -> None:
    shown, out, err = console(quiet=True)
    shown.say("talk")
    shown.detail("more talk")
    shown.data("data")
    shown.note("needed")
    assert (out.getvalue(), err.getvalue()) == ("data\n", "needed\n")


def test_only_verbose_shows_details() -> None:
    plain, _, err = console()
    plain.detail("x")
    assert err.getvalue() == ""
    wordy, _, err = console(verbose=True)
    wordy.detail("x")
    assert err.getvalue() == "x\n"


def test_colour_is_ours_alone() -> None:
    shown, out, _ = console(color=True)
    shown.data("\x1b[31mred", "green")
    assert out.getvalue() == "\x1b[32m\\x1b[31mred\x1b[0m\n"


@pytest.mark.requirement("I2.user.17")
def test_an_error_says_what_and_the_next_thing_to_type() -> None:
    error = NotFoundError("there is no run 12", hint="'rlp runs' lists them", run="12")
    assert error_lines(error) == ["rlp: there is no run 12 (run 12); 'rlp runs' lists them"]


def test_findings_are_one_line_each_with_their_places() -> None:
    findings = [
        {
            "file": "a.yaml",
            "line": 3,
            "column": 5,
            "what": "unknown key 'nods'",
            "why": "it is not one",
            "fix": "nodes",
        },
        {"file": "a.yaml", "line": 0, "column": 0, "what": "w", "why": "", "fix": "f", "severity": "warning"},
    ]
    assert error_lines(UsageError("all\nof it", findings=findings)) == [
        "rlp: a.yaml:3:5: unknown key 'nods'; it is not one; nodes",
        "rlp: a.yaml: warning: w; f",
        "rlp: 2 findings; nothing was done",
    ]
    assert error_lines(UsageError("all", findings=findings[:1]))[0].startswith("rlp: a.yaml:3:5:")
    assert error_lines(UsageError("x", findings=["one", "two"]))[:2] == ["rlp: one", "rlp: two"]


@pytest.mark.requirement("I2.user.17")
def test_with_json_an_error_is_an_object_on_stdout_too() -> None:
    shown, out, err = console(json=True)
    shown.error(UsageError("no", hint="yes", code="a.b"))
    assert json.loads(out.getvalue())["error"] == {
        "code": "a.b",
        "family": "usage",
        "message": "no",
        "hint": "yes",
        "data": {},
    }
    assert err.getvalue() == "rlp: no; yes\n"


def test_sizes_and_times_read_like_people_write_them() -> None:
    sizes = [size(312), size(4_198), size(2_097_152), size(3 * 1024**3)]
    assert sizes == ["312 B", "4.1 KiB", "2.0 MiB", "3.0 GiB"]
    assert [ago(340), ago(12_000), ago(300_000), ago(10_800_000), ago(200_000_000)] == [
        "340 ms",
        "12.0 s",
        "5 min",
        "3 h",
        "2 days",
    ]
    assert len(moment(1_750_000_000_000)) == 19


def test_cells_have_words_for_everything() -> None:
    assert [words(None), words(""), words(True), words(False), words([]), words({"a": 1}), words(3)] == [
        "-",
        "-",
        "yes",
        "no",
        "-",
        '{"a":1}',
        "3",
    ]
    assert columns_of("e\u0301") == 1


def test_money_is_exact_and_as_short_as_it_can_be() -> None:
    assert [dollars(amount) for amount in (0, 500_000, 2_100, 1_000_001, -10_000, 10**15 + 1)] == [
        "$0.00",
        "$0.50",
        "$0.0021",
        "$1.000001",
        "-$0.01",
        "$1000000000.000001",
    ]
    assert [dollars(15_000_000, digits=0), dollars(150_000, digits=0)] == ["$15", "$0.15"]
    assert dollars(900, digits=6) == "$0.000900"


def test_a_moment_is_as_short_as_it_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now = 1_795_276_800_000  # 2026-11-21 16:00 UTC
    assert brief_moment(now - 1_000, now) == "15:59:59"
    assert brief_moment(now - 86_400_000, now) == "11-20 16:00"
    assert brief_moment(now - 366 * 86_400_000, now) == "2025-11-20"
    monkeypatch.undo()
    time.tzset()


def test_prose_in_a_table_is_broken_before_the_table_is_given_up() -> None:
    rows = [{"run": "0b7c3f52", "error": "no_contact_matches_a_very_long_word_of_one_piece at all"}]
    out = Terminal()
    Console(out, io.StringIO(), Style(), width=30).rows(rows, ("run", "error"), prose=("error",))
    lines = out.getvalue().splitlines()
    assert lines[0] == "run       error" and all(columns_of(line) <= 30 for line in lines)
    assert "".join(line[10:] for line in lines[1:]).replace(" ", "") == rows[0]["error"].replace(" ", "")


@pytest.mark.requirement("I7.theme.1")
@pytest.mark.parametrize(
    ("theme", "painted"),
    [
        ("runloop", "\x1b[33mcareful\x1b[0m"),
        ("runloop-light", "\x1b[35mcareful\x1b[0m"),
        ("high-contrast", "\x1b[1;93mcareful\x1b[0m"),
        ("none", "careful"),
    ],
)
def test_colours_are_those_of_the_theme(theme: str, painted: str) -> None:
    style = Style(color=True, theme=theme)
    assert Console(io.StringIO(), io.StringIO(), style).paint("careful", "yellow") == painted
    assert (
        Console(io.StringIO(), io.StringIO(), style._replace(color=False)).paint("careful", "dim")
        == "careful"
    )
