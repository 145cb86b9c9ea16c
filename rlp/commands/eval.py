"""``rlp eval``: golden tasks against whatever model there is; a table, a trend, and an exit code.

Knows: which tasks are played, what is told of them, when too few passed. Does not know: how one is played
(``rlp.evals``). The user's own home is only read, but for the file of results.
"""

from __future__ import annotations

import fnmatch
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlp.evals import kept
from rlp.session import Session
from runloop.errors import RunloopError, UsageError
from runloop.exits import Exit
from runloop.quantities import ago, dollars, moment
from runloop.spelling import did_you_mean

if TYPE_CHECKING:
    from rlp.evals.suite import Suite, Task
    from rlp.evals.trial import Trial

__all__ = ["eval_"]

_COLUMNS = ("task", "result", "checks", "time", "turns", "calls", "tokens", "cost")
_TREND = ("when", "asked", "passed", "of", "time", "calls", "tokens", "cost", "better", "worse")
MAX_REPEAT = 100


def eval_(
    session: Session,
    *,
    suite: str | None,
    provider: str | None,
    model: str | None,
    tasks: tuple[str, ...],
    repeat: int,
    threshold: int | None,
    trend: bool,
    show: bool,
) -> Exit:
    """Play tasks and judge them; or look at the tasks, or back at earlier results."""
    from rlp.evals.homes import Asking
    from rlp.evals.suite import locate, read

    found = read(locate(suite))
    if trend:
        return _trend(session, found)
    chosen = _chosen(found, tasks)
    if show:
        return _show(session, chosen)
    if repeat > MAX_REPEAT or (threshold is not None and threshold > 100):
        raise UsageError(
            f"--repeat is at most {MAX_REPEAT}, --threshold per cent",
            hint="'rlp eval --help' shows how it is used",
            code="cli.option",
        )
    asking = Asking(session, provider, model)
    session.console.say(f"rlp: {len(chosen)} tasks of {found.name}, asked of: {asking.words}")
    began = time.time()
    trials: dict[str, list[Trial]] = {}
    with _ended_tidily():
        for trial in _played(session, found, chosen, asking, repeat):
            trials.setdefault(trial.task, []).append(trial)
            count = sum(map(len, trials.values()))
            session.console.passing(f"  {count} of {len(chosen) * repeat} {trial.task}")
    # In the order of the suite, whatever order the homes were in.
    ordered = {task.id: trials[task.id] for task in chosen}
    result = _result(found, asking.words, ordered, int(began * 1000))
    # A model that was to answer and did not is no baseline: its tasks failed.
    baseline = asking.none and not result["models"]
    return _told(session, found, chosen, ordered, result, baseline, threshold)


def _chosen(suite: Suite, patterns: Sequence[str]) -> list[Task]:
    """The tasks that a pattern names; all without any. A pattern that names none is a mistake."""
    chosen = [
        task
        for task in suite.tasks
        if not patterns or any(fnmatch.fnmatchcase(task.id, one) for one in patterns)
    ]
    for pattern in patterns:
        if not fnmatch.filter([task.id for task in suite.tasks], pattern):
            raise UsageError(
                f"no task of {suite.name} is called {pattern[:80]!r}",
                hint=did_you_mean(
                    pattern,
                    [task.id for task in suite.tasks],
                    "'rlp eval --list' lists them; patterns such as 'mail.*' are taken",
                ),
                code="eval.no_task",
            )
    return chosen


def _played(
    session: Session, suite: Suite, chosen: Sequence[Task], asking: Any, repeat: int
) -> Iterator[Trial]:
    """Each task so often; those that leave nothing behind share a home of their kind."""
    from rlp.evals.homes import Grounds
    from rlp.evals.trial import play

    grounds = Grounds(session, asking)
    try:
        for home in suite.homes.values():
            own = [task for task in chosen if task.home == home.name]
            shared = [task for task in own if not task.alone]
            if shared:
                with grounds.opened(home) as place:
                    for task in shared:
                        for _ in range(repeat):
                            yield play(place, task)
            for task in own:
                for _ in range(repeat if task.alone else 0):
                    with grounds.opened(home) as place:
                        yield play(place, task)
    finally:
        grounds.close()


