"""Every tool of the host, put together.

Knows: the families by name and what each needs. Does not know: what they do.
"""

from __future__ import annotations

from collections.abc import Callable

from runloop.clock import Clock
from runloopd.broker.ports import Delta, KnowledgePort, MailPort
from runloopd.broker.providers.files import FilePort
from runloopd.broker.providers.web import WebPort
from runloopd.broker.tools.calendar_tools import calendar_tools
from runloopd.broker.tools.changes import Changes
from runloopd.broker.tools.exec_tools import exec_tools
from runloopd.broker.tools.family import Family
from runloopd.broker.tools.file_tools import file_tools
from runloopd.broker.tools.git_tools import git_tools
from runloopd.broker.tools.http_tools import http_tools
from runloopd.broker.tools.mail_tools import mail_tools
from runloopd.broker.tools.notify_tools import Desktop, notify_tools
from runloopd.broker.tools.sandbox import ProgramSandbox
from runloopd.broker.tools.shell_tools import shell_tools

__all__ = ["host_tools"]


def host_tools(
    *,
    files: FilePort,
    changes: Changes,
    sandbox: ProgramSandbox,
    web: WebPort,
    mail: MailPort,
    knowledge: KnowledgePort,
    on_delta: Callable[[Delta], None],
    clock: Clock,
    desktop: Desktop | None = None,
    authorities: str | None = None,
) -> tuple[Family, ...]:
    """Every family of the host's own tools. ``authorities``: ``security.web_authorities``, for programs."""
    return (
        file_tools(files, changes),
        http_tools(web),
        shell_tools(sandbox),
        exec_tools(sandbox),
        git_tools(sandbox, authorities),
        mail_tools(knowledge, mail, files, clock),
        calendar_tools(knowledge, files, clock),
        notify_tools(on_delta, clock, desktop or Desktop()),
    )
