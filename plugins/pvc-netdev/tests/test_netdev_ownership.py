"""Devices say whose they are, and are never taken from somebody else."""

import pytest

from pvc_core.plugin import DriverError
from pvc_netdev.links import Link
from pvc_netdev.ownership import Owner, discard_interim, interim

OURS = Owner("pvc-test")
NETWORK = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"
NAME = "pvcbr6d0f1c523a"


def link(alias, kind="bridge"):
    return Link(index=2, name=NAME, kind=kind, alias=alias, mtu=1500, up=True, carrier=True, master=0, mac="")


@pytest.mark.parametrize(
    ("alias", "network", "role"),
    [
        (f"pvc-test:{NETWORK}:eth1", NETWORK, "eth1"),
        (f"pvc-test:{NETWORK}:", NETWORK, ""),
        (f"pvc-test:{NETWORK}:a:b", NETWORK, "a:b"),
        ("pvc-test::eth1", "", "eth1"),
    ],
)
def test_alias_says_network_and_role(alias, network, role):
    assert OURS.owns(link(alias))
    assert (OURS.network_of(link(alias)), OURS.role_of(link(alias))) == (network, role)
    assert OURS.alias(network, role) == alias


@pytest.mark.parametrize("alias", ["", "uplink to rack 3", "pvc-test", "pvc-test:x", f"pvc-testing:{NETWORK}:eth1"])
def test_other_aliases_are_not_ours(alias):
    assert not OURS.owns(link(alias))
    assert (OURS.network_of(link(alias)), OURS.role_of(link(alias))) == ("", "")


def test_device_of_ours_is_told_from_one_in_the_way():
    ours = link(OURS.alias(NETWORK, ""))
    assert OURS.mine(None, NETWORK, "bridge") is None
    assert OURS.mine(ours, NETWORK, "bridge") is ours
    for other in (link(""), link(OURS.alias("another", "")), link(OURS.alias(NETWORK, ""), kind="veth")):
        with pytest.raises(DriverError, match=f"this node has a device {NAME}, .*, that is not ours") as caught:
            OURS.mine(other, NETWORK, "bridge")
        assert not caught.value.retryable


@pytest.mark.real
def test_device_is_made_with_its_alias(links):
    made = OURS.make(links, NAME, OURS.alias(NETWORK, "x"), links.add_bridge)
    assert (made.name, made.alias) == (NAME, OURS.alias(NETWORK, "x"))
    assert links.get(interim(NAME)) is None


@pytest.mark.real
def test_device_of_ours_makes_way_and_one_of_others_does_not(links):
    first = OURS.make(links, NAME, OURS.alias(NETWORK, "x"), links.add_bridge)
    second = OURS.make(links, NAME, OURS.alias(NETWORK, "y"), links.add_bridge)
    assert first.index != second.index
    links.set(second, "the alias", ifalias="mine")
    with pytest.raises(DriverError, match="that is not ours"):
        OURS.make(links, NAME, OURS.alias(NETWORK, "z"), links.add_bridge)
    assert links.get(NAME).index == second.index
    assert links.get(interim(NAME)) is None


@pytest.mark.real
def test_what_a_dead_daemon_left_is_made_anew_or_discarded(links):
    links.add_bridge(interim(NAME))
    made = OURS.make(links, NAME, OURS.alias(NETWORK, "x"), links.add_bridge)
    assert [found.name for found in links.all()] == ["lo", made.name]
    links.add_bridge(interim(NAME))
    for _ in range(2):
        discard_interim(links, NAME)
    assert [found.name for found in links.all()] == ["lo", made.name]
