"""What a cluster consists of, and the files of its nodes."""

from pathlib import Path

import msgspec
import pytest
import yaml
from msgspec import convert

from pvc_core.config.schema import ClientConfig, NodeConfig
from pvc_sandbox import boot, cluster
from pvc_sandbox.cluster import (
    ClusterPlan,
    coordinators_for,
    load_plan,
    make_plan,
    node_config,
    node_equipment,
    node_is_configured,
    node_services,
    node_watchdog,
)
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.layout import Layout


@pytest.fixture
def layout(tmp_path):
    return Layout(name="t", index=7, state=str(tmp_path))


def read(path, type_):
    return msgspec.convert(yaml.safe_load(Path(path).read_text()), type_)


@pytest.mark.parametrize(("nodes", "coordinators"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)])
def test_number_of_coordinators_is_odd(nodes, coordinators):
    assert coordinators_for(nodes) == coordinators


def test_cluster_has_three_nodes_unless_asked_otherwise(layout):
    assert make_plan(layout, None).nodes == 3


def test_plan_is_kept(layout):
    assert make_plan(layout, 4, memory_mib=1024) == load_plan(layout) == make_plan(layout, None)


def test_plan_is_the_same_when_it_is_read_again(layout):
    assert make_plan(layout, 3, watchdog_timeout_s=60).watchdog_timeout_s.__class__ is float


def test_plan_that_cannot_be_is_refused_and_not_kept(layout):
    with pytest.raises(SandboxError, match=r"cannot be like that: Expected `bool`.*bmc"):
        make_plan(layout, 3, bmc="perhaps")
    assert load_plan(layout) is None


def test_cluster_grows_by_hypervisors(layout):
    make_plan(layout, 3)
    grown = make_plan(layout, 6)
    assert (grown.nodes, list(grown.coordinator_numbers())) == (6, [1, 2, 3])


def test_cluster_does_not_shrink(layout):
    make_plan(layout, 3)
    with pytest.raises(SandboxError, match="has 3 nodes already, so it cannot have 2"):
        make_plan(layout, 2)
    assert load_plan(layout).nodes == 3


def test_cluster_has_no_ceph_unless_asked_for(layout):
    plan = make_plan(layout, 3)
    assert (plan.storage, plan.disks, plan.has_ceph) == ("dir", 0, False)


def test_node_with_ceph_has_a_second_disk_unless_asked_otherwise(tmp_path):
    first, second = (Layout(name=name, index=7, state=str(tmp_path / name)) for name in ("a", "b"))
    assert make_plan(first, 3, storage="ceph").disks == 2
    assert make_plan(second, 3, storage="ceph", disks=5).disks == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"storage": "tape"}, "cannot be like that: Invalid enum value 'tape'"),
        ({"storage": "ceph", "disks": 0}, "every node needs a disk for its OSD"),
        ({"disks": -1}, "cannot be like that"),
        ({"disk_gib": 0}, "cannot be like that"),
    ],
)
def test_storage_that_cannot_be_is_refused_and_not_kept(layout, changes, says):
    with pytest.raises(SandboxError, match=says):
        make_plan(layout, 3, **changes)
    assert load_plan(layout) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"storage": "dir"}, "was made with storage 'ceph', which cannot become 'dir'; begin anew: pvc sandbox down"),
        ({"disks": 1}, "was made with disks 2, which cannot become 1"),
        ({"disk_gib": 8}, "was made with disk_gib 4, which cannot become 8"),
    ],
)
def test_storage_of_a_cluster_does_not_change(layout, changes, says):
    before = make_plan(layout, 3, storage="ceph")
    assert make_plan(layout, None, storage="ceph") == before
    with pytest.raises(SandboxError, match=says):
        make_plan(layout, 4, **changes)
    assert load_plan(layout) == before


def test_networks_are_plain_bridges_unless_asked_for(layout):
    plan = make_plan(layout, 3)
    assert not plan.frr
    assert not {"vxlan", "hostnet"} & plan.plugins.keys()
    assert not node_equipment(layout, plan, 1).router
    assert make_plan(layout, 3, network="bridge") == plan