@contextmanager
def _ended_tidily() -> Iterator[None]:
    """Whoever ends this command ends it as Ctrl-C does: no home and no daemon is left behind."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _result(suite: Suite, asked: str, trials: dict[str, list[Trial]], ms: int) -> dict[str, Any]:
    """What is kept of an evaluation."""
    from runloop import __version__

    every = [trial for played in trials.values() for trial in played]
    return {
        "ms": ms,
        "suite": suite.name,
        "digest": suite.digest,
        "version": __version__,
        "asked": asked,
        "models": sorted({model for trial in every for model in trial.models}),
        "tasks": {name: [sum(t.passed for t in played), len(played)] for name, played in trials.items()},
        "took_ms": sum(trial.figure("ms") for trial in every),
        "calls": sum(trial.figure("calls") for trial in every),
        "tokens": sum(trial.figure("tokens") for trial in every),
        "micro_usd": sum(trial.figure("micro_usd") for trial in every),
    }


def _told(
    session: Session,
    suite: Suite,
    chosen: Sequence[Task],
    trials: dict[str, list[Trial]],
    result: dict[str, Any],
    baseline: bool,
    threshold: int | None,
) -> Exit:
    """The table, the reasons, the sum, the verdict; and the result is kept."""
    console = session.console
    passed = [name for name, (good, of) in result["tasks"].items() if good == of]
    as_expected = [t.id for t in chosen if (t.id in passed) == (t.offline == "pass")]
    counted = as_expected if baseline and threshold is None else passed
    least = suite.threshold if threshold is None else threshold
    code = Exit.OK if len(counted) * 100 >= least * len(chosen) else Exit.FAILED
    rows = [_row(task, trials[task.id], baseline) for task in chosen]
    if session.json:
        for task, row in zip(chosen, rows, strict=True):
            console.json({"task": task.id, "result": row["result"], **_details(trials[task.id])})
        sums = {"passed": len(passed), "total": len(chosen), "as_expected": len(as_expected)}
        console.json({"evaluation": {**result, **sums, "baseline": baseline, "exit": int(code)}})
    else:
        console.rows(rows, _COLUMNS)
        _say_why(session, chosen, trials)
        by = ", ".join(result["models"]) or f"no language model{' (the baseline)' * baseline}"
        console.say(f"{len(passed)} of {len(chosen)} passed, answered by {by}")
        if baseline:
            console.say(f"{len(as_expected)} did what the suite expects where no language model is")
        if code is not Exit.OK:
            console.note(f"rlp: fewer than {least} per cent: {len(counted)} of {len(chosen)}", "red")
    _keep(session, result)
    return code


def _row(task: Task, played: Sequence[Trial], baseline: bool) -> dict[str, Any]:
    good = sum(trial.passed for trial in played)
    result = "pass" if good == len(played) else "fail" if not good else f"{good} of {len(played)}"
    if baseline:
        as_expected = (good == len(played)) == (task.offline == "pass")
        result += ", as expected" if as_expected else ", unexpected"
    held = sum(trial.checks - len(trial.failed) for trial in played)

    def mean(name: str) -> int:
        return round(sum(trial.figure(name) for trial in played) / len(played))

    return {
        "task": task.id,
        "result": result,
        "checks": f"{held}/{sum(trial.checks for trial in played)}",
        "time": ago(mean("ms")),
        **{name: mean(name) for name in ("turns", "calls", "tokens")},
        "cost": dollars(cost, digits=6) if (cost := mean("micro_usd")) else None,
    }


def _details(played: Sequence[Trial]) -> dict[str, Any]:
    return {
        "trials": [
            {
                "passed": trial.passed,
                "failed": list(trial.failed),
                "error": trial.error or None,
                "facts": trial.facts,
            }
            for trial in played
        ]
    }


def _say_why(session: Session, chosen: Sequence[Task], trials: dict[str, list[Trial]]) -> None:
    for task in chosen:
        reasons = [r for t in trials[task.id] for r in (*([t.error] if t.error else []), *t.failed)]
        for reason in dict.fromkeys(reasons):
            session.console.say(f"{task.id}: {reason}", "yellow")


def _keep(session: Session, result: dict[str, Any]) -> None:
    try:
        kept.keep(session.home.home, result)
    except OSError as error:
        session.console.note(f"rlp: this result is not kept for --trend: {error.strerror}", "yellow")


def _show(session: Session, chosen: Sequence[Task]) -> Exit:
    """The tasks, without playing them."""
    rows = [
        {"task": task.id, "tests": task.tests, "checks": len(task.checks), "offline": task.offline}
        for task in chosen
    ]
    session.console.rows(rows, ("task", "tests", "checks", "offline"))
    return Exit.OK


def _trend(session: Session, suite: Suite) -> Exit:
    """Earlier results, oldest first; what changed since the last one of the same suite and models."""
    try:
        found = kept.rows(kept.earlier(session.home.home, suite.name))
    except OSError as error:
        raise RunloopError(
            f"the results cannot be read: {error.strerror}", hint="look at the folder eval in the home"
        ) from error
    if session.json:
        for row in found:
            session.console.json(row)
        return Exit.OK
    shown = [
        {
            "when": moment(row["ms"]),
            "asked": ", ".join(map(str, row.get("models") or ())) or str(row.get("asked") or ""),
            "passed": row["passed"],
            "of": row["total"],
            "time": ago(int(row.get("took_ms") or 0)),
            "calls": row.get("calls"),
            "tokens": row.get("tokens"),
            "cost": dollars(int(row.get("micro_usd") or 0), digits=6),
            "better": row["better"],
            "worse": row["worse"],
        }
        for row in found
    ]
    session.console.rows(shown, _TREND, empty=f"no result of {suite.name} is kept yet")
    return Exit.OK
