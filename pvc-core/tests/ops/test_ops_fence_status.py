"""How nodes would be fenced, and what about it is a problem of the cluster."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import NotFound
from pvc_core.model.fence import FenceAttempt, FenceStage, Proof, ProofKind, StorageBlock
from pvc_core.model.node import PluginStatus
from pvc_core.ops.cluster import (
    ClusterMaintenance,
    ClusterSettings,
    cluster_maintenance,
    cluster_settings,
    cluster_status,
)
from pvc_core.ops.fence_status import FenceStatus, fence_status
from pvc_core.ops.node import NodeList, NodeQuery, node_info, node_list
from pvc_core.ops.node_service import Nothing
from pvc_core.ops.vm_definition import DiskDefinition
from pvc_core.store.memory import Moment

NODES = ("hv1", "hv2", "hv3")
POWER = Proof(kind=ProofKind.POWER, evidence="ipmi: off", by="hv1", at=1.0)
NOT_SET_UP = (
    "fencing is not set up: if a node is lost, its VMs are not started elsewhere until somebody confirms its death"
)


@pytest.fixture
def fenced(equipped):
    """Three coordinators, hv1 primary, each with one IPMI level that all others have found good."""
    plugin = PluginStatus(name="fence", state="healthy", capabilities=("storage:dir", "network:bridge", "fencing:ipmi"))
    for name in NODES:
        equipped.report_node(name, plugins=(plugin,))
        equipped.set_levels(name, ["ipmi"])
    for name in NODES:
        equipped.found(name, **{node: [""] for node in NODES})
    equipped.set_primary("hv1")
    return equipped


def status(small, node="hv3"):
    return fence_status(small.ops, FenceStatus(node=node))[0]


def problems(small):
    return cluster_status(small.ops, Nothing()).problems


# --- status ---------------------------------------------------------------------------------------------


def test_every_node_is_shown_with_its_devices_as_the_primary_sees_them_first(fenced):
    found = fence_status(fenced.ops, FenceStatus())
    assert [node.node for node in found] == ["hv1", "hv2", "hv3"]
    device = found[2].devices[0]
    assert (device.level, device.device, device.driver) == (1, 1, "ipmi")
    assert [(check.coordinator, check.power, check.checked) for check in device.checks] == [
        ("hv1", "on", fenced.now),
        ("hv2", "on", fenced.now),
    ]
    assert [check.coordinator for check in found[0].devices[0].checks] == ["hv2", "hv3"]
    assert {node.outlook.expected for node in found} == {"yes"}
    with pytest.raises(NotFound, match="no node named 'hv9'"):
        status(fenced, "hv9")


def test_a_coordinator_that_is_gone_is_not_asked_for_its_opinion(fenced):
    fenced.kill("hv2")
    assert [check.coordinator for check in status(fenced).devices[0].checks] == ["hv1"]


def test_the_vms_of_a_node_are_those_that_should_run_there(fenced):
    fenced.run("here", node="hv3")
    fenced.define("stopped", node="hv3")
    moving = fenced.run("moving", node="hv2")
    fenced.claim(moving, "hv3", migration_to="hv2")
    assert status(fenced).vms == ("here", "moving")


def test_a_watchdog_and_storage_that_can_be_closed_are_shown(fenced):
    fenced.declare("hv3", 39.0)
    fenced.report_node("hv3", lease=1, identities={"dir": {"address": "10.0.0.3"}})
    fenced.run("on-dir", node="hv3", disks=(DiskDefinition(pool="ssd", volume="web"),))
    fenced.run("diskless", node="hv3")
    found = status(fenced)
    assert (found.watchdog_down_s, found.storage) == (39.0, ("dir",))
    assert [(p.means, p.expected, p.uncovered) for p in found.outlook.prospects] == [
        ("power", "yes", ()),
        ("storage", "yes", ("diskless",)),
        ("watchdog", "yes", ()),
    ]


def test_what_was_said_under_an_earlier_lease_closes_no_storage(fenced):
    fenced.report_node("hv3", lease=0, identities={"dir": {}})
    assert status(fenced).storage == ()


def test_how_long_it_waits_is_what_the_fencing_coordinator_has_published(fenced):
    before = status(fenced).outlook.seconds
    fenced.found("hv1", hv3=[""], waits=(4.0, 1.0))
    assert status(fenced).outlook.seconds == before - 10


@pytest.mark.parametrize(
    ("prepare", "lease", "why"),
    [
        (lambda s: s.set_node("hv3", maintenance=True), "held", "it is in maintenance"),
        (lambda s: s.release("hv3"), "released", "its daemon was stopped on purpose"),
        (lambda s: s.kill("hv3"), "lost", ""),
    ],
    ids=["maintenance", "stopped", "lost"],
)
def test_a_node_that_would_be_left_alone_says_why(fenced, prepare, lease, why):
    prepare(fenced)
    found = status(fenced)
    assert (found.lease, found.left_alone) == (lease, why)


def test_maintenance_of_the_cluster_leaves_all_alone(fenced):
    cluster_maintenance(fenced.ops, ClusterMaintenance(maintenance=True))
    assert status(fenced).left_alone == "the cluster is in maintenance"


def test_a_fencing_that_goes_on_is_shown_and_an_older_one_is_not(fenced):
    fenced.record("hv3", stage=FenceStage.FENCING, waits_for="power: no answer")
    assert status(fenced).stage is None
    fenced.kill("hv3")
    found = status(fenced)
    assert (found.stage, found.waits_for) == (FenceStage.FENCING, "power: no answer")
    fenced.record("hv3", lease=0, stage=FenceStage.RETURNED)
    assert status(fenced).stage is None


def test_status_takes_a_fixed_number_of_reads(fenced):
    def reads():
        count = []
        fenced.tree.fault = lambda moment, *_: count.append(moment) if moment is Moment.READ else None
        fence_status(fenced.ops, FenceStatus())
        fenced.tree.fault = None
        return len(count)

    few = reads()
    for number in range(30):
        fenced.define(f"v{number}")
    assert reads() == few <= 4


def test_devices_that_a_fencing_has_tried_in_vain_are_not_expected_to_work(fenced):
    fenced.kill("hv3")
    failed = FenceAttempt(means="power", level=1, message="ipmi: on")
    fenced.record("hv3", stage=FenceStage.FENCING, attempts=(failed,))
    found = status(fenced)
    assert (found.outlook.expected, found.devices[0].checks[0].error) == ("no", "it was tried: ipmi: on")
    fenced.record("hv3", stage=FenceStage.PROVEN, attempts=(failed, replace(failed, ok=True)), proofs=(POWER,))
    found = status(fenced)
    assert (found.outlook.expected, found.proofs) == ("yes", (ProofKind.POWER,))


# --- problems -------------------------------------------------------------------------------------------


def test_fencing_that_works_is_no_problem(fenced):
    assert problems(fenced) == ()


def test_fencing_that_is_set_up_nowhere_is_one_sentence(small):
    small.set_primary("hv1")
    found = problems(small)
    assert len(found) == 1
    assert found[0].startswith(NOT_SET_UP)
    small.declare("hv1", 39.0)
    assert not problems(small)[0].startswith(NOT_SET_UP)
    cluster_settings(small.ops, ClusterSettings(recovery=("power",)))
    assert problems(small) == found
    cluster_settings(small.ops, ClusterSettings(recovery=()))
    assert problems(small) == ()


def test_a_single_node_needs_none(empty):
    empty.add_node("hv1")
    empty.set_primary("hv1")
    assert problems(empty) == ()


def test_a_single_coordinator_is_not_told_for_ever_that_nobody_could_fence_it(fenced):
    for name in ("hv2", "hv3"):
        fenced.set_node(name, role="hypervisor")
    fenced.set_levels("hv1")
    assert problems(fenced) == ()
    assert status(fenced, "hv1").outlook.expected == "no"


def test_a_node_that_could_not_be_fenced_is_a_problem_before_it_is_lost(fenced):
    fenced.set_levels("hv3")
    assert problems(fenced) == (
        (
            "node hv3 could not be fenced, so its VMs would not be started elsewhere: power: it has no fence level; "
            "storage: no storage driver can keep it from writing; watchdog: it has armed none"
        ),
    )
    fenced.set_node("hv3", maintenance=True)
    assert problems(fenced) == ()


def test_a_device_that_no_coordinator_can_use_is_named_once(fenced):
    fenced.declare("hv3", 39.0)
    for name in ("hv1", "hv2"):
        fenced.found(name, **{node: ["wrong password" if node == "hv3" else ""] for node in NODES})
    assert problems(fenced) == ("node hv3: fence level 1 (ipmi): wrong password",)


def test_a_device_that_some_cannot_use_says_from_where(fenced):
    fenced.found("hv2", hv1=[""], hv2=[""], hv3=["no route"])
    assert problems(fenced) == ("node hv3: fence level 1 (ipmi) cannot be used from hv2: no route",)


def test_what_a_node_thinks_of_its_own_device_does_not_matter(fenced):
    fenced.found("hv3", hv1=[""], hv2=[""], hv3=["no route to myself"])
    assert problems(fenced) == ()


def test_devices_that_were_not_asked_yet_are_no_problem(fenced):
    fenced.set_levels("hv3", ["ipmi"], ["ipmi"])
    for name in ("hv1", "hv2"):
        fenced.found(name, hv1=[""], hv2=[""])
    assert problems(fenced) == ()


def test_a_vm_with_other_disks_than_it_was_started_with_is_not_covered_by_closed_storage(fenced):
    fenced.set_levels("hv3")
    fenced.report_node("hv3", lease=1, identities={"dir": {}})
    disks = (DiskDefinition(pool="ssd", volume="web"),)
    whole, changed = (fenced.run(name, node="hv3", disks=disks[: name == "whole"]) for name in ("whole", "changed"))
    fenced.write_spec(changed, disks=fenced.spec(whole).disks)
    fenced.write_spec(whole, memory_mib=64)
    (ways,) = fence_status(fenced.ops, FenceStatus(node="hv3"))
    storage = next(way for way in ways.outlook.prospects if way.means == "storage")
    assert (storage.expected, storage.uncovered) == ("yes", ("changed",))


def test_vms_that_storage_proof_alone_does_not_cover_are_named(fenced):
    fenced.set_levels("hv3")
    fenced.report_node("hv3", lease=1, identities={"dir": {}})
    fenced.run("on-dir", node="hv3", disks=(DiskDefinition(pool="ssd", volume="web"),))
    for number in range(7):
        fenced.run(f"diskless{number}", node="hv3", memory=64)
    assert problems(fenced) == (
        (
            "node hv3: VMs that no proof of its death would cover: "
            "diskless0, diskless1, diskless2, diskless3, diskless4 and 2 more"
        ),
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stage": FenceStage.SUSPECTED}, "its lease is gone, and it is fenced unless it comes back"),
        ({"stage": FenceStage.FENCING}, "a proof of its death is being sought"),
        (
            {"stage": FenceStage.FENCING, "round": 1, "waits_for": "power: no answer"},
            "no proof of its death after 1 round, so its VMs are not started elsewhere: power: no answer",
        ),
        (
            {"stage": FenceStage.SUSPECTED, "waits_for": "it is in maintenance"},
            "no proof of its death, so its VMs are not started elsewhere: it is in maintenance",
        ),
        (
            {"stage": FenceStage.PROVEN, "proofs": (POWER,)},
            "its death is proven (power-off-confirmed), its VMs are being started elsewhere",
        ),
        (
            {"stage": FenceStage.RECOVERED, "proofs": (POWER,)},
            "its death is proven (power-off-confirmed), its VMs were taken from it",
        ),
        ({"lease": 0, "stage": FenceStage.FENCING}, "its lease is gone"),
    ],
    ids=["suspected", "fencing", "round", "maintenance", "proven", "recovered", "older loss"],
)
def test_a_lost_node_says_how_far_its_fencing_is(fenced, fields, said):
    fenced.kill("hv3")
    fenced.record("hv3", **fields)
    assert problems(fenced) == (f"node hv3 is lost: {said}",)


def test_a_node_that_is_back_says_what_is_left_to_do(fenced):
    fenced.set_node("hv3", scheduling="drain")
    fenced.record("hv3", lease=0, stage=FenceStage.RETURNED, drained=True)
    told = "node hv3 is back after it was fenced, and takes no VMs until: pvc node ready hv3"
    assert problems(fenced) == (told,)
    cluster_settings(fenced.ops, ClusterSettings(return_after_fence=True))
    assert problems(fenced) == ()
    block = StorageBlock(driver="dir", lease=0)
    fenced.record("hv3", lease=0, stage=FenceStage.RETURNED, blocked=(block,), waits_for="it cannot be opened")
    assert problems(fenced) == ("node hv3 is back after it was fenced: it cannot be opened",)


def test_lists_of_nodes_show_the_fencing(fenced):
    fenced.kill("hv3")
    fenced.record("hv3", stage=FenceStage.FENCING, waits_for="power: no answer")
    row = node_list(fenced.ops, NodeList(name="hv3"))[0]
    assert (row.fencing, row.fencing_waits_for) == (FenceStage.FENCING, "power: no answer")
    assert node_info(fenced.ops, NodeQuery(node="hv3")).row == row
    fenced.revive("hv3")
    assert node_list(fenced.ops, NodeList(name="hv3"))[0].fencing is None
