"""What Ceph's daemons read, and what was made beforehand for them."""

import base64
import configparser
import stat
from pathlib import Path

import pytest
import yaml

from pvc_sandbox import boot, ceph, ceph_config, cluster
from pvc_sandbox.ceph_records import (
    load_first_osd,
    load_record,
    make_first_osd,
    make_record,
    write_first_osd,
)
from pvc_sandbox.cluster import ClusterPlan, node_equipment, node_services
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.layout import Layout
from pvc_sandbox.units.known import unit


@pytest.fixture
def layout(tmp_path):
    return Layout(name="t", index=7, state=str(tmp_path))


@pytest.fixture
def monmap(monkeypatch):
    """Ceph's own tool is not wanted here."""
    monkeypatch.setattr(ceph, "run", lambda argv, **_: Path(argv[-1]).touch() or Done())


class Done:
    def check(self):
        return self


def parsed(text):
    found = configparser.ConfigParser(delimiters="=")
    found.read_string(text)
    return found


def conf(**changes):
    places = {"fsid": "f", "network": "10.0.0.0/24", "monitors": ["10.0.0.1", "10.0.0.2"], "mgr_modules": "/m"}
    return parsed(ceph_config.configuration(**(places | changes)))


def test_key_has_the_form_of_those_that_ceph_makes():
    known = "AQBXygxrNmVtFRAANGW5qtdAfIlT6r6xhdFj1w=="  # by ceph-authtool --gen-print-key
    made_ns = 1_796_000_343_359_490_870
    assert ceph_config.encode_key(base64.b64decode(known)[12:], made_ns) == known


def test_keyring_names_entity_key_and_capabilities():
    text = ceph_config.keyring("mgr.hv1", "K==", {"mon": "allow profile mgr"}) + ceph_config.keyring("osd.0", "L==")
    assert text == '[mgr.hv1]\n\tkey = K==\n\tcaps mon = "allow profile mgr"\n[osd.0]\n\tkey = L==\n'


@pytest.mark.parametrize(("nodes", "size", "least"), [(1, "1", "1"), (2, "2", "1"), (3, "3", "2"), (9, "3", "2")])
def test_pools_have_as_many_copies_as_fit(nodes, size, least):
    assert ceph_config.pool_defaults(nodes) == {"osd_pool_default_size": size, "osd_pool_default_min_size": least}


def test_configuration_knows_all_monitors_by_the_new_protocol_only():
    found = conf()
    assert found["global"]["mon host"] == "[v2:10.0.0.1:3300],[v2:10.0.0.2:3300]"
    assert found["global"]["ms bind msgr1"] == "false"
    assert found["mgr"]["mgr module path"] == "/m"


def test_what_is_where_debian_has_it_is_not_configured():
    found = conf()
    assert not {"keyring", "run dir"} & set(found["global"])
    assert not any("log file" in found[daemon] for daemon in ("mon", "mgr", "osd"))


def test_places_elsewhere_are_configured():
    found = conf(logs="/l", keyring_file="/k", run_directory="/r")
    assert (found["global"]["keyring"], found["global"]["run dir"]) == ("/k", "/r")
    assert {found[daemon]["log file"] for daemon in ("mon", "mgr", "osd")} == {"/l/ceph-$type@$id.log"}


def test_record_is_made_once(layout):
    record = make_record(layout, [1, 2, 3], 3)
    assert make_record(layout, [1, 2, 3], 5) == record == load_record(layout)
    assert record.founders == 3
    assert stat.S_IMODE((Path(layout.state) / "ceph/record.json").stat().st_mode) == 0o600


def test_nodes_of_the_beginning_have_the_first_ids_and_later_ones_whatever_is_free(layout):
    make_record(layout, [1], 2)
    made = [make_first_osd(layout, number) for number in (1, 2, 3)]
    assert [osd.id for osd in made] == [0, 1, None]
    assert len({osd.uuid for osd in made} | {osd.key for osd in made}) == 6
    assert make_first_osd(layout, 2) == made[1]


def test_sandbox_whose_ceph_was_never_made_is_told(layout):
    with pytest.raises(SandboxError, match="has no Ceph yet; make it: pvc sandbox up --name t"):
        load_record(layout)


