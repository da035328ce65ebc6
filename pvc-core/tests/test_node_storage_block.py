"""Storage that is closed to a lost node, and opened again: what is asked of the drivers, and what that proves."""

import threading

import pytest
from msgspec.structs import replace

from pvc_core.model.fence import FenceRecord, ProofKind, StorageBlock
from pvc_core.model.node import Lease, LeaseGeneration, NodeSpec, NodeStatus
from pvc_core.model.storage import PoolSpec
from pvc_core.model.vm import Disk, MigrationPhase, MigrationRecord, VmClaim, VmSpec, VmStatus, started_with
from pvc_core.node.storage_block import StorageFences
from pvc_core.plan.fencing import closing
from pvc_core.plan.revocation import covering
from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.specs.storage import BlockResult, StorageCapabilities
from pvc_core.store import documents, keys
from pvc_core.store.documents import create
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fakes import FakeBackend, FakeStorage
from pvc_core.testkit.stepped import SteppedCluster
from pvc_core.testkit.waiting import eventually

POOLS = (
    PoolSpec(id="p1", name="ssd", driver="one"),
    PoolSpec(id="p2", name="hdd", driver="one"),
    PoolSpec(id="p3", name="nvme", driver="two"),
    PoolSpec(id="p4", name="files", driver="dir"),
)


class Asked(FakeStorage):
    """Notes what it was asked to block."""

    def __init__(self, backend, **options):
        super().__init__(backend, "hv1", **options)
        self.blocked = []
        self.unblocked = []

    def node_block(self, node, identity, volumes, epoch):
        self.blocked.append((node, identity, [f"{v.pool.name}/{v.name}" for v in volumes], epoch))
        return super().node_block(node, identity, volumes, epoch)

    def node_unblock(self, node, identity, epoch):
        self.unblocked.append((node, identity))
        return super().node_unblock(node, identity, epoch)


class Site:
    """The coordinator ``hv1``, and node ``n1`` that was lost with lease 4."""

    def __init__(self):
        self.cluster = SteppedCluster()
        self.backends = {name: FakeBackend() for name in ("one", "two", "dir")}
        self.one, self.two = Asked(self.backends["one"]), Asked(self.backends["two"])
        self.plain = Asked(self.backends["dir"], capabilities=StorageCapabilities())
        drivers = DirectDrivers(storage={"one": self.one, "two": self.two, "dir": self.plain})
        self.node = self.cluster.add("hv1", drivers=drivers)
        self.cluster.settle()
        self.put(
            *[create(keys.pool_spec(pool.id), pool) for pool in POOLS],
            create(keys.generation("n1"), LeaseGeneration(node="n1", generation=4)),
        )
        self.report(lease=4, identities={"one": {"client": "n1-a"}, "two": {"client": "n1-b"}})
        self.fences = StorageFences(self.node.agent.context)

    def put(self, *operations):
        self.cluster.operator.commit(*operations)

    def report(self, **fields):
        new = NodeStatus(id="n1", **fields)
        entry = documents.read(self.cluster.operator, keys.node_status("n1"))
        self.put(create(keys.node_status("n1"), new) if entry is None else entry.put(new))

    def generation(self, **fields):
        entry = documents.read(self.cluster.operator, keys.generation("n1"))
        self.put(entry.put(replace(entry.value, **fields)))

    def vm(self, name, *disks, node="n1", migration=None):
        spec = VmSpec(
            id=name,
            name=name,
            memory_mib=64,
            vcpus=1,
            disks=tuple(Disk(pool=pool, volume=f"{name}-{number}") for number, pool in enumerate(disks)),
        )
        self.put(
            create(keys.vm_spec(name), spec),
            create(keys.claim(name), VmClaim(vm=name, node=node, lease=4, epoch=7, migration=migration)),
        )
        return spec

    def returns(self, generation=5):
        entry = documents.read(self.cluster.operator, keys.generation("n1"))
        self.put(
            entry.put(replace(entry.value, generation=generation)),
            create(keys.lease("n1"), Lease(node="n1", generation=generation)),
        )

    def close(self):
        return self.fences.close("n1", 4, self.fences.plan("n1", 4))


@pytest.fixture
def site():
    return Site()


def test_each_driver_is_asked_once_with_what_it_knew_the_node_by_and_all_its_volumes(site):
    site.vm("a", "ssd", "hdd")
    site.vm("b", "ssd", "nvme")
    site.vm("elsewhere", "ssd", node="hv2")
    proof, message = site.close()
    assert site.one.blocked == [("n1", {"client": "n1-a"}, ["hdd/a-1", "ssd/a-0", "ssd/b-0"], 4)]
    assert site.two.blocked == [("n1", {"client": "n1-b"}, ["nvme/b-1"], 4)]
    assert (proof.kind, proof.by, proof.pools) == (ProofKind.STORAGE, "hv1", ("p1", "p2", "p3"))
    assert "pools hdd, ssd: client n1-a of node n1 is refused" in proof.evidence
    assert message == proof.evidence


