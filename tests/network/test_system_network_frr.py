"""FRR on a node that has guests: it dies, hangs or is stopped, and comes back; what an operator wrote into it stays."""

import signal

import pytest

pytestmark = [pytest.mark.real, pytest.mark.network, pytest.mark.timeout(300)]

WRITTEN = ("ip prefix-list OPERATOR seq 5 permit 192.0.2.0/24", "ip route 192.0.2.0/24 Null0")


def vtysh(lab, node, *commands):
    return lab.node(node, "vtysh", *(word for command in commands for word in ("-c", command)))


def pid(lab, node, name="bgpd"):
    return lab.sandbox.exec(node, ["pgrep", "-x", name]).stdout.strip()


def whole(lab, node):
    return all(lab.condition(node, kind).get("ok") for kind in ("Routing", "Fabric", "Upstream"))


@pytest.fixture
def node(lab):
    """A node with a guest that is not the primary; FRR is well there in the end."""
    found = next(each for each in (lab.reserved.node, lab.ranged.node) if each != lab.primary())
    yield found
    lab.eventually(f"FRR of {found} is well", lambda: whole(lab, found), within_s=90)


@pytest.fixture
def guests(lab, node):
    """The guest there, and another elsewhere that reaches it."""
    inside, outside = (lab.reserved, lab.ranged) if lab.reserved.node == node else (lab.ranged, lab.reserved)
    outside.will_reach(inside.address)
    return inside, outside


def test_bgpd_that_was_killed_is_back_and_so_are_the_guests(lab, node, guests):
    inside, outside = guests
    before = pid(lab, node)
    with outside.pinging(inside.address) as pings:
        lab.node(node, "kill", "-9", before)
        lab.eventually("bgpd runs again", lambda: (now := pid(lab, node)) and now != before)
        pings.go_on()
    print(f"bgpd of {node} killed: {pings.told}")
    lab.eventually("all is well", lambda: whole(lab, node), within_s=90)


def test_bgpd_that_hangs_is_noticed_and_repaired(lab, node, guests):
    inside, outside = guests
    before, watcher = pid(lab, node), pid(lab, node, "watchfrr")
    # FRR's own watching would be quicker than we can look.
    lab.node(node, "kill", "-STOP", watcher, before)
    try:
        told = lab.eventually(
            "the condition is told", lambda: (c := lab.condition(node, "Routing")) and not c["ok"] and c, within_s=90
        )
        print(f"bgpd of {node} hangs: {told['message']}")
    finally:
        lab.sandbox.exec(node, ["kill", "-CONT", watcher])
    lab.eventually("another bgpd runs", lambda: (now := pid(lab, node)) and now != before, within_s=90)
    lab.eventually("all is well", lambda: whole(lab, node), within_s=90)
    outside.will_reach(inside.address)


def test_frr_that_was_stopped_is_started_again(lab, node, guests):
    from pvc_sandbox.control import Stop, ask

    inside, outside = guests
    before = pid(lab, node)
    # What systemctl does first; it then waits for the end, which it may not see: so soon is FRR started again.
    ask(lab.layout.node_run(lab.layout.node_number(node)), Stop(name="frr"))
    lab.eventually("FRR runs", lambda: (now := pid(lab, node)) and now != before)
    outside.will_reach(inside.address)


def test_lines_of_an_operator_survive_a_change_of_the_plugin_s_configuration(lab, node, guests):
    inside, outside = guests
    file = lab.layout.node_state(lab.layout.node_number(node)) / "pvcnoded.yml"
    before = file.read_text()
    vtysh(lab, node, "configure terminal", *WRITTEN)
    asn = f"remote-as {lab_asn()}"
    assert f"10.80.{lab.layout.index}.251" not in before
    try:
        configure(lab, node, file, another_router(lab, before))
        lab.eventually(
            "our change is there", lambda: f"neighbor 10.80.{lab.layout.index}.251 {asn}" in running(lab, node)
        )
        assert all(line in running(lab, node) for line in WRITTEN)
        outside.will_reach(inside.address)
    finally:
        configure(lab, node, file, before)
    lab.eventually("our change is gone", lambda: f"10.80.{lab.layout.index}.251" not in running(lab, node))
    assert all(line in running(lab, node) for line in WRITTEN)
    saved = lab.node(node, "cat", "/etc/frr/frr.conf")
    assert all(line in saved for line in WRITTEN)
    vtysh(lab, node, "configure terminal", *(f"no {line}" for line in WRITTEN))
    vtysh(lab, node, "write")


def lab_asn():
    from pvc_sandbox.router import ASN

    return ASN


def running(lab, node):
    return vtysh(lab, node, "show running-config")


def another_router(lab, text):
    """Return a node's configuration with a router outside that is not there."""
    import yaml

    whole = yaml.safe_load(text)
    routers = whole["plugins"]["vxlan"]["upstream"]
    routers.append({"address": f"10.80.{lab.layout.index}.251", "asn": lab_asn()})
    return yaml.safe_dump(whole, sort_keys=False)


def configure(lab, node, file, text):
    """Give a node's daemon another configuration."""
    starts = lab.cluster.service(node).starts
    file.write_text(text)
    lab.cluster.signal(node, signal.SIGTERM)
    lab.eventually("the daemon is back", lambda: (s := lab.cluster.service(node)).starts > starts and s.ready)
