"""Words into calls, and the table they are read by."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlp import generate
from rlp.__main__ import main, show_help
from rlp.parse import Call, Prompt, WantsHelp, parse
from rlp.table import COMMANDS, GLOBAL, GROUPS, find
from runloop.errors import UsageError


def call(*words: str) -> Call:
    parsed = parse(list(words))
    assert isinstance(parsed, Call)
    return parsed


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_every_row_has_a_function_that_takes_exactly_its_values(command: object) -> None:
    module, _, name = command.target.partition(":")  # type: ignore[attr-defined]
    function = getattr(importlib.import_module(f"rlp.commands.{module}"), name)
    _, *parameters = inspect.signature(function).parameters.values()
    wanted = [one.name for one in (*command.arguments, *command.options)]  # type: ignore[attr-defined]
    assert sorted(parameter.name for parameter in parameters) == sorted(wanted)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)


def test_names_are_told_apart() -> None:
    paths = [command.path for command in COMMANDS]
    assert len(set(paths)) == len(paths)
    assert not set(GROUPS) & set(paths)
    for command in COMMANDS:
        flags = [flag for option in (*GLOBAL, *command.options) for flag in option.flags]
        assert len(set(flags)) == len(flags), command.path
        assert not {"-h", "--help"} & set(flags)
        assert [one.many for one in command.arguments[:-1]] == [False] * (
            len(command.arguments) - 1 if command.arguments else 0
        )


@pytest.mark.requirement("I2.user.17")
def test_help_and_reference_page_are_fresh() -> None:
    root = Path(generate.__file__).parent.parent
    assert (root / "rlp" / "_help.txt").read_text() == generate.help_file(), "python -m rlp.generate"
    assert (root / "docs" / "reference" / "cli.md").read_text() == generate.reference_page()


@pytest.mark.parametrize("path", ["", *GROUPS, *(command.path for command in COMMANDS)])
def test_every_command_has_a_help_text_that_fits_a_terminal(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_help(path) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: rlp {path}".rstrip())
    assert max(map(len, text.splitlines())) <= 80


# --- parsing --------------------------------------------------------------------------------------


def test_options_stand_anywhere_and_in_every_spelling() -> None:
    for words in (
        ["run", "x", "-p", "a=1", "--param", "b=2", "--json"],
        ["--json", "run", "-pa=1", "--param=b=2", "x"],
        ["run", "-p", "a=1", "x", "--json", "-p=b=2"],
    ):
        parsed = call(*words)
        assert parsed.values == {"opening": "x", "params": ("a=1", "b=2"), "detach": False}
        assert parsed.globals["json"] is True


def test_flags_join_and_numbers_stick() -> None:
    assert call("runs", "-qvn5").values == {"limit": 5, "schedule": None, "tree": False}
    assert call("runs", "-qv").globals["quiet"] is True
    assert call("runs").values == {"limit": 20, "schedule": None, "tree": False}


def test_a_global_value_between_words_is_no_command() -> None:
    parsed = call("--home", "run", "kb", "--json", "search", "a", "b")
    assert parsed.command.path == "kb search"
    assert parsed.globals["home"] == "run"
    assert parsed.values["query"] == ("a", "b")


def test_after_two_dashes_everything_is_an_argument() -> None:
    assert call("why", "--", "--json", "-p").values["prompt"] == ("--json", "-p")


def test_a_command_named_like_its_own_argument_is_taken_once() -> None:
    assert call("run", "run").values["opening"] == "run"
    assert call("kb", "why", "why").values["ref"] == "why"


def test_optional_arguments_may_stay_away() -> None:
    assert call("cap", "list").values == {"agent": None}
    assert call("cap", "revoke", "--token", "t").values == {"agent": None, "capability": None, "token": "t"}


def test_a_negative_number_is_an_argument() -> None:
    assert call("kb", "query", "-1").values["sql"] == "-1"


def test_several_words_in_quotes_are_a_prompt() -> None:
    parsed = parse(["write a mail to john", "--json", "-p", "tone=dry"])
    assert isinstance(parsed, Prompt)
    assert parsed.text == "write a mail to john"
    assert parsed.globals["json"] is True
    assert parsed.values == {"params": ("tone=dry",), "continued": False, "detach": False}


@pytest.mark.parametrize("words", [["-c", "and then what?"], ["and then what?", "--continue"]])
def test_a_prompt_may_go_on_from_the_last_one(words: list[str]) -> None:
    parsed = parse(words)
    assert isinstance(parsed, Prompt)
    assert parsed.values["continued"] is True


@pytest.mark.parametrize(
    ("words", "path"),
    [(["run", "--help"], "run"), (["kb", "-h"], "kb"), (["-h", "kb", "query"], "kb query"), (["--json"], "")],
)
def test_help_is_for_what_was_named(words: list[str], path: str) -> None:
    assert parse(words) == WantsHelp(path)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["rnus"], "'rnus' is not a command", "did you mean 'rlp runs'?"),
        (["kb", "serch"], "'kb serch' is not a command", "did you mean 'rlp kb search'?"),
        (["kb"], "'kb' needs one more word", "query, search, why"),
        (["run"], "'rlp run' needs OPENING", "rlp run --help"),
        (["why"], "needs PROMPT", "--help"),
        (["run", "x", "--parm", "a"], "has no option --parm", "did you mean '--param'?"),
        (["run", "x", "-Z"], "has no option -Z", "lists its options"),
        (["run", "x", "-p"], "-p needs a value", "NAME=VALUE"),
        (["run", "x", "y"], "does not take 'y'", "quote"),
        (["doctor", "y"], "does not take 'y'", "leave it out"),
        (["runs", "-n", "many"], "needs a number", "1 to"),
        (["runs", "-n", "0"], "needs a number", "1 to"),
        (["runs", "--json=yes"], "takes no value", "--json alone"),
        (["write", "a", "mail"], "'write' is not a command", "quote the whole prompt"),
        (["zzzzqq"], "'zzzzqq' is not a command", "rlp --help"),
    ],
)
def test_what_is_not_understood_gets_the_next_thing_to_type(
    words: list[str], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@given(
    st.lists(
        st.sampled_from(
            ["run", "kb", "query", "-p", "--json", "--", "a b", "x", "--home", "-n", "-", "--x=1", "-qn", ""]
        )
    )
)
def test_no_command_line_does_anything_but_parse_or_refuse(words: list[str]) -> None:
    try:
        parsed = parse(words)
    except UsageError as error:
        assert error.hint
    else:
        assert isinstance(parsed, Call | Prompt | WantsHelp)


def test_the_parser_and_typer_read_a_command_line_alike() -> None:
    import typer

    from rlp.typer_app import application

    seen: list[tuple[str, dict[str, object]]] = []
    root = typer.main.get_command(application(lambda command, values: seen.append((command.path, values))))
    for words in (
        ["run", "x", "-p", "a=1", "--param=b", "-d"],
        ["kb", "query", "SELECT 1", "-n", "7", "-p", "x"],
        ["kb", "search", "a", "b", "--kind", "mail"],
        ["cap", "revoke", "mailer"],
        ["daemon", "stop", "--now", "-q"],
        ["approve", "ap_1", "--note", "fine", "-y"],
        ["logs", "--grep", "x", "--home", "/h", "--json"],
    ):
        root.main(words, prog_name="rlp", standalone_mode=False)
        path, values = seen.pop()
        ours = call(*words)
        theirs = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        assert (path, theirs) == (ours.command.path, {**ours.globals, **ours.values})


# --- stage one ------------------------------------------------------------------------------------


def test_the_first_stage_answers_help_and_version_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["help"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("Usage: rlp ")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rlp ")
    assert find(["nothing"]) is None


def test_help_imports_nothing_of_ours_or_anybody_elses() -> None:
    import os
    import subprocess
    import sys

    code = (
        "import sys; before = set(sys.modules); from rlp.__main__ import main; main(['--help']);"
        "print(sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    assert done.stderr.strip() == "['__future__', 'rlp', 'rlp.__main__']"


def test_no_command_loads_what_is_heavy_before_it_needs_it() -> None:
    """A tenth of a second before the first useful instruction is felt at every command."""
    import os
    import subprocess
    import sys

    serving = ("a2a", "acp:", "mcp_serve")  # programs that stay
    modules = {
        f"rlp.commands.{c.target.partition(':')[0]}" for c in COMMANDS if not c.target.startswith(serving)
    }
    heavy = (
        "asyncio rich textual typer ruamel httpx2 jsonschema mcp acp wasmtime cryptography structlog "
        "email.message"
    )
    code = (
        f"import sys, rlp.app, rlp.session, rlp.commands.prompt, {', '.join(sorted(modules))};"
        f"print(*[name for name in '{heavy}'.split() if name in sys.modules])"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    assert done.stdout.split() == []


def test_an_interruption_while_the_parts_are_loaded_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("rlp.app.run", interrupted)
    assert main(["runs"]) == 130
    assert capsys.readouterr().err == "rlp: interrupted\n"