def test_planning_reads_and_closes_nothing(site):
    site.vm("a", "ssd", "nvme")
    assert site.fences.plan("n1", 4) == (
        StorageBlock(driver="one", lease=4, identity={"client": "n1-a"}, pools=("p1",)),
        StorageBlock(driver="two", lease=4, identity={"client": "n1-b"}, pools=("p3",)),
    )
    assert site.backends["one"].blocked == set()


@pytest.mark.parametrize("phase", [MigrationPhase.TRANSFER, MigrationPhase.UNCERTAIN, MigrationPhase.ARRIVED])
def test_a_guest_that_may_execute_there_as_the_target_of_a_migration_counts(site, phase):
    site.vm("coming", "ssd", node="hv2", migration=MigrationRecord(target="n1", attempt="1", phase=phase))
    proof, _ = site.close()
    assert proof.pools == ("p1",)
    assert site.one.blocked[0][2] == ["ssd/coming-0"]


def test_a_guest_that_has_not_left_for_it_yet_does_not_count(site):
    preparing = MigrationRecord(target="n1", attempt="1", phase=MigrationPhase.PREPARE)
    site.vm("staying", "ssd", node="hv2", migration=preparing)
    assert site.fences.plan("n1", 4) == ()


def test_a_driver_that_fails_costs_the_proof_for_its_own_pools_only(site):
    site.vm("a", "ssd", "nvme")
    site.one.faults.fail("node_block", DriverError("the monitors do not answer"))
    proof, message = site.close()
    assert proof.pools == ("p3",)
    assert message == "pool ssd: the monitors do not answer"


def test_what_is_not_confirmed_proves_nothing(site, monkeypatch):
    site.vm("a", "ssd")
    monkeypatch.setattr(site.one, "node_block", lambda *_: BlockResult(blocked=False, evidence="one client is left"))
    assert site.close() == (None, "pool ssd: one client is left")


def test_storage_that_cannot_keep_a_node_out_is_named_and_does_not_count(site):
    site.vm("a", "ssd", "files")
    site.vm("b", "gone")
    proof, message = site.close()
    assert proof.pools == ("p1",)
    assert "pool files: storage driver dir has no way to keep a node from writing" in message
    assert "pool gone: it does not exist any more" in message
    assert site.plain.blocked == []


def test_a_driver_that_does_not_work_on_this_coordinator_is_named(site):
    site.vm("a", "ssd")
    site.node.drivers.break_driver("one", "no keyring")
    proof, message = site.close()
    assert proof is None
    assert "pool ssd: storage driver 'one' does not work here: no keyring" in message


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (
            {"lease": 3, "identities": {"one": {"client": "n1-a"}}},
            "the last report of node n1 is of its lease 3, not of 4, which it lost",
        ),
        ({"lease": 4, "identities": {}}, "node n1 could not report by what driver one knows it"),
    ],
)
def test_an_identity_that_is_not_of_the_lost_lease_is_not_used(site, report, why):
    site.vm("a", "ssd")
    site.report(**report)
    assert site.fences.plan("n1", 4) == ()
    assert site.close() == (None, f"pool ssd: {why}")
    assert site.one.blocked == []


def test_a_node_that_never_reported_cannot_be_kept_out(site):
    site.vm("a", "ssd")
    site.put(documents.read(site.cluster.operator, keys.node_status("n1")).delete())
    assert site.close() == (None, "pool ssd: node n1 has never reported by what driver one knows it")


def test_what_a_guest_was_given_counts_whatever_its_spec_says_by_now(site):
    vm = site.vm("a", "ssd")
    gave = replace(vm, disks=(*vm.disks, Disk(pool="nvme", volume="a")))
    site.put(create(keys.vm_status(vm.id), VmStatus(id=vm.id, **started_with(gave))))
    assert {pool for block in site.fences.plan("n1", 4) for pool in block.pools} == {"p1", "p3"}


def test_a_node_whose_vms_have_no_disks_is_not_kept_out(site):
    site.vm("a")
    assert site.close() == (None, "none of its VMs has a disk")


def test_a_node_that_is_back_is_not_shut_out(site):
    site.vm("a", "ssd")
    blocks = site.fences.plan("n1", 4)
    site.returns()
    assert site.fences.close("n1", 4, blocks) == (None, "not tried: the node is back")
    assert site.one.blocked == []


def test_a_node_that_comes_back_between_two_drivers_is_not_shut_out_further(site, monkeypatch):
    site.vm("a", "ssd", "nvme")
    block = site.one.node_block

    def back(*arguments):
        site.put(create(keys.lease("n1"), Lease(node="n1", generation=5)))
        return block(*arguments)

    monkeypatch.setattr(site.one, "node_block", back)
    proof, message = site.close()
    assert proof.pools == ("p1",)
    assert message == "pool nvme: not tried: the node is back"
    assert site.two.blocked == []


def test_what_was_closed_after_an_earlier_loss_proves_nothing_now(site):
    site.vm("a", "ssd")
    old = StorageBlock(driver="one", lease=3, identity={"client": "n1-old"}, pools=("p1",))
    proof, message = site.fences.close("n1", 4, (old,))
    assert (proof, message) == (None, "pool ssd: it was not planned yet")
    assert site.one.blocked == []