def test_managed_networks_bring_their_plugins_and_frr(layout):
    plan = make_plan(layout, 4, network="vxlan")
    assert plan.frr
    assert plan.plugins.keys() == {"dir", "bridge", "vxlan", "hostnet"}
    assert make_plan(layout, None) == make_plan(layout, None, network="vxlan") == plan
    equipment = node_equipment(layout, plan, 1)
    assert equipment.router
    assert {target for _, target in equipment.binds} == {"/etc/frr", "/var/log/frr", "/var/tmp/frr"}


def test_who_has_the_plugin_has_frr(layout):
    assert make_plan(layout, 3, plugins={"dir": {}, "vxlan": {"asn": 65001}}).frr


@pytest.mark.real  # its files belong to Debian's user for FRR
def test_coordinators_know_the_routers_outside(layout):
    plan = ClusterPlan(nodes=4, plugins={"vxlan": {"asn": 65001}, "hostnet": {}}, bmc=False)
    sections = []
    for number in (3, 4):
        node_services(layout, plan, number)
        sections.append(read(node_config(layout, number), NodeConfig).plugins)
    routers = [{"address": "10.80.7.250", "asn": 65100}, {"address": "fd80:0:0:7::fa", "asn": 65100}]
    assert [section["vxlan"] for section in sections] == [{"upstream": routers, "asn": 65001}, {"asn": 65001}]
    assert sections[0]["hostnet"] == sections[1]["hostnet"]
    assert sections[0]["hostnet"]["upstream"]["gateways"] == [router["address"] for router in routers]
    config = pytest.importorskip("pvc_vxlan.config")
    assert convert(sections[0]["vxlan"], config.VxlanConfig).upstream[1].asn == 65100


@pytest.mark.real  # its files belong to Debian's user for FRR
def test_section_of_the_plan_goes_before_ours(layout):
    node_services(layout, ClusterPlan(plugins={"vxlan": {"upstream": []}}, bmc=False), 1)
    assert read(node_config(layout, 1), NodeConfig).plugins == {"vxlan": {"upstream": []}}


@pytest.mark.parametrize(("first", "then", "says"), [("bridge", "vxlan", "without"), ("vxlan", "bridge", "with")])
def test_network_of_a_cluster_does_not_change(layout, first, then, says):
    before = make_plan(layout, 3, network=first)
    with pytest.raises(SandboxError, match=f"was made {says} managed networks, which cannot be changed; begin anew"):
        make_plan(layout, None, network=then)
    assert load_plan(layout) == before


def test_network_that_cannot_be_is_refused_and_not_kept(layout):
    with pytest.raises(SandboxError, match="its network is bridge or vxlan, not 'carrier pigeon'"):
        make_plan(layout, 3, network="carrier pigeon")
    assert load_plan(layout) is None


@pytest.mark.real  # its files belong to Debian's user for FRR
def test_node_gets_frr_once_and_keeps_what_it_makes_of_it(layout):
    plan, state = ClusterPlan(plugins={"vxlan": {}}), layout.node_state(1)
    (daemon,) = [service for service in node_services(layout, plan, 1) if service.name == "pvcnoded"]
    assert daemon.env["PATH"].startswith(f"{state}/bin:")
    assert (state / "bin/systemctl").stat().st_mode & 0o111
    assert [service.name for service in boot.enabled(state)] == ["frr"]
    place = state / "etc/frr"
    assert {path.name: path.owner() for path in place.iterdir()} == dict.fromkeys(
        ("daemons", "frr.conf", "vtysh.conf"), "frr"
    )
    boot.disable(state, "frr")
    (place / "frr.conf").write_text("mine")
    node_services(layout, plan, 1)
    assert (place / "frr.conf").read_text() == "mine"
    assert boot.enabled(state) == []


