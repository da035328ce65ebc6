"""The fence contract with fence_redfish, against a small Redfish service over TLS."""

import base64
import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec.structs import replace

from pvc_core.plugin import DriverError, FenceDriver, FenceTarget, NotReady
from pvc_core.testkit.contracts.fencing import FencingContract

pytestmark = pytest.mark.real

SYSTEMS = "/redfish/v1/Systems"
RESET = "/Actions/ComputerSystem.Reset"
READINGS_UNTIL_OFF = 2
"""So often a system still reads as before after a Reset: the specification lets it be carried out later."""


class RedfishService:
    """Two systems, whose power follows a Reset after some readings.  Faults are sets of system names; may be changed at any time."""

    def __init__(self, directory: Path, user: str, password: str):
        self.power = {"node1": "On", "node2": "On"}
        self.stuck, self.silent, self.unreadable = set(), set(), set()
        self.resets: list[tuple[str, str]] = []
        self._pending: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*_certificate(directory))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="redfish")
        self._thread.start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def get(self, path: str, login: str | None) -> tuple[int, dict]:
        if path == "/redfish/v1":
            return 200, {"Systems": {"@odata.id": SYSTEMS}}
        if login != self._login:
            return 401, {"error": {"message": "unauthorized"}}
        if path == SYSTEMS:
            return 200, {"Members": [{"@odata.id": f"{SYSTEMS}/{name}"} for name in self.power]}
        name = path.removeprefix(f"{SYSTEMS}/")
        if name not in self.power:
            return 404, {"error": {"message": "no such system"}}
        self._wait_when_silent(name)
        body = {"Actions": {"#ComputerSystem.Reset": {"target": f"{SYSTEMS}/{name}{RESET}"}}}
        return 200, body if name in self.unreadable else {**body, "PowerState": self._read(name)}

    def post(self, path: str, login: str | None, body: dict) -> tuple[int, dict]:
        if login != self._login:
            return 401, {"error": {"message": "unauthorized"}}
        name = path.removeprefix(f"{SYSTEMS}/").removesuffix(RESET)
        self._wait_when_silent(name)
        with self._lock:
            self.resets.append((name, body["ResetType"]))
            if name not in self.stuck:
                self._pending[name] = ({"On": "On", "ForceOff": "Off"}[body["ResetType"]], READINGS_UNTIL_OFF)
        return 204, {}

    def _read(self, name: str) -> str:
        with self._lock:
            wanted, left = self._pending.pop(name, (self.power[name], 0))
            if left:
                self._pending[name] = (wanted, left - 1)
            else:
                self.power[name] = wanted
            return self.power[name]

    def _wait_when_silent(self, name: str) -> None:
        if name in self.silent:
            self._released.wait()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(service.get(self.path, self.headers.get("Authorization")))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(service.post(self.path, self.headers.get("Authorization"), body))

            def _answer(self, answer):
                status, body = answer
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def handle(self):
                try:
                    super().handle()
                except OSError:  # the agent was killed, or did not like the certificate
                    self.close_connection = True

            def log_message(self, *_):
                pass

        return Handler


def _certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "redfish.crt", directory / "redfish.key"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    argv += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key


class RedfishBackend:
    secrets = ("opensesame",)

    def __init__(self, directory: Path, make_driver, make_secret):
        self._make_driver = make_driver
        self._password = make_secret("opensesame")
        self.service = RedfishService(directory, "admin", "opensesame")

    def driver(self) -> FenceDriver:
        return self._make_driver(power_timeout=12, status_timeout=5)

    def target(self, node: str) -> FenceTarget:
        parameters = {"agent": "fence_redfish", "ip": "127.0.0.1", "ipport": str(self.service.port)}
        parameters |= {"username": "admin", "ssl_insecure": "true", "systems_uri": f"{SYSTEMS}/{node}"}
        parameters |= {"power_timeout": "4", "password_file": self._password}
        return FenceTarget(node=node, parameters=parameters)

    def is_on(self, node: str) -> bool:
        return self.service.power[node] == "On"

    def switch(self, node: str, *, on: bool) -> None:
        self.service.power[node] = "On" if on else "Off"

    def break_controller(self, node: str, how: str) -> bool:
        getattr(self.service, how).add(node)
        return True

    def wrong_password(self, node: str) -> None:
        return None  # the agent does not look at the status of the answer; see below

    def close(self) -> None:
        self.service.close()
        assert {kind for _, kind in self.service.resets} <= {"ForceOff", "On"}


class TestRedfish(FencingContract):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _makers(self, make_driver, make_secret, monkeypatch) -> None:
        self._make = (make_driver, make_secret)
        monkeypatch.setenv("no_proxy", "127.0.0.1")

    def make_backend(self, tmp_path: Path) -> RedfishBackend:
        return RedfishBackend(tmp_path, *self._make)

    def test_a_wrong_password_proves_nothing(self, backend, driver, make_secret):
        good = backend.target("node1")
        wrong = replace(good, parameters={**good.parameters, "password_file": make_secret("mistaken")})
        with pytest.raises(DriverError, match="fence_redfish failed"):
            driver.power_off(wrong)
        assert backend.is_on("node1")

    def test_a_certificate_is_checked_unless_that_is_switched_off(self, backend, driver):
        good = backend.target("node1")
        with pytest.raises(NotReady, match="CERTIFICATE_VERIFY_FAILED"):
            driver.power_status(replace(good, parameters={**good.parameters, "ssl_insecure": "false"}))