def test_a_document_that_cannot_be_read_does_not_keep_other_vms_from_being_recovered(site, caplog):
    site.vm("a", "ssd")
    site.vm("torn", "nvme")
    store = site.cluster.operator
    entry = documents.read(store, keys.claim("torn"))
    store.commit(entry.put(entry.value)._replace(value=b"{"))
    proof, _ = site.close()
    assert proof.pools == ("p1",)
    assert "document-unreadable" in caplog.text


def test_the_proof_covers_exactly_the_vms_whose_disks_are_all_closed(site):
    pools = {pool.name: pool.id for pool in POOLS}
    vms = [site.vm("whole", "ssd", "nvme"), site.vm("mixed", "ssd", "files"), site.vm("diskless")]
    proof, _ = site.close()
    record = FenceRecord(node="n1", lease=4, proofs=(proof,))
    runs = {vm.id: VmStatus(id=vm.id, **started_with(vm)) for vm in vms}
    covered = [vm.name for vm in vms if covering(record, vm, runs[vm.id], {pools[disk.pool] for disk in vm.disks})]
    assert covered == ["whole"]


# --- opening ------------------------------------------------------------------------------------------------


def test_all_that_was_closed_is_opened_with_what_it_was_closed_by(site):
    site.vm("a", "ssd", "nvme")
    blocks = site.fences.plan("n1", 4)
    site.fences.close("n1", 4, blocks)
    assert site.backends["one"].blocked == {"n1-a"}
    site.returns()
    site.report(lease=5, identities={})
    assert site.fences.open("n1", blocks) == ""
    assert (site.backends["one"].blocked, site.backends["two"].blocked) == (set(), set())
    assert site.one.unblocked == [("n1", {"client": "n1-a"})]


def test_what_cannot_be_opened_is_told_and_the_rest_is_opened(site):
    site.vm("a", "ssd", "nvme")
    blocks = site.fences.plan("n1", 4)
    site.fences.close("n1", 4, blocks)
    site.returns()
    site.one.faults.fail("node_unblock", DriverError("the monitors do not answer"))
    assert site.fences.open("n1", blocks) == "the monitors do not answer"
    assert site.backends["two"].blocked == set()
    assert site.fences.open("n1", blocks) == ""


def test_nothing_is_opened_to_a_node_that_was_lost_again(site):
    site.vm("a", "ssd")
    blocks = site.fences.plan("n1", 4)
    site.fences.close("n1", 4, blocks)
    assert site.fences.open("n1", blocks) == "the node has no lease any more"
    assert site.backends["one"].blocked == {"n1-a"}


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (lambda site: site.generation(generation=5), "the node has been back since"),
        (lambda site: site.generation(released=True), "its daemon was stopped on purpose"),
        (
            lambda site: site.put(create(keys.node_spec("n1"), NodeSpec(id="n1", maintenance=True))),
            "the node is in maintenance now",
        ),
    ],
)
def test_storage_is_not_closed_to_a_node_that_is_to_be_left_alone_by_now(site, happens, why):
    site.vm("a", "ssd")
    blocks = site.fences.plan("n1", 4)
    happens(site)
    assert site.fences.close("n1", 4, blocks) == (None, f"not tried: {why}")
    assert site.one.blocked == []


def test_storage_is_not_closed_while_it_is_being_opened_so_that_no_late_opening_undoes_it(site):
    site.vm("a", "ssd")
    blocks = site.fences.plan("n1", 4)
    site.put(create(keys.lease("n1"), Lease(node="n1", generation=4)))
    gate = site.one.faults.hang("node_unblock")
    threads = [threading.Thread(target=site.fences.open, args=("n1", blocks))]
    threads[0].start()
    eventually(lambda: site.one.unblocked, "it is being opened")
    site.put(documents.read(site.cluster.operator, keys.lease("n1")).delete())
    site.generation(generation=5)
    site.report(lease=5, identities={"one": {"client": "n1-a"}})
    again = site.fences.plan("n1", 5)
    results = []
    threads.append(threading.Thread(target=lambda: results.append(site.fences.close("n1", 5, again))))
    threads[1].start()
    assert site.one.blocked == []
    gate.set()
    for thread in threads:
        thread.join(15)
    assert results[0][0].pools == ("p1",)
    assert site.backends["one"].blocked == {"n1-a"}


def test_whether_anything_can_be_closed_is_known_at_once(site):
    assert site.fences.possible()
    site.node.drivers.break_driver("one", "no keyring")
    site.node.drivers.break_driver("two", "no keyring")
    assert not site.fences.possible()


def test_what_is_about_to_be_closed_is_recorded_once_and_beside_earlier_debts():
    old = StorageBlock(driver="one", lease=3, identity={"client": "n1-old"}, pools=("p1",))
    new = StorageBlock(driver="one", lease=4, identity={"client": "n1-a"}, pools=("p1",))
    record = FenceRecord(node="n1", lease=4, blocked=(old,))
    record = closing(closing(record, (new,)), (new,))
    assert record.blocked == (old, new)