@pytest.mark.real  # its files belong to Debian's user for FRR
def test_node_that_was_killed_while_it_got_frr_gets_the_rest(layout):
    node_services(layout, ClusterPlan(plugins={"vxlan": {}}), 1)
    state = layout.node_state(1)
    boot.disable(state, "frr")
    (state / "etc/frr/daemons").unlink()
    node_services(layout, ClusterPlan(plugins={"vxlan": {}}), 1)
    assert [service.name for service in boot.enabled(state)] == ["frr"]
    assert "bgpd=yes" in (state / "etc/frr/daemons").read_text()


def test_daemon_uses_ceph_where_it_is(layout):
    node_services(layout, ClusterPlan(bmc=False), 1)
    assert "ceph" not in read(node_config(layout, 1), NodeConfig).plugins


@pytest.mark.parametrize("nodes", [0, -1, 100])
def test_impossible_number_of_nodes_is_refused(layout, nodes):
    with pytest.raises(SandboxError, match="1 to 99 nodes"):
        make_plan(layout, nodes)


def test_damaged_plan_is_told(layout):
    (Path(layout.state) / "cluster.json").write_text("[]")
    with pytest.raises(SandboxError, match="cannot be read"):
        load_plan(layout)


def test_node_configuration_is_one_that_the_daemon_takes(layout):
    plan = ClusterPlan(nodes=4, coordinators=3, timing={"lease": 4}, plugins={"bridge": {}}, bmc=False)
    services = node_services(layout, plan, 2)
    config = read(node_config(layout, 2), NodeConfig)
    assert [service.name for service in services] == ["zookeeper", "pvcnoded"]
    assert [member.address for member in config.cluster.coordinators] == ["10.77.7.1", "10.77.7.2", "10.77.7.3"]
    assert (config.node.name, config.node.address, config.node.memory_mib) == ("hv2", "10.77.7.2", 2048)
    assert config.timing.lease == 4
    assert config.plugins == {"bridge": {}}


def test_node_without_a_bmc_has_no_plugin_for_it(layout):
    node_services(layout, ClusterPlan(bmc=False), 1)
    config = read(node_config(layout, 1), NodeConfig)
    assert "fence-ipmi" not in config.plugins
    assert config.watchdog.device == ""


def test_node_with_a_bmc_and_a_watchdog_has_what_uses_them(layout):
    plan = ClusterPlan(bmc=True, watchdog=True, watchdog_timeout_s=5, watchdog_reboot_s=-1, plugins={"dir": {}})
    node_services(layout, plan, 1)
    config = read(node_config(layout, 1), NodeConfig)
    assert config.plugins == {"fence-ipmi": {}, "dir": {}}
    assert (config.watchdog.device, config.watchdog.timeout) == ("/run/watchdog.sock", 5)
    assert node_watchdog(plan).reboot_s == -1
    assert node_watchdog(ClusterPlan()) is None


def test_section_of_the_fence_plugin_is_kept(layout):
    node_services(layout, ClusterPlan(bmc=True, plugins={"fence-ipmi": {"x": 1}}), 1)
    assert read(node_config(layout, 1), NodeConfig).plugins == {"fence-ipmi": {"x": 1}}


def test_changed_configuration_is_seen(layout):
    plan = ClusterPlan()
    assert not node_is_configured(layout, plan, 1)
    node_services(layout, plan, 1)
    assert node_is_configured(layout, plan, 1)
    assert not node_is_configured(layout, ClusterPlan(timing={"lease": 4}), 1)


def test_hypervisor_runs_no_state_store(layout):
    assert [service.name for service in node_services(layout, ClusterPlan(nodes=4), 4)] == ["pvcnoded"]


def test_client_configuration_enters_the_switch(layout):
    cluster.configure(layout, ClusterPlan())
    config = read(layout.client_config, ClientConfig)
    assert config.network_namespace == "pvc-t"
    assert config.service.token_file == read_token_file(layout)


def read_token_file(layout):
    path = Path(layout.state) / "token"
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    cluster.configure(layout, ClusterPlan())
    assert path.read_text() == token  # nodes that run know this one
    return str(path)
