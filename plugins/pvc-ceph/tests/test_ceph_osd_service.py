"""Tasks and queries on OSDs, as core calls them."""

import logging

import pytest

from pvc_ceph.config import CephConfig
from pvc_ceph.osd.lvm import LvmLayout
from pvc_ceph.osd.raw import RawLayout
from pvc_ceph.osd.service import OsdService
from pvc_ceph.protocol import Open
from pvc_ceph.workers import Workers
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.task import Task
from pvc_core.plugin import Context, NodeInfo, Unsupported


@pytest.fixture
def service(tmp_path):
    """Return what makes one of these settings; nothing is run, and Ceph is not asked."""

    def run(argv, **_):
        raise AssertionError(f"{argv} must not be run")

    def make(**settings):
        info = NodeInfo(name="hv1", role="hypervisor", state_directory=str(tmp_path), run_directory=str(tmp_path))
        context = Context(node=info, log=logging.getLogger("test"), run=run, wake=lambda *_: None)
        workers = Workers(Open(conf="/nowhere", user="x", node="hv1"), context.log)
        return OsdService(context, CephConfig(**settings), workers)

    return make


def ask(service, kind, **arguments):
    task = Task(id="t", kind=kind, node="hv1", arguments=arguments)
    return service.task_runners()[kind](task, lambda _: False)


def test_kinds_are_the_plugin_s_own(service):
    made = service()
    assert all(name.startswith("ceph.") for name in {**made.task_runners(), **made.queries()})


def test_layout_is_the_one_of_the_settings(service):
    assert isinstance(service()._site.layout, LvmLayout)
    assert isinstance(service(osd_layout="raw")._site.layout, RawLayout)


def test_cluster_of_others_is_not_changed(service):
    made = service(external=True)
    for kind in made.task_runners():
        with pytest.raises(InvalidRequest, match=r"looked after by somebody else \(plugins\.ceph\.external is true\)"):
            ask(made, kind)
    with pytest.raises(InvalidRequest, match="looked after by somebody else"):
        made.queries()["ceph.osd-preview"]({"device": "/dev/sdb"})


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("ceph.osd.add", {}, "missing required field `device`"),
        ("ceph.osd.add", {"device": "/dev/sdb", "count": "many"}, "Expected `int`"),
        ("ceph.osd.add", {"device": "/dev/sdb", "size": 1}, "unknown field `size`"),
        ("ceph.osd.remove", {"osd": "x"}, "Expected `int`"),
        ("ceph.osd.refresh", {"node": "hv1"}, "unknown field `node`"),
        ("ceph.osd.in", {}, "missing required field `osds`"),
    ],
)
def test_wrong_arguments_are_told(service, kind, arguments, message):
    with pytest.raises(InvalidRequest, match=message):
        ask(service(), kind, **arguments)


def test_layout_without_lvm_says_what_it_cannot_have(service):
    layout = service(osd_layout="raw")._site.layout
    with pytest.raises(Unsupported, match="a volume group needs LVM"):
        layout.make_db_group("/dev/sdb")
    with pytest.raises(Unsupported, match="name an empty device"):
        layout.db_for("", 0, 1)
    with pytest.raises(Unsupported, match="takes a whole device; leave its size and ratio out"):
        layout.db_for("/dev/sdc", 1, 1)
    assert layout.db_for("/dev/sdc", 0, 1) == "/dev/sdc"