def test_damaged_record_is_told(layout):
    make_record(layout, [1], 1)
    (Path(layout.state) / "ceph/record.json").write_text("{}")
    with pytest.raises(SandboxError, match=r"cannot be read .*begin anew: pvc sandbox down --name t"):
        load_record(layout)


def test_node_is_finished_for_good_once_its_osd_was_started(layout):
    make_record(layout, [1], 2)
    osd = make_first_osd(layout, 1)
    assert ceph.unfinished(layout, [1, 2]) == [1, 2]
    write_first_osd(layout, 1, type(osd)(uuid=osd.uuid, key=osd.key, id=osd.id, made=True))
    assert ceph.unfinished(layout, [1, 2]) == [2]
    assert load_first_osd(layout, 2) is None


@pytest.mark.usefixtures("monmap")
def test_cluster_has_one_set_of_keys(layout):
    plan = ClusterPlan(nodes=3, storage="ceph", disks=1)
    cluster.configure(layout, plan)
    common = Path(layout.state) / "ceph"
    first = parsed_keyring(common / "initial.keyring")
    assert list(first) == ["mon.", "client.admin", "mgr.hv1", "mgr.hv2", "mgr.hv3"]
    assert parsed_keyring(common / "ceph.client.admin.keyring") == {"client.admin": first["client.admin"]}
    cluster.configure(layout, plan)
    assert parsed_keyring(common / "initial.keyring") == first
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in common.glob("*.keyring"))
    assert {path.name for path in (common / "mgr-modules").iterdir()} >= {"volumes", "mgr_module.py"}


def parsed_keyring(path):
    found = parsed(path.read_text().replace("\t", ""))
    return {section: found[section]["key"] for section in found.sections()}


@pytest.mark.usefixtures("monmap")
def test_node_has_everything_where_debian_has_it(layout):
    plan = ClusterPlan(nodes=4, storage="ceph", disks=2, disk_gib=3)
    cluster.configure(layout, plan)
    *_, daemon = node_services(layout, plan, 4)
    assert list(yaml.safe_load(cluster.node_config(layout, 4).read_text())["plugins"]) == [
        "fence-ipmi", "ceph", "dir", "bridge",
    ]  # fmt: skip
    equipment = node_equipment(layout, plan, 4)
    assert equipment.disks == (3 << 30, 3 << 30)
    places = {target: Path(source) for source, target in equipment.binds}
    assert (places["/etc/ceph"] / "ceph.client.admin.keyring").exists()
    found = parsed((places["/etc/ceph"] / "ceph.conf").read_text())
    assert found["global"]["mon host"].count("v2:") == 3
    assert found["osd"]["log file"] == f"{layout.node_state(4)}/log/ceph-$type@$id.log"
    assert {path.name for path in places["/var/lib/ceph"].iterdir()} >= {"mon", "mgr", "osd", "crash"}
    first, *_ = daemon.env["PATH"].split(":")
    assert (Path(first) / "systemctl").stat().st_mode & 0o111
    assert f"PATH={Path(cluster.sys.executable).parent}:{first}:" in str(cluster.shell_environment(layout, plan, 4))


def test_node_without_ceph_has_nothing_of_it(layout):
    plan = ClusterPlan()
    *_, daemon = node_services(layout, plan, 1)
    assert node_equipment(layout, plan, 1) == boot.NO_EQUIPMENT
    assert str(layout.state) not in daemon.env["PATH"]
    assert not (layout.node_state(1) / "ceph").exists()


@pytest.mark.parametrize("name", ["ceph-osd@12", "ceph-mon@hv1", "ceph-mgr@hv1", "ceph-osd@0.service"])
def test_unit_is_the_daemon_of_that_id(tmp_path, name):
    service = unit(tmp_path, name).service
    program, _, id_ = service.name.partition("@")
    assert service.name == name.removesuffix(".service")
    assert service.argv == (program, "-f", "-i", id_)
    assert service.log == f"{tmp_path}/log/{service.name}.log"


@pytest.mark.parametrize(
    "name", ["ceph-osd@", "ceph-osd@x", "ceph-osd@1/..", "ceph-mon@a/b", "ceph.target", "sshd", ""]
)
def test_other_units_are_not_known(tmp_path, name):
    with pytest.raises(SandboxError, match="is not known on a node of a sandbox"):
        unit(tmp_path, name)
