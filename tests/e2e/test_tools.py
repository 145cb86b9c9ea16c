"""The weather example, as a user meets it: a plugin's tool, called through the gate, denied, and replayed."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from runloop.bundle.plugin import import_plugin
from runloop.bundle.tools import parse_tools
from runloop.caps.policy import parse_policy
from runloop.events import CapAudit, HostcallDelivered, NodeFinished
from tests.contract.raw_web import Authority
from tests.home import EXAMPLES, ROOT, Home

SERVICE = "api.open-meteo.com"
"""Whom the example asks."""


class WeatherService:
    """Tells the weather over TLS, and remembers who asked."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        asked = self.asked = list[str]()
        posted = self.posted = list[tuple[str, object]]()

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                body = json.dumps({"daily": {"max": [11.5, 9]}, "words": "Föhn"}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                posted.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                body = json.dumps({"id": len(posted)}).encode()
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def service(home: Home, tmp_path: Path) -> Iterator[WeatherService]:
    authority = Authority(tmp_path)
    made = WeatherService(authority.server(x509.IPAddress(ip_address("127.0.0.1"))))
    home.env["RUNLOOP__SECURITY__WEB_AUTHORITIES"] = str(authority.file)
    yield made
    made.stop()


def plugin(port: int) -> str:
    """The example of the docs, with its service on this machine."""
    text = (EXAMPLES / "plugins" / "weather" / "plugin.manifest.json").read_text(encoding="utf-8")
    assert text.count(SERVICE) == 2, "the permission and the endpoint"
    return text.replace(SERVICE, f"127.0.0.1:{port}")


@pytest.fixture
def opening(home: Home, service: WeatherService) -> Path:
    """An opening that asks the plugin's tool, and the plugin where agents are found."""
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    for name, data in import_plugin(plugin(service.port)).files.items():
        path = home.path / "agents" / "weather" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    path = home.path / "forecast.yaml"
    path.write_text(
        "version: 0\nname: forecast\nnodes:\n"
        '  - id: ask\n    use: "agent:weather"\n'
        '    with: {args: {latitude: 46.95, longitude: 7, daily: "max,min"}}\n'
    )
    return path


def ends(home: Home) -> list[NodeFinished]:
    return [e.payload for e in home.events("node.finished") if isinstance(e.payload, NodeFinished)]


@pytest.mark.requirement("I3.plugin.1", "L7")
def test_a_plugins_tool_answers_and_its_run_replays_without_the_server(
    home: Home, service: WeatherService, opening: Path
) -> None:
    home.rlp("run", str(opening), "--no-input", "--json").check()
    (end,) = ends(home)
    assert end.output is not None
    assert end.output["ports"]["out"] == [{"daily": {"max": [11.5, 9]}, "words": "Föhn"}]
    assert service.asked == ["/v1/forecast?latitude=46.95&longitude=7&daily=max%2Cmin"]
    audits = [e.payload for e in home.events("cap.audit") if isinstance(e.payload, CapAudit)]
    assert [(used.decision, used.capability, used.target) for used in audits] == [
        ("allowed", "tools", "weather.get_forecast"),
        ("allowed", "net", f"GET https://127.0.0.1:{service.port}/v1/forecast"),
    ]

    service.stop()
    run = str(home.events("run.started")[0].run)
    report = home.rlp("replay", run, "--json").check().json
    assert report["identical"] is True
    assert len(service.asked) == 1


@pytest.mark.requirement("I3.plugin.1")
def test_without_the_permission_the_tool_is_refused_and_the_permission_named(
    home: Home, service: WeatherService, opening: Path
) -> None:
    home.rlp("daemon", "start").check()
    home.rlp("cap", "revoke", "weather", "net").check()
    home.rlp("run", str(opening), "--no-input", "--json").check(4)
    (end,) = ends(home)
    assert end.error is not None
    assert end.error.code == "cap.denied"
    missing = f"weather.get_forecast needs net 127.0.0.1:{service.port}, which is not granted to weather"
    assert missing in end.error.message
    audits = [e.payload for e in home.events("cap.audit") if isinstance(e.payload, CapAudit)]
    (denied,) = [audit for audit in audits if audit.decision == "denied"]
    assert (denied.capability, denied.target) == ("net", f"127.0.0.1:{service.port}")
    (heard,) = [
        e.payload for e in home.events("hostcall.delivered") if isinstance(e.payload, HostcallDelivered)
    ]
    assert (heard.op, heard.ok) == ("tool.call", False)
    assert service.asked == []

    # The refusal says what to type; type it.
    typed = end.error.message.partition("type 'rlp ")[2].partition("'")[0].split()
    assert typed == ["cap", "grant", "weather", "net"]
    home.rlp(*typed).check()
    home.rlp("run", str(opening), "--no-input", "--json").check()
    assert len(service.asked) == 1


def test_the_example_of_the_howto_is_an_agent_that_is_taken() -> None:
    page = (ROOT / "docs" / "howto" / "tools.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    (tool,) = parse_tools(blocks["json"])
    policy = parse_policy(blocks["caps"])
    assert policy.allows("net", f"GET {tool.http.fill({'city': 'Bern'})}" if tool.http else "").allowed
    compile(blocks["python"], "agent.py", "exec")
    assert blocks["text"].startswith(
        f"{tool.id} needs {tool.capabilities[0].replace(':', ' ')}, which is not"
    )
