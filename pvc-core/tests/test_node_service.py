"""The node's service over real sockets: the token, logs, consoles."""

import http.client
import json
import socket
import threading
from pathlib import Path

import pytest

from pvc_core.client.service import ServiceClient, ServiceRefused
from pvc_core.hypervisor.api import HypervisorError, HypervisorUnavailable
from pvc_core.model.errors import InvalidRequest, NotFound, Unavailable
from pvc_core.node.console_log import MAX_BYTES, read_from, read_tail
from pvc_core.node.service import NodeService, ServiceError, ServiceParts, read_token
from pvc_core.node.state import NodeState
from pvc_core.node.uploads import MAX_PART_BYTES, Uploads
from pvc_core.plugin.errors import DriverError, NotReady
from pvc_core.testkit.simulator.clock import VirtualClock

VM = "6f0b9a3e-8a35-4a4c-9b8a-000000000001"


class FakeConsole:
    def __init__(self):
        self.typed = b""
        self.arrived = threading.Event()
        self.closed = threading.Event()
        self._ours, self._theirs = socket.socketpair()

    def say(self, data):
        self._theirs.sendall(data)

    def end(self):
        self._theirs.shutdown(socket.SHUT_WR)

    def read(self):
        try:
            return self._ours.recv(4096)
        except OSError:
            return b""

    def write(self, data):
        self.typed += data
        if self.typed.endswith(b"\n"):
            self.arrived.set()

    def close(self):
        if not self.closed.is_set():
            self.closed.set()
            self._ours.shutdown(socket.SHUT_RDWR)

    def release(self):
        self._ours.close()
        self._theirs.close()


class FakeHypervisor:
    def __init__(self):
        self.consoles = {}
        self.error = None

    def console(self, vm):
        if self.error is not None:
            raise self.error
        return self.consoles[vm]


class FakeLease:
    held = 4

    def generation(self):
        return self.held


def _late(_arguments):
    raise NotReady("acme: the array does not answer")


def _full(_arguments):
    raise DriverError("acme: the array is full")


