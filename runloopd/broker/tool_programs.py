"""One call of a tool that is a program: its words, the folders and hosts it reaches, its end as a result.

Knows: how a tool's effect becomes what its sandbox lets the program do, so that its author is held to what he
says of it. Does not know: how a program is shut in (``broker.tools``), or whether it may be called
(``tool_bench``).
"""

from __future__ import annotations

from typing import Any

from runloop.bundle.transports import ExecTransport, filled, secrets_in
from runloop.caps.destination import parse_destination
from runloop.caps.grants import NetRule
from runloop.caps.policy import Policy
from runloop.digest import canonical
from runloopd.broker.asks import Ask
from runloopd.broker.ports import Outcome
from runloopd.broker.secret_ops import Lent
from runloopd.broker.tool_errands import bounded_text
from runloopd.broker.tool_plan import Plan
from runloopd.broker.tool_reached import Reached
from runloopd.broker.tool_results import MAX_RESULT_BYTES, failed, parsed, unfit
from runloopd.broker.toolbox import ToolError, ToolResult
from runloopd.broker.tools.egress import GrantedHosts, reachable
from runloopd.broker.tools.folders import shown_folders
from runloopd.broker.tools.programs import permitted
from runloopd.broker.tools.sandbox import Limits, Mount, Program, ProgramResult, ProgramSandbox

__all__ = ["ExecErrand"]

_MAX_STDERR = 500


class ExecErrand:
    """A program in the sandbox: it sees the folders that the tool names, and writes where it says so."""

    def __init__(
        self,
        ask: Ask,
        plan: Plan,
        program: ExecTransport,
        args: dict[str, Any],
        sandbox: ProgramSandbox | None,
    ) -> None:
        self._ask, self._plan, self._program, self._sandbox = ask, plan, program, sandbox
        self._reached = Reached(ask)
        self._words = program.words(args)
        self._stdin = canonical(args)

    @property
    def resource(self) -> str:
        return bounded_text(f"program:{self._program.program}")

    @property
    def shown(self) -> dict[str, Any]:
        return {
            "argv": list(self._words),
            "stdin": self._stdin.decode(),
            "env": dict(self._program.env),
            "folders": shown_folders(self._mounts(self._ask.grants)),
            "network": reachable(self._rules(self._ask.grants)),
        }

    @property
    def to(self) -> str:
        return f"program:{self._program.program}"

    def permit(self) -> None:
        """The tool names its program among its capabilities, and those were judged."""

    async def run(self, lent: Lent, due_ms: int) -> ToolResult:
        if self._sandbox is None:
            raise ToolError(
                f"{self._plan.name} runs a program, and this daemon has no sandbox for one",
                hint="'rlp doctor' tells what is missing",
                code="tool.sandbox",
            )
        grants = self._ask.check()
        policy = grants if isinstance(grants, Policy) else self._ask.grants
        path = permitted(policy, self._ask.agent, self._program.program, self._sandbox)
        reveal = {name: secret.reveal for name, secret in lent.secrets.items()}
        rules = self._rules(policy)
        try:
            result = await self._sandbox.run(
                Program(
                    argv=(path, *self._words[1:]),
                    stdin=self._stdin,
                    env={name: filled(value, reveal) for name, value in self._program.env},
                    mounts=self._mounts(policy),
                    secrets={
                        name.rpartition("/")[2].upper().replace("-", "_").replace(".", "_"): one().encode()
                        for name, one in reveal.items()
                        if name not in secrets_in(self._program.env)
                    },
                    egress=GrantedHosts(rules, noted=self._reached.note) if rules else None,
                    limits=Limits(output=MAX_RESULT_BYTES),
                    run=self._ask.caller.run,
                    agent=self._ask.agent,
                )
            )
        finally:
            self._reached.state()
        return ToolResult(value=self._value(result, lent))

    async def outcome(self, due_ms: int) -> Outcome:
        return "unknown"

    def _mounts(self, grants: Policy) -> tuple[Mount, ...]:
        """The folders the tool asks for, as far as they are granted; writable only where it writes."""
        writes = self._plan.effect != "read"
        found: dict[str, Mount] = {}
        for word in self._plan.capabilities:
            name, _, target = word.partition(":")
            if name not in ("fs_ro", "fs_rw"):
                continue
            value = grants.value(name)
            roots = (target,) if target else value if isinstance(value, tuple) else ()
            for root in map(str, roots):
                if grants.allows(name, root, agent=self._ask.agent).allowed:
                    found[root] = Mount(path=root, writable=writes and name == "fs_rw")
        return tuple(found[root] for root in sorted(found))

    def _rules(self, grants: Policy) -> tuple[NetRule, ...]:
        """Hosts it may reach: none where it only reads or writes here, else what it names and is granted."""
        if self._plan.effect != "send" or self._plan.does != "send":
            return ()
        wanted = [word.partition(":")[2] for word in self._plan.capabilities if word.startswith("net:")]
        value = grants.value("net")
        rules = value if isinstance(value, tuple) else ()
        hosts = {parse_destination(f"https://{host}/").host for host in wanted}
        return tuple(rule for rule in rules if isinstance(rule, NetRule) and rule.host in hosts)

    def _value(self, result: ProgramResult, lent: Lent) -> Any:
        name = self._plan.name
        begun: Outcome = "absent" if self._plan.effect == "read" else "unknown"
        if result.killed_by == "deadline":
            raise failed(name, "it did not end in time", code="tool.timeout", outcome=begun)
        if result.killed_by is not None:
            raise failed(name, f"it was ended: {result.killed_by}", outcome=begun)
        if result.exit != 0:
            # Scrubbed before it is cut, and where it was cut already: nobody recognises half a secret.
            clean = lent.scrubber.data(result.stderr, cut=result.truncated).decode("utf-8", "replace")
            said = lent.scrubber.page(clean)[-_MAX_STDERR:].strip()
            # It ran and said no; what it had done by then, or had a server do, it does not say.
            why = f"it ended with {result.exit}" + (f": {said}" if said else "")
            raise failed(name, why, outcome=begun)
        if result.truncated:
            raise unfit(name, f"its result is larger than {MAX_RESULT_BYTES} bytes")
        try:
            text = result.stdout.decode()
        except UnicodeDecodeError as error:
            raise unfit(name, "its result is not UTF-8") from error
        return parsed(name, text) if text.strip() else None
