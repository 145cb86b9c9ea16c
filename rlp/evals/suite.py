"""A suite of golden tasks, read from a folder: strictly, with every mistake at once.

Knows: the keys of ``suite.toml`` and of the files of tasks beside it, and the digest that tells one version
of a suite from another. Does not know: how a task is played or judged. A suite names nothing outside its
folder but shipped openings and agents.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openings.expressions import ExpressionError, Parser
from rlp.evals.checks import PREDICATES, Check
from runloop import toml
from runloop.config import shipped
from runloop.digest import blob_digest, digest
from runloop.errors import NotFoundError, UsageError
from runloop.spelling import did_you_mean

__all__ = ["Allowed", "Ask", "Home", "Suite", "SuiteError", "Task", "locate", "read"]

MAX_FILE = 1 << 20
MAX_FILES = 2_000
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_TASK = re.compile(r"[a-z][a-z0-9_-]{0,31}(\.[a-z0-9][a-z0-9_-]{0,31}){0,2}\Z")
_ASK_KEYS = {"wish", "continue", "opening", "params", "approve", "answers"}
_TASK_KEYS = {"id", "tests", "home", "alone", "offline", "limit_s", "run", "check", *_ASK_KEYS}


class SuiteError(UsageError):
    """A suite that cannot be read; ``findings`` has one line for each mistake."""

    code = "eval.suite"

    def __init__(self, folder: Path, findings: list[str]) -> None:
        super().__init__(
            f"the suite {folder} cannot be used", hint="docs/howto/eval.md says how one is written"
        )
        self.data["findings"] = findings


@dataclass(frozen=True, slots=True)
class Allowed:
    """An effect that the suite approves: this op, to exactly these recipients."""

    op: str
    to: tuple[str, ...]
    """Sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One run of a task: a wish for the assistant, or an opening; and what a person would say meanwhile."""

    wish: str = ""
    continued: bool = False
    """The wish goes on from the last one."""
    opening: str = ""
    """Name of a shipped opening, or a file of the suite."""
    params: Mapping[str, Any] = field(default_factory=dict)
    approve: tuple[Allowed, ...] = ()
    """Everything else is denied."""
    answers: tuple[str, ...] = ()
    """To questions, in order; one question more ends the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is asked and what must come of it."""

    id: str
    tests: str
    """What it is about, in words."""
    home: str
    alone: bool
    """It leaves something behind that others would notice: it gets a home that nobody else used."""
    offline: str
    """``pass`` or ``fail``: what is expected of it where no language model is."""
    limit_s: int
    asks: tuple[Ask, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Home:
    """What a home holds before a task: paths to import."""

    name: str
    imports: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """Tasks, and the homes they are asked in."""

    name: str
    folder: Path
    threshold: int
    """Per cent of the tasks that must pass."""
    homes: Mapping[str, Home]
    tasks: tuple[Task, ...]
    digest: str
    """Of every byte of the folder: results of one digest compare."""


def locate(named: str | None) -> Path:
    """The folder of a suite: a path, the name of a shipped one, or the shipped ``golden``."""
    if named is not None and (Path(named) / "suite.toml").is_file():
        return Path(named).resolve()
    place = shipped("eval") / (named or "golden")
    if (named is None or _NAME.match(named)) and (place / "suite.toml").is_file():
        return place
    raise NotFoundError(
        f"{str(named)[:200]!r} is no suite: no folder with a suite.toml, and none of that name is shipped",
        hint="'rlp eval' without a name takes the shipped one",
        code="eval.no_suite",
    )


def read(folder: Path) -> Suite:
    """Read a suite; raises :class:`SuiteError` with every mistake."""
    reader = _Reader(folder)
    suite = reader.suite()
    if reader.findings or suite is None:
        raise SuiteError(folder, reader.findings or ["it holds no task"])
    return suite


class _Reader:
    """One reading: findings gather, and what is wrong is left out."""

    def __init__(self, folder: Path) -> None:
        self.findings: list[str] = []
        self._folder = folder
        self._parser = Parser()

    def suite(self) -> Suite | None:
        head = self._toml(self._folder / "suite.toml")
        here = "suite.toml"
        self._known(here, head, {"version", "name", "description", "threshold", "homes"})
        if head.get("version") != 0:
            self._find(here, "version must be 0")
        name, threshold = head.get("name"), head.get("threshold", 70)
        if not isinstance(name, str) or not _NAME.match(name):
            self._find(here, "name must be lower-case letters, digits, - and _")
        if not _whole(threshold) or not 0 <= threshold <= 100:
            self._find(here, "threshold is per cent of the tasks: 0 to 100")
        listed = head.get("homes")
        homes = dict(self._homes(listed if isinstance(listed, dict) else {}))
        if not homes:
            self._find(here, "it needs at least one [homes.NAME]")
        tasks: dict[str, Task] = {}
        for path in sorted(self._folder.glob("*.toml")):
            for task in self._tasks(path, homes) if path.name != here else ():
                if task.id in tasks:
                    self._find(path.name, f"the task {task.id} is there twice")
                tasks[task.id] = task
        if self.findings or not tasks:
            return None
        return Suite(
            name=str(name),
            folder=self._folder,
            threshold=int(threshold),
            homes=homes,
            tasks=tuple(tasks.values()),
            digest=self._digest(),
        )

    def _homes(self, listed: Mapping[str, Any]) -> Iterator[tuple[str, Home]]:
        for name, table in listed.items():
            here = f"suite.toml: homes.{name[:40]}"
            if not _NAME.match(name) or not isinstance(table, dict):
                self._find(here, "a home is a table with a short lower-case name")
                continue
            self._known(here, table, {"import"})
            paths = [self._inside(here, path) for path in self._texts(here, table, "import")]
            yield name, Home(name, tuple(path for path in paths if path is not None))

    def _tasks(self, path: Path, homes: Mapping[str, Home]) -> Iterator[Task]:
        document = self._toml(path)
        self._known(path.name, document, {"task"})
        rows = document.get("task")
        for number, row in enumerate(rows if isinstance(rows, list) else [], 1):
            here = f"{path.name}: task {row.get('id', number) if isinstance(row, dict) else number}"
            before = len(self.findings)
            task = self._task(here, row, homes) if isinstance(row, dict) else None
            if task is not None and len(self.findings) == before:
                yield task

    def _task(self, here: str, row: dict[str, Any], homes: Mapping[str, Home]) -> Task | None:
        self._known(here, row, _TASK_KEYS)
        id, tests, home = row.get("id"), row.get("tests"), row.get("home", next(iter(homes), ""))
        alone, offline, limit_s = row.get("alone", False), row.get("offline", "fail"), row.get("limit_s", 300)
        if not isinstance(id, str) or not _TASK.match(id):
            self._find(here, "id must be words of lower-case letters and digits, joined by dots")
        if not isinstance(tests, str) or not tests:
            self._find(here, "tests must say in words what the task is about")
        if not isinstance(home, str) or home not in homes:
            self._find(
                here, f"home {str(home)[:40]!r} is none of this suite; {did_you_mean(str(home), homes)}"
            )
        if not isinstance(alone, bool):
            self._find(here, "alone is true or false")
        if offline not in ("pass", "fail"):
            self._find(here, "offline is pass or fail: what is expected where no language model is")
        if not _whole(limit_s) or not 1 <= limit_s <= 3_600:
            self._find(here, "limit_s is seconds: 1 to 3600")
        asks = self._asks(here, row)
        listed = row.get("check")
        rows = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        found = [self._check(f"{here}, check {n}", one) for n, one in enumerate(rows, 1)]
        checks = tuple(check for check in found if check is not None)
        if not checks:
            self._find(here, "it needs a [[task.check]]: a task that cannot fail says nothing")
        if not asks or not checks:
            return None
        return Task(
            id=str(id),
            tests=str(tests),
            home=str(home),
            alone=alone is True,
            offline=str(offline),
            limit_s=limit_s if _whole(limit_s) else 0,
            asks=asks,
            checks=checks,
        )

    def _asks(self, here: str, row: dict[str, Any]) -> tuple[Ask, ...]:
        given = row.get("run")
        own = {key: value for key, value in row.items() if key in _ASK_KEYS}
        if given is not None and (own or not isinstance(given, list)):
            self._find(here, "either [[task.run]] for several, or wish and its kin in the task itself")
            return ()
        rows = given if given is not None else [own]
        asks = [self._ask(f"{here}, run {n}", one) for n, one in enumerate(rows, 1) if isinstance(one, dict)]
        return tuple(asks)

    def _ask(self, here: str, row: dict[str, Any]) -> Ask:
        self._known(here, row, _ASK_KEYS)
        wish, opening, params = row.get("wish", ""), row.get("opening", ""), row.get("params", {})
        if not isinstance(wish, str) or not isinstance(opening, str) or bool(wish) == bool(opening):
            self._find(here, "it needs a wish or an opening, one of them, as text")
            return Ask()
        if not isinstance(params, dict) or (params and not opening):
            self._find(here, "params is a table, and goes with an opening")
            params = {}
        if not isinstance(row.get("continue", False), bool) or (row.get("continue") and not wish):
            self._find(here, "continue is true or false, and goes with a wish")
        if opening.endswith((".yaml", ".yml", ".opening")):
            inside = self._inside(here, opening)
            opening = str(inside) if inside is not None else ""
        return Ask(
            wish=wish,
            continued=row.get("continue") is True,
            opening=opening,
            params=params,
            approve=tuple(self._approvals(here, row.get("approve", []))),
            answers=tuple(self._texts(here, row, "answers")),
        )

    def _approvals(self, here: str, rows: Any) -> Iterator[Allowed]:
        for row in rows if isinstance(rows, list) else [rows]:
            if not isinstance(row, dict) or set(row) != {"op", "to"} or not isinstance(row["op"], str):
                self._find(here, 'approve is a list of { op = "mail.send", to = ["…"] }')
            else:
                yield Allowed(row["op"], tuple(sorted(self._texts(here, row, "to"))))

    def _check(self, here: str, row: dict[str, Any]) -> Check | None:
        self._known(here, row, {"that", "expr", "at", *PREDICATES})
        that, wants = row.get("that", ""), [name for name in PREDICATES if name in row]
        if not isinstance(that, str):
            self._find(here, "that is text")
            return None
        if isinstance(row.get("expr"), str) and not wants and "at" not in row:
            try:
                condition = self._parser.condition(row["expr"])
            except ExpressionError as error:
                self._find(here, error.message)
                return None
            return Check(that=that, expr=condition)
        at = row.get("at")
        if "expr" in row or not isinstance(at, str) or not at or len(wants) != 1:
            self._find(here, f"it needs expr, or at with one of {', '.join(PREDICATES)}")
            return None
        (name,) = wants
        want = row[name]
        if not self._fits(here, name, want):
            return None
        return Check(that=str(that), at=tuple(at.split(".")), predicate=name, want=want)

    def _fits(self, here: str, name: str, want: Any) -> bool:
        """Whether what a predicate wants is of its kind; a pattern must compile, a schema be one."""
        problem = ""
        if name in ("matches", "lacks"):
            try:
                re.compile(want)
            except (re.error, TypeError) as error:
                problem = f"no pattern: {error}"
        elif name == "number":
            problem = "" if _whole(want) or isinstance(want, float) else "it wants a number"
        elif name in ("includes", "excludes"):
            problem = "" if isinstance(want, list) and want else "it wants a list that is not empty"
        elif name == "schema":
            from jsonschema import Draft202012Validator, SchemaError

            try:
                Draft202012Validator.check_schema(want)
            except SchemaError as error:
                problem = f"no JSON Schema: {error.message}"
            problem = problem or ("" if isinstance(want, dict) and want else "it wants a schema")
        if problem:
            self._find(here, f"{name}: {problem}")
        return not problem

    # --- what all of it is made of ----------------------------------------------------------------

    def _toml(self, path: Path) -> dict[str, Any]:
        try:
            data = path.read_bytes()
            if len(data) > MAX_FILE:
                raise ValueError(f"more than {MAX_FILE} bytes")
            return toml.loads(data.decode(), times=False)
        except (OSError, ValueError, RecursionError, tomllib.TOMLDecodeError) as error:
            self._find(path.name, f"it cannot be read: {error}")
            return {}

    def _known(self, here: str, table: Mapping[str, Any], keys: set[str]) -> None:
        for key in table:
            if key not in keys:
                self._find(here, f"there is no key {key[:40]!r}; {did_you_mean(key, sorted(keys))}")

    def _texts(self, here: str, table: Mapping[str, Any], key: str) -> list[str]:
        given = table.get(key, [])
        if isinstance(given, list) and all(isinstance(one, str) and one for one in given):
            return given
        self._find(here, f"{key} is a list of texts")
        return []

    def _inside(self, here: str, name: str) -> Path | None:
        """A file or folder of the suite, never one outside of it, whatever links say."""
        path = (self._folder / name).resolve()
        if path.is_relative_to(self._folder.resolve()) and path.exists():
            return path
        self._find(here, f"{name[:80]!r} is not in the suite's folder")
        return None

    def _find(self, here: str, what: str) -> None:
        self.findings.append(f"{here}: {what}")

    def _digest(self) -> str:
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())[:MAX_FILES]
        return digest(
            [[str(path.relative_to(self._folder)), blob_digest(path.read_bytes())] for path in files]
        )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
