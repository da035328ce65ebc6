"""Settings of a network namespace's kernel."""

import pytest

from pvc_core.plugin import DriverError
from pvc_netdev import namespace, sysctl
from pvc_netdev.links import Links

pytestmark = pytest.mark.real


def test_setting_is_read_and_written(inside):
    assert sysctl.read("ipv4/ip_forward") == "0"
    sysctl.write("ipv4/ip_forward", "1")
    assert sysctl.read("ipv4/ip_forward") == "1"
    sysctl.write("ipv4/ip_forward", "1")


def test_setting_is_that_of_the_threads_namespace(inside, make_namespace):
    other = make_namespace()
    sysctl.write("ipv4/ip_forward", "1")
    with namespace.entered(other):
        assert sysctl.read("ipv4/ip_forward") == "0"
        sysctl.write("ipv4/conf/lo/arp_ignore", "8")
    assert sysctl.read("ipv4/ip_forward") == "1"
    assert sysctl.read("ipv4/conf/lo/arp_ignore") == "0"


def test_setting_that_the_kernel_does_not_have_is_left(inside):
    assert sysctl.read("ipv4/conf/nothing/arp_ignore") is None
    sysctl.write("ipv4/conf/nothing/arp_ignore", "8")
    assert sysctl.read("ipv4/conf/nothing/arp_ignore") is None


def test_value_that_the_kernel_refuses_is_told(inside):
    with pytest.raises(DriverError, match=r"cannot write maybe to /proc/sys/net/ipv4/ip_forward: Invalid argument"):
        sysctl.write("ipv4/ip_forward", "maybe")
    with pytest.raises(DriverError, match="cannot read /proc/sys/net/ipv4/conf: Is a directory"):
        sysctl.read("ipv4/conf")


def test_host_is_kept_out_of_the_guests_ipv6(links):
    links.add_bridge("br")
    sysctl.no_ipv6("br")
    assert sysctl.read("ipv6/conf/br/disable_ipv6") == "1"
    assert sysctl.read("ipv6/conf/lo/disable_ipv6") == "0"


def test_frames_of_guests_are_kept_from_the_firewall(inside):
    for name in ("iptables", "ip6tables", "arptables"):
        sysctl.write(f"bridge/bridge-nf-call-{name}", "1")
    there = sysctl.read("bridge/bridge-nf-call-iptables") is not None
    assert len(sysctl.bridge_netfilter()) == (3 if there else 0)
    sysctl.no_bridge_netfilter()
    assert sysctl.bridge_netfilter() == []
    if there:
        with Links():
            assert sysctl.read("bridge/bridge-nf-call-arptables") == "0"
