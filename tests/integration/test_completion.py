"""What the Tab key offers behind ``rlp``, in real shells that find no program at all.

Every shell here has a PATH with nothing in it: what it offers, it offers without starting anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlp.completing import KINDS, SHELLS, kind_of
from rlp.generate import scripts
from rlp.table import COMMANDS
from runloopd.gateway.names import HEAD
from tests.integration.test_shell_prompt import Terminal

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "packaging" / "shell"
NAMES = f"""{HEAD}
run\t0b7c3f52\tcompose_email, succeeded
run\t0c000000\tmarket, failed
node\t0b7c3f52@draft\tsucceeded
node\t0b7c3f52@send\twaiting
node\t0c000000@other\tfailed
approval\tap_1234567890abcdef\tmail.send by send
schedule\tmorning_mail\tcompose_email
secret\trunloop/models/openai\t
agent\tacme_words\tversion 0.2.0
run\t$(touch${{IFS}}owned)\tforged
run\tx;y\tforged
"""
_PRINT = 'source "$1"; shift; COMP_LINE=$1 COMP_POINT=${#1}; _rlp; printf "%s\\n" "${COMPREPLY[@]}"'
_COLLECT = r"""
compadd() { local -a found=("${(@P)@[-1]}"); print -rl -- "${(@M)found:#${PREFIX}*}"; }
_files() {
    local -a found
    if [[ $1 == -/ ]]; then found=($PREFIX*(N/)); else found=($PREFIX*(N)); fi
    print -rl -- $found
}
compset() { PREFIX=${PREFIX#*=}; }
source $1
words=(${(z)2}) CURRENT=${#words}
[[ $2 == *" " ]] && words+=('') && CURRENT=${#words}
PREFIX=$words[CURRENT]
_rlp
"""
"""zsh, as far as a completion sees it: what it would offer is printed instead."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A place with names, one opening of its own, and files whose names would be commands."""
    place = tmp_path / "home"
    (place / "cache").mkdir(parents=True)
    (place / "cache" / "names").write_text(NAMES)
    for folder, name in (("openings", "brew_tea.yaml"), ("openings", "$(touch owned).yaml")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).touch()
    (place / "openings").mkdir()
    (place / "openings" / "at_home.opening").touch()
    (tmp_path / "agents" / "my_agent").mkdir(parents=True)
    (tmp_path / "agents" / "my_agent" / "manifest.toml").touch()
    (tmp_path / "some_file.vcf").touch()
    return place


def offered(shell: str, line: str, home: Path) -> set[str]:
    """The words a shell offers at the end of a line; what they are about is left out."""
    program = shutil.which(shell)
    assert program, f"apt install {shell}"
    env = {"PATH": "/nowhere", "HOME": str(home.parent), "RUNLOOP_HOME": str(home), "LANG": "C.UTF-8"}
    script = str(SCRIPTS / f"completion.{shell}")
    if shell == "bash":
        argv = [program, "--norc", "--noprofile", "-c", _PRINT, "bash", script, line]
    elif shell == "zsh":
        argv = [program, "-f", "-c", _COLLECT, "zsh", script, line]
    else:
        argv = [program, "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", script, line]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=home.parent, timeout=60)
    assert done.stderr == "", done.stderr
    return {row.partition("\t")[0] for row in done.stdout.splitlines()} - {""}


@pytest.mark.requirement("I7.complete.1")
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rlp sche", {"schedule"}),
        ("rlp --json schedule r", {"rm", "run-now"}),
        ("rlp kb bac", {"backup"}),
        ("rlp trace 0", {"0b7c3f52", "0c000000"}),
        ("rlp -v diff 0b7c3f52 0c", {"0c000000"}),
        ("rlp retry 0b7c3f52 ", {"draft", "send"}),
        ("rlp fork 0b7c3f52 --mo", {"--model"}),
        ("rlp approve ap", {"ap_1234567890abcdef"}),
        ("rlp secret rm run", {"runloop/models/openai"}),
        ("rlp schedule pause ", {"morning_mail"}),
        ("rlp run co", {"compose_email"}),
        ("rlp run b", {"brew_tea"}),
        ("rlp plan at", {"at_home"}),
        ("rlp run compose_email -p rec", {"recipient="}),
        ("rlp run compose_email -p topic='Q4 plan' -p to", {"topic=", "tone="}),
        ("rlp agent show ac", {"acme_words"}),
        ("rlp agent show my", {"my_agent"}),
        ("rlp config get security.und", {"security.undo_window_ms"}),
        ("rlp shell enable --key ", {"enter", "own"}),
        ("rlp shell enable z", {"zsh"}),
        ("rlp import some", {"some_file.vcf"}),
        ("rlp trace --no-c", {"--no-color"}),
        ("rlp trace 0b7c3f52 ", set()),
        ("rlp nonsense ", set()),
        ("rlp -- wish", set()),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(sorted(value)),
)
def test_words_that_may_stand_there_are_offered(shell: str, line: str, words: set[str], home: Path) -> None:
    assert offered(shell, line, home) == words


@pytest.mark.parametrize("shell", SHELLS)
def test_a_home_that_is_named_on_the_line_is_the_one_asked(shell: str, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "cache").mkdir(parents=True)
    (other / "cache" / "names").write_text(f"{HEAD}\nrun\tdddd0000\tx, failed\n")
    assert offered(shell, f"rlp --home {other} trace ", home) == {"dddd0000"}
    assert offered(shell, f"rlp --home={other} trace ", home) == {"dddd0000"}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "content", [None, "", "runloop-names 2\nrun\tdddd0000\tx\n"], ids=["none", "empty", "newer"]
)
def test_without_a_file_of_names_that_it_knows_a_shell_offers_the_rest(
    shell: str, content: str | None, home: Path
) -> None:
    file = home / "cache" / "names"
    file.unlink() if content is None else file.write_text(content)
    assert offered(shell, "rlp trace ", home) == set()
    assert offered(shell, "rlp trac", home) == {"trace"}


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("shell", SHELLS)
def test_no_name_that_a_shell_could_execute_is_offered(shell: str, home: Path) -> None:
    for line in ("rlp trace ", "rlp run ", "rlp cancel x"):
        for word in offered(shell, line, home):
            assert "$" not in word and ";" not in word and " " not in word
    assert not [*home.parent.glob("owned*")]


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_file_that_is_called_like_an_option_is_not_offered(shell: str, home: Path) -> None:
    (home.parent / "openings" / "--home=elsewhere.yaml").touch()
    (home.parent / "agents" / "--yes").mkdir()
    (home.parent / "agents" / "--yes" / "manifest.toml").touch()
    for line, known in (("rlp run ", "brew_tea"), ("rlp agent show ", "my_agent")):
        found = offered(shell, line, home)
        assert known in found
        assert not [word for word in found if word.startswith("-")]


def test_zsh_finds_it_in_its_path_of_functions(home: Path) -> None:
    program, folder = shutil.which("zsh"), home.parent / "site-functions"
    assert program
    folder.mkdir()
    shutil.copy(SCRIPTS / "completion.zsh", folder / "_rlp")
    collect = _COLLECT.replace("source $1", "fpath=($1 $fpath); autoload -U _rlp")
    argv = [program, "-f", "-c", collect, "zsh", str(folder), "rlp trace 0b"]
    env = {"PATH": "/nowhere", "HOME": str(home.parent), "RUNLOOP_HOME": str(home)}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=home.parent, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["0b7c3f52"], "")


