"""A git server of this machine's own git (``git http-backend``) over TLS, which asks for a token.

Knows: CGI as far as git speaks it. Does not know: what is tested. It remembers what every request brought.
"""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["GitServer"]

BACKEND = "/usr/lib/git-core/git-http-backend"
_BOUND = 1 << 20


@dataclass
class GitServer:
    """Serves the bare repository ``root/name.git``; whoever brings ``token`` may push."""

    root: Path
    tls: ssl.SSLContext
    token: str = ""
    name: str = "team"
    authorization: list[str | None] = field(default_factory=list)
    """What each request was signed with."""
    elsewhere: str | None = None
    """When given, every request is sent on to the same path there."""

    def __enter__(self) -> GitServer:
        self.repository = self.root / f"{self.name}.git"
        subprocess.run(["git", "init", "-q", "--bare", str(self.repository)], check=True)
        self.git("config", "http.receivepack", "true")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Of its repository."""
        return f"https://{self.place}/{self.name}.git"

    def git(self, *words: str) -> str:
        """Ask its repository."""
        command = ["git", "-C", str(self.repository), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def branches(self) -> dict[str, str]:
        """Branch -> commit."""
        said = self.git("for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads")
        return dict(line.split(" ") for line in said.splitlines())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self
        wanted = "Basic " + base64.b64encode(f"x-access-token:{self.token}".encode()).decode()

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _BOUND))
                given = self.headers.get("Authorization")
                server.authorization.append(given)
                if server.elsewhere is not None:
                    self._say(302, {"Location": f"https://{server.elsewhere}{self.path}"}, b"")
                elif given != wanted:
                    self._say(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"no\n")
                else:
                    self._run(body)

            def _run(self, body: bytes) -> None:
                path, _, query = self.path.partition("?")
                done = subprocess.run(
                    [BACKEND],
                    input=body,
                    capture_output=True,
                    check=False,
                    env={
                        "PATH": os.defpath,
                        "GIT_PROJECT_ROOT": str(server.root),
                        "GIT_HTTP_EXPORT_ALL": "1",
                        "GIT_CONFIG_NOSYSTEM": "1",
                        "GIT_CONFIG_GLOBAL": "/dev/null",
                        "REMOTE_USER": "agent",
                        "REMOTE_ADDR": "127.0.0.1",
                        "REQUEST_METHOD": self.command,
                        "PATH_INFO": path,
                        "QUERY_STRING": query,
                        "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                        "CONTENT_LENGTH": str(len(body)),
                        "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                        "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    },
                )
                head, _, answer = done.stdout.partition(b"\r\n\r\n")
                lines = dict(line.split(": ", 1) for line in head.decode().splitlines())
                status = int(lines.pop("Status", "200 OK").split(" ")[0])
                self._say(status, lines, answer)

            def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        return Answer