@pytest.fixture
def site(tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    (tmp_path / "upload").mkdir()
    parts = ServiceParts(
        node="hv1",
        hypervisor=FakeHypervisor(),
        lease=FakeLease(),
        state=NodeState(VirtualClock(), lambda: None),
        console_directory=tmp_path,
        token_file=token,
        uploads=Uploads(tmp_path / "upload"),
        queries={"acme.echo": lambda arguments: {"got": arguments}, "acme.late": _late, "acme.full": _full},
    )
    service = NodeService(parts, "127.0.0.1", 0, poll_s=0.01)
    service.start()
    yield service, parts
    service.stop()


def ask(service, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def send(service, method, path, body, headers=(), token="secret"):
    status, answer = ask(service, method, path, body, {"Authorization": f"Bearer {token}", **dict(headers)})
    return status, json.loads(answer)


def post(service, path, body, **more):
    return send(service, "POST", path, body, **more)


def put(service, path, body, headers=(), **more):
    return send(service, "PUT", path, body, headers, **more)


def test_a_plugin_answers_a_query_with_its_arguments(client):
    assert client.query("acme.echo", {"disk": "sda", "sizes": [1, 2]}) == {"got": {"disk": "sda", "sizes": [1, 2]}}


def test_an_unknown_query_names_those_there_are(client):
    with pytest.raises(NotFound, match=r"no plugin of this node answers 'acme.other'; known: acme.echo, acme.full"):
        client.query("acme.other", {})


def test_what_a_plugin_says_is_wrong_reaches_who_asked(site, client):
    with pytest.raises(ServiceRefused, match="node hv1 refused: acme: the array is full"):
        client.query("acme.full", {})
    assert post(site[0], "/v1/query/acme.late", b"{}") == (503, {"error": "acme: the array does not answer"})


@pytest.mark.parametrize("body", [b"[1]", b"not JSON", b"{" + b" " * 70_000 + b"}"])
def test_arguments_that_are_no_small_object_are_refused(site, body):
    status, answer = post(site[0], "/v1/query/acme.echo", body)
    assert (status, "object" in answer["error"]) == (400, True)


def test_a_query_needs_the_token(site):
    assert post(site[0], "/v1/query/acme.echo", b"{}", token="wrong")[0] == 401
    assert post(site[0], "/v1/elsewhere", b"{}")[0] == 404


def test_a_file_arrives_in_parts_in_any_order_and_can_be_given_up(client):
    path = Path(client.upload_begin("disk.img", 40, 20))
    client.upload_part(path.name, 30, b"z" * 10)
    client.upload_part(path.name, 0, b"a" * 10)
    client.upload_part(path.name, 0, b"b" * 10)
    assert path.read_bytes() == b"b" * 10 + bytes(20) + b"z" * 10
    client.upload_end(path.name)
    assert not path.exists()
    with pytest.raises(NotFound, match="node hv1: there is no upload"):
        client.upload_part(path.name, 0, b"late")


def test_a_large_part_that_is_refused_is_answered_and_not_cut_off(site, client):
    name = client.upload_begin("disk.img", MAX_PART_BYTES, 0).rpartition("/")[2]
    body = bytes(MAX_PART_BYTES)
    status, answer = put(site[0], f"/v1/upload/{name}?offset=1", body)
    assert (status, "do not lie within" in answer["error"]) == (400, True)
    status, answer = put(site[0], f"/v1/upload/{name}", body, {"X-SHA256": "0" * 64})
    assert (status, "did not arrive as they were sent" in answer["error"]) == (409, True)
    status, answer = put(site[0], "/v1/upload/other", body)
    assert (status, "there is no upload 'other'" in answer["error"]) == (404, True)


@pytest.mark.parametrize("body", [b'{"name": "a"}', b'{"name": "a", "size_bytes": 0, "data_bytes": 0}', b"[]"])
def test_a_new_file_needs_a_name_and_sizes(site, body):
    status, answer = post(site[0], "/v1/upload", body)
    assert (status, "arguments do not fit" in answer["error"]) == (400, True)


def test_files_need_the_token_and_a_known_address(site, client):
    name = client.upload_begin("disk.img", 4, 4).rpartition("/")[2]
    assert put(site[0], f"/v1/upload/{name}", b"data", token="wrong")[0] == 401
    assert put(site[0], "/v1/elsewhere", b"data")[0] == 404
    assert put(site[0], f"/v1/upload/{name}", b"data", {"Content-Length": "99999999999"})[0] == 400


@pytest.fixture
def client(site):
    service, parts = site
    return ServiceClient("hv1", "127.0.0.1", service.port, str(parts.token_file))


def get(service, path, headers=()):
    return ask(service, "GET", path, headers=headers)


def test_health_needs_no_token_and_tells_nothing_of_guests(site):
    status, body = get(site[0], "/v1/health")
    assert status == 200
    assert json.loads(body) == {"node": "hv1", "daemon": "starting", "lease": True}


def test_health_without_a_lease_is_unavailable(site):
    site[1].lease.held = None
    assert get(site[0], "/v1/health")[0] == 503


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Bearer secretx", "Basic secret", "secret", "Bearer \xff"])
def test_without_the_token_nothing_is_told(site, header):
    (site[1].console_directory / f"{VM}.log").write_bytes(b"private")
    status, body = get(site[0], f"/v1/vm/{VM}/console.log", {"Authorization": header} if header else {})
    assert status == 401
    assert b"private" not in body


def test_a_changed_token_counts_at_once(site, client):
    (site[1].console_directory / f"{VM}.log").write_bytes(b"x")
    site[1].token_file.write_text("other")
    assert client.console_log(VM).data == b"x"


def test_a_token_file_that_went_away_closes_the_service(site):
    headers = {"Authorization": "Bearer secret"}
    site[1].token_file.unlink()
    assert get(site[0], f"/v1/vm/{VM}/console.log", headers)[0] == 503
    site[1].token_file.write_text("")
    assert get(site[0], f"/v1/vm/{VM}/console.log", {"Authorization": "Bearer "})[0] == 503


def test_a_service_without_a_usable_token_is_not_started(site, tmp_path):
    parts = site[1]
    with pytest.raises(ServiceError, match="cannot read"):
        NodeService(parts._replace(token_file=tmp_path / "none"), "127.0.0.1", 0)
    open_to_all = tmp_path / "open"
    open_to_all.write_text("x")
    open_to_all.chmod(0o644)
    with pytest.raises(ServiceError, match="chmod 0600"):
        read_token(open_to_all)
    empty = tmp_path / "empty"
    empty.touch(0o600)
    with pytest.raises(ServiceError, match="is empty"):
        read_token(empty)


def test_a_port_in_use_is_told(site):
    with pytest.raises(ServiceError, match=f"port {site[0].port}"):
        NodeService(site[1], "127.0.0.1", site[0].port)


@pytest.mark.parametrize(
    "path", ["/", "/v1/vm/../etc/passwd", "/v1/vm/%2e%2e/console.log", "/v1/vm//console.log", "/v1/x"]
)
def test_other_paths_do_not_exist(site, path):
    assert get(site[0], path, {"Authorization": "Bearer secret"})[0] == 404


def test_a_log_is_read_in_parts_and_followed(site, client):
    path = site[1].console_directory / f"{VM}.log"
    path.write_bytes(b"booting\nready\n")
    first = client.console_log(VM, offset=0, limit=8)
    assert first == (b"booting\n", 8)
    assert client.console_log(VM, offset=8) == (b"ready\n", 14)
    assert client.console_log(VM, offset=14) == (b"", 14)
    with path.open("ab") as file:
        file.write(b"more")
    assert client.console_log(VM, offset=14) == (b"more", 18)


def test_the_tail_of_a_log(site, client):
    (site[1].console_directory / f"{VM}.log").write_bytes(b"1\n2\n3\n4\n")
    assert client.console_tail(VM, 2) == (b"3\n4\n", 8)


def test_a_log_that_is_not_there_is_told_with_vm_and_node(client):
    with pytest.raises(NotFound, match=f"no console log of VM {VM} on node hv1"):
        client.console_log(VM)


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "limit=1e3", "tail=", "tail=99999999999999999999"])
def test_numbers_that_are_none_are_refused(site, query):
    (site[1].console_directory / f"{VM}.log").write_bytes(b"x")
    status, body = get(site[0], f"/v1/vm/{VM}/console.log?{query}", {"Authorization": "Bearer secret"})
    assert status == 400 or query == "tail="
    assert json.loads(body)["error"] if status == 400 else True


