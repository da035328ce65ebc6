"""A real guest's console and its log, through the service of the node it runs on."""

import signal
import threading
from contextlib import closing

import pytest

from pvc_core.client.service import ServiceClient, ServiceRefused
from pvc_core.model.errors import NotFound
from pvc_core.testkit.lan import entered

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def site(cluster, module_guests):
    return Console(cluster, module_guests.linux(node="hv2", start=True))


class Console:
    def __init__(self, cluster, vm):
        self.cluster = cluster
        self.id = cluster.id(vm)
        cluster.eventually("the guest boots", lambda: "GUEST-UP" in cluster.console(self.id))

    def client(self, node="hv2", token=None):
        layout = self.cluster.sandbox.layout
        address = layout.cluster_address(layout.node_number(node))
        return ServiceClient(node, address, 7372, str(token or f"{layout.state}/token"))

    def inside(self, call):
        """Run something where the nodes can be reached: in the switch's network namespace."""
        with entered(self.cluster.sandbox.layout.switch):
            return call()


def read_until(connection, wanted, said=b""):
    connection.settimeout(30)
    while wanted not in said:
        more = connection.recv(4096)
        assert more, said
        said += more
    return said


def test_the_log_is_read_from_where_it_is_and_followed(site):
    site.cluster.eventually("some lines", lambda: "tick 2" in site.cluster.console(site.id))
    first = site.inside(lambda: site.client().console_log(site.id, limit=1 << 20))
    assert b"GUEST-UP" in first.data
    tail = site.inside(lambda: site.client().console_tail(site.id, 2))
    assert len(tail.data.splitlines()) == 2
    assert tail.next_offset >= first.next_offset
    site.cluster.eventually(
        "more of the log", lambda: site.inside(lambda: site.client().console_log(site.id, offset=tail.next_offset)).data
    )


def test_a_console_carries_what_is_typed_to_the_guest_and_its_answer_back(site):
    connection, said = site.inside(lambda: site.client().console(site.id))
    with closing(connection):
        connection.sendall(b"echo sum $((40 + 2))\n")
        assert b"sum 42" in read_until(connection, b"sum 42", said)
    site.cluster.eventually("the log has it too", lambda: "sum 42" in site.cluster.console(site.id))


def test_a_second_console_takes_over_from_the_first(site):
    first, _ = site.inside(lambda: site.client().console(site.id))
    with closing(first):
        ended = threading.Event()

        def drain():
            while first.recv(4096):
                continue
            ended.set()

        threading.Thread(target=drain, daemon=True).start()
        second, said = site.inside(lambda: site.client().console(site.id))
        with closing(second):
            second.sendall(b"echo again $((1 + 1))\n")
            read_until(second, b"again 2", said)
        assert ended.wait(20)


def test_the_console_works_again_after_the_daemon_was_killed(site):
    before = site.cluster.lease("hv2")
    site.cluster.signal("hv2", signal.SIGKILL)
    site.cluster.eventually("the daemon is back", lambda: site.cluster.lease("hv2") == before + 1)
    connection, said = site.inside(lambda: site.client().console(site.id))
    with closing(connection):
        connection.sendall(b"echo back $((2 + 3))\n")
        read_until(connection, b"back 5", said)


def test_another_node_has_neither_console_nor_log(site):
    with pytest.raises(ServiceRefused, match="no domain"):
        site.inside(lambda: site.client("hv1").console(site.id))
    with pytest.raises(NotFound, match="no console log"):
        site.inside(lambda: site.client("hv1").console_log(site.id))


def test_a_wrong_token_opens_nothing(site, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text("guess")
    with pytest.raises(ServiceRefused, match="does not accept the token"):
        site.inside(lambda: site.client(token=wrong).console(site.id))
