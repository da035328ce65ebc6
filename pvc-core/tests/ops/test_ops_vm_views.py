"""Listing VMs and looking at one."""

import pytest

from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.node import GuestUsage, NodeUsage
from pvc_core.ops.vm_power import VmStart, VmStop, vm_start, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmList, VmQuery, vm_info, vm_list
from pvc_core.store import keys
from pvc_core.store.api import Put
from pvc_core.store.documents import CorruptDocument, create
from pvc_core.store.memory import Moment


def names(small, **request):
    return [view.name for view in vm_list(small.ops, VmList(**request))]


def state(small, vm="web"):
    view = small.info(vm).view
    listed = next(row for row in vm_list(small.ops, VmList()) if row.name == vm)
    assert listed == view
    return view.state, view.reason


@pytest.fixture
def busy(small):
    small.run("web1", tags=("prod",))
    small.run("web2", tags=("prod", "edge"))
    small.define("db1", tags=("prod",))
    small.run("db2", node="hv1")
    return small


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ({}, ["db1", "db2", "web1", "web2"]),
        ({"name": "web"}, ["web1", "web2"]),
        ({"name": "^.b1$"}, ["db1"]),
        ({"node": "hv1"}, ["db2", "web1"]),
        ({"state": "running"}, ["db2", "web1", "web2"]),
        ({"state": "stopped"}, ["db1"]),
        ({"tag": "edge"}, ["web2"]),
        ({"tag": "prod", "state": "running"}, ["web1", "web2"]),
        ({"tag": "prod", "negate": True}, ["db2"]),
        ({"name": "nothing"}, []),
    ],
)
def test_filters(busy, request_, found):
    assert names(busy, **request_) == found


def test_id_finds_its_vm(busy):
    assert names(busy, name=busy.info("db2").spec.id) == ["db2"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"name": "("}, "name '\\(' is not a regular expression"),
        ({"state": "runing"}, "there is no VM state 'runing'; did you mean 'running'"),
    ],
)
def test_bad_filter_is_refused(busy, request_, message):
    with pytest.raises(InvalidRequest, match=message):
        names(busy, **request_)


def test_list_takes_two_reads_for_any_number_of_vms(busy):
    for number in range(40):
        busy.define(f"v{number}")
    reads = []
    busy.tree.fault = lambda moment, *_: reads.append(moment) if moment is Moment.READ else None
    assert len(names(busy)) == 44
    assert len(reads) == 2


def test_list_skips_a_vm_that_is_removed_meanwhile(busy):
    calls = []

    def fault(moment, *_):
        if moment is Moment.READ:
            calls.append(moment)
            if len(calls) == 2:
                busy.tree.fault = None
                vm_remove(busy.ops, VmRemove(vm="db1"))

    busy.tree.fault = fault
    assert names(busy) == ["db2", "web1", "web2"]


def test_unreadable_document_is_named(small):
    id_ = small.define()
    entry = small.store.get(keys.vm_spec(id_).path)
    small.store.commit(Put(keys.vm_spec(id_).path, b"{}", entry.version))
    with pytest.raises(CorruptDocument, match=f"/pvc/v1/spec/vm/{id_} cannot be read"):
        names(small)


def test_state_without_any_report(small):
    id_ = small.define()
    assert state(small) == ("stopped", "")
    vm_start(small.ops, VmStart(vm="web"))
    assert state(small) == ("starting", "")
    small.kill("hv1")
    assert state(small) == ("starting", "node hv1 is not alive")
    small.revive("hv1")
    small.report(id_, "waiting", reason="no room")
    assert state(small) == ("waiting", "no room")


def test_vm_on_a_node_that_is_not_alive_is_unknown(small):
    id_ = small.run()
    assert state(small) == ("running", "")
    small.kill("hv1")
    assert state(small) == ("unknown", "node hv1 is not alive; it was running there")
    assert names(small, state="unknown") == ["web"]
    small.report_stopped(id_)
    vm_stop(small.ops, VmStop(vm="web"))
    assert state(small)[0] == "stopped"


def test_vm_that_runs_but_has_no_place_waits(small):
    id_ = small.run()
    small.report_stopped(id_)
    small.write_spec(id_, node=None)
    assert state(small) == ("waiting", "no node has room for it")


def test_settled_says_whether_the_node_has_seen_the_last_change(small):
    id_ = small.run()
    assert small.info(id_).view.settled
    vm_stop(small.ops, VmStop(vm="web"))
    assert not small.info(id_).view.settled
    small.report_stopped(id_)
    assert small.info(id_).view.settled


def test_deleting_shows(small):
    small.run()
    vm_remove(small.ops, VmRemove(vm="web", force=True))
    assert state(small) == ("deleting", "")


def test_info_has_what_the_node_knows_of_the_guest(small):
    id_ = small.run()
    small.store.commit(create(keys.usage("hv1"), NodeUsage(id="hv1", guests={id_: GuestUsage(cpu_percent=12.5)})))
    info = vm_info(small.ops, VmQuery(vm="web"))
    assert info.usage == GuestUsage(cpu_percent=12.5)
    assert (info.claim.node, info.view.running_on) == ("hv1", "hv1")
    small.claim(id_, "")
    assert vm_info(small.ops, VmQuery(vm=id_)).claim is None


def test_info_of_an_unknown_vm(small):
    with pytest.raises(NotFound, match="no VM named 'web'"):
        vm_info(small.ops, VmQuery(vm="web"))