def test_a_console_carries_bytes_both_ways_until_the_guest_ends(site, client):
    console = site[1].hypervisor.consoles[VM] = FakeConsole()
    connection, said = client.console(VM)
    connection.settimeout(10)
    console.say(b"login: ")
    while len(said) < 7:
        said += connection.recv(100)
    assert said == b"login: "
    connection.sendall(b"root\n")
    assert console.arrived.wait(10)
    assert console.typed == b"root\n"
    console.end()
    assert connection.recv(100) == b""
    connection.close()
    assert console.closed.wait(10)
    console.release()


def test_bytes_sent_along_with_the_request_reach_the_guest(site):
    console = site[1].hypervisor.consoles[VM] = FakeConsole()
    with socket.create_connection(("127.0.0.1", site[0].port), timeout=10) as connection:
        connection.sendall(
            f"GET /v1/vm/{VM}/console HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
            "Connection: Upgrade\r\nUpgrade: pvc-console\r\n\r\nearly\n".encode()
        )
        assert console.arrived.wait(10)
    assert console.typed == b"early\n"
    assert console.closed.wait(10)
    console.release()


def test_a_client_that_goes_away_closes_the_console(site, client):
    console = site[1].hypervisor.consoles[VM] = FakeConsole()
    connection, _ = client.console(VM)
    connection.close()
    assert console.closed.wait(10)
    console.release()


def test_stopping_the_service_ends_open_consoles(site, client):
    console = site[1].hypervisor.consoles[VM] = FakeConsole()
    connection, _ = client.console(VM)
    connection.settimeout(10)
    site[0]._server.close_consoles()
    assert connection.recv(100) == b""
    connection.close()
    console.release()


def test_a_console_that_cannot_be_opened_says_why(site, client):
    site[1].hypervisor.error = HypervisorError("this host has no domain of VM x")
    with pytest.raises(ServiceRefused, match="no domain of VM x"):
        client.console(VM)
    site[1].hypervisor.error = HypervisorUnavailable("libvirt does not answer")
    with pytest.raises(ServiceRefused, match="libvirt does not answer"):
        client.console(VM)


def test_a_console_is_not_opened_by_a_plain_request(site):
    assert get(site[0], f"/v1/vm/{VM}/console", {"Authorization": "Bearer secret"})[0] == 426


def test_the_client_explains_itself(site, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    with pytest.raises(ServiceRefused, match="does not accept the token"):
        ServiceClient("hv1", "127.0.0.1", site[0].port, str(wrong)).console_log(VM)
    with pytest.raises(InvalidRequest, match="cannot read the token"):
        ServiceClient("hv1", "127.0.0.1", site[0].port, str(tmp_path / "none")).console_log(VM)
    with pytest.raises(Unavailable, match="does not answer"):
        ServiceClient("hv1", "127.0.0.1", 1, str(wrong)).console_log(VM)


def test_reading_after_the_file_was_begun_anew_starts_over(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"new")
    assert read_from(path, 1000, 10) == (b"new", 3)


def test_an_answer_is_bounded(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * (MAX_BYTES + 10))
    assert len(read_from(path, 0, 1 << 40).data) == MAX_BYTES
    assert len(read_tail(path, 5).data) == MAX_BYTES


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"", 5, b""),
        (b"a", 5, b"a"),
        (b"a\nb", 1, b"b"),
        (b"a\nb\n", 1, b"b\n"),
        (b"a\nb\n", 2, b"a\nb\n"),
        (b"a\nb\n", 0, b""),
        (b"\n\n\n", 2, b"\n\n"),
    ],
)
def test_the_tail_counts_lines_as_people_do(tmp_path, content, lines, expected):
    path = tmp_path / "log"
    path.write_bytes(content)
    assert read_tail(path, lines) == (expected, len(content))


def test_a_long_tail_is_read_from_the_end(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(200_000)))
    assert read_tail(path, 3).data == b"199997\n199998\n199999\n"
    assert path.stat().st_size == read_tail(path, 3).next_offset