# --- a person at a terminal -----------------------------------------------------------------------

_STARTS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}
_READY = {
    "bash": "PS1='READY '; source {script}\r",
    "zsh": "PROMPT='READY '; unsetopt beep; autoload -U compinit; compinit -D -u; source {script}\r",
    "fish": "function fish_prompt; echo -n 'READY '; end; source {script}\r",
}


@pytest.fixture(params=SHELLS)
def at_prompt(request: pytest.FixtureRequest, home: Path) -> Iterator[Terminal]:
    shell = request.param
    program = shutil.which(shell)
    assert program, f"apt install {shell}"
    env = {"PATH": "/nowhere", "HOME": str(home.parent), "RUNLOOP_HOME": str(home), "LANG": "C.UTF-8"}
    env |= {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    opened = Terminal([program, *_STARTS[shell]], env, home.parent)
    opened.type(_READY[shell].format(script=SCRIPTS / f"completion.{shell}"))
    opened.until("READY ")
    yield opened
    opened.close()


@pytest.mark.requirement("I7.complete.1")
def test_at_a_real_prompt_tab_completes_commands_and_names(at_prompt: Terminal) -> None:
    at_prompt.type("rlp schedu\t")
    at_prompt.until("schedule ")
    at_prompt.type("pau\t")
    at_prompt.until("pause")
    at_prompt.type("mor\t")
    at_prompt.until("ning_mail")
    at_prompt.type("\x15rlp retry 0b\t")
    at_prompt.until("7c3f52")
    at_prompt.type("dr\t")
    at_prompt.until("aft")


# --- the scripts themselves -----------------------------------------------------------------------


def test_the_scripts_are_as_the_table_says() -> None:
    for file, text in scripts(ROOT):
        assert file.read_text(encoding="utf-8") == text, "run 'python -m rlp.generate'"


def test_every_argument_and_option_takes_a_kind_of_word_that_the_scripts_know() -> None:
    texts = {shell: (SCRIPTS / f"completion.{shell}").read_text(encoding="utf-8") for shell in SHELLS}
    for command in COMMANDS:
        for part in (*command.arguments, *command.options):
            kind = kind_of(command.path, part)
            assert kind in KINDS or kind.startswith("words,"), (command.path, part.name, kind)
    assert all("/cache/names" in text and HEAD in text for text in texts.values())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_the_script_without_a_word(shell: str) -> None:
    program = shutil.which(shell)
    assert program
    done = subprocess.run(
        [program, "-c", f"source {SCRIPTS / f'completion.{shell}'}"],
        capture_output=True,
        env={**os.environ, "PATH": "/nowhere"},
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
