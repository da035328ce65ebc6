"""Backup of the state tree, and restore."""

import json

import msgspec
import pytest
from msgspec.structs import replace

from pvc_core.model.errors import Conflict, InUse, InvalidRequest
from pvc_core.model.fence import FenceRecord, FenceStage, Proof, ProofKind, StorageBlock
from pvc_core.model.node import Lease, LeaseGeneration, NodeSpec, NodeStatus
from pvc_core.model.task import Task
from pvc_core.model.vm import VmClaim, VmSpec, VmState, VmStatus
from pvc_core.store import keys
from pvc_core.store.api import ANY, Create, Delete, Put, StoreUnavailable
from pvc_core.store.backup import backup, read_backup
from pvc_core.store.documents import create, read
from pvc_core.store.memory import MemoryTree, Moment
from pvc_core.store.restore import AHEAD, Restored, restore
from pvc_core.store.schema import RESTORING, initialise


def _define(store, vm, *, node="hv1", memory_mib=512):
    store.commit(
        create(keys.vm_spec(vm), VmSpec(id=vm, name=f"name-{vm}", memory_mib=memory_mib, vcpus=1, node=node)),
        create(keys.vm_status(vm), VmStatus(id=vm, restart_done=2)),
        Create(keys.name("vm", f"name-{vm}"), vm.encode()),
    )


def _run(store, vm, node="hv1"):
    store.commit(create(keys.claim(vm), VmClaim(vm=vm, node=node, lease=4, epoch=1)))


def _join(store, node):
    store.commit(
        create(keys.node_spec(node), NodeSpec(id=node)),
        create(keys.node_status(node), NodeStatus(id=node)),
        create(keys.generation(node), LeaseGeneration(node=node, generation=4)),
    )


def _begin(store):
    initialise(store, name="lab")
    _join(store, "hv1")
    _define(store, "vm1")
    _define(store, "vm2")
    _run(store, "vm1")
    store.commit(Create(f"{keys.ROOT}/plugin", b"\xff\x00"), Create(f"{keys.ROOT}/plugin/a", b"{not json"))


@pytest.fixture
def store():
    store = MemoryTree().connect()
    _begin(store)
    return store


@pytest.fixture
def empty():
    return MemoryTree().connect()


def _saved(store):
    return read_backup(backup(store, created=1.7e9))


def _values(store):
    return {path: node.value for path, node in store.tree.dump().items()}


def _begun_anew(store):
    """Return what a tree is in a new one: what storage may remember a later value of is raised."""
    raised = {keys.CLAIM: "epoch", keys.GENERATION: "generation"}
    values = _values(store)
    for path, value in values.items():
        field = raised.get(path.rpartition("/")[0])
        if field is not None:
            known = json.loads(value)
            values[path] = msgspec.json.encode({**known, field: known[field] + AHEAD})
    return values


# The file.


def test_a_file_holds_every_node_to_the_byte(store):
    saved = _saved(store)
    expected = _values(store)
    del expected["/pvc"]
    assert saved.values == expected
    assert (saved.cluster, saved.schema, saved.created) == ("lab", 1, 1.7e9)
    assert saved.documents() == sum(1 for value in expected.values() if value)


def test_documents_are_readable_json_one_per_line(store):
    lines = backup(store, created=0).decode().splitlines()
    line = next(line for line in lines if f'"{keys.vm_spec("vm1").path}"' in line)
    assert json.loads(line.rstrip(","))["json"]["memory_mib"] == 512


def test_a_document_with_odd_spacing_and_unknown_fields_is_kept_to_the_byte(store, empty):
    value = b'{ "path":"/x", "id": "n", "later" : {"path":1} }'
    store.commit(Create(keys.node_spec("n").path, value))
    restore(empty, _saved(store))
    assert empty.get(keys.node_spec("n").path).value == value


def test_leases_are_left_out(store):
    store.commit(create(keys.lease("hv1"), Lease(node="hv1", generation=4), ephemeral=True))
    assert keys.lease("hv1").path not in _saved(store).values


def _disturb(store, path, times):
    """Have somebody else write a node before each of the first reads of ``store``."""
    other = store.tree.connect()
    left = iter(range(times))

    def fault(moment, session, operations):
        if session is store and moment is Moment.READ and next(left, None) is not None:
            other.commit(Put(path, other.get(path).value, ANY))

    store.tree.fault = fault


def test_what_changes_while_it_is_read_is_read_again(store):
    _disturb(store, keys.vm_spec("vm1").path, times=20)
    assert keys.vm_spec("vm1").path in _saved(store).values


def test_a_tree_that_never_rests_is_not_backed_up(store):
    _disturb(store, keys.vm_spec("vm1").path, times=1000)
    with pytest.raises(Conflict, match="kept changing"):
        backup(store, created=0)


def test_status_may_change_all_the_time(store):
    _disturb(store, keys.vm_status("vm1").path, times=1000)
    assert keys.vm_status("vm1").path in _saved(store).values


def test_no_tree_is_not_backed_up(empty):
    with pytest.raises(InvalidRequest, match="nothing to back up"):
        backup(empty, created=0)


def test_a_half_restored_tree_is_not_backed_up(store):
    store.commit(Create(RESTORING, b"x over"))
    with pytest.raises(Conflict, match="finish the restore"):
        backup(store, created=0)


def _edited(store, edit):
    file = json.loads(backup(store, created=0))
    edit(file)
    return json.dumps(file).encode()


def _node(file, path):
    return next(node for node in file["nodes"] if node["path"] == path)


def _remove(file, path):
    file["nodes"] = [node for node in file["nodes"] if node["path"] != path]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.update(format="tar"), "format is 'tar'"),
        (lambda f: f.update(version=9), "version 9"),
        (lambda f: f.update(schema=2), "layout 2"),
        (lambda f: f.pop("nodes"), "has no /pvc/v1"),
        (lambda f: f["nodes"].append({"path": "/etc/passwd"}), "outside"),
        (lambda f: f["nodes"].append({"path": "/pvc/v1/../x"}), "'..'"),
        (lambda f: f["nodes"].append({"path": "/pvc/v1/spec"}), "twice"),
        (lambda f: f["nodes"].append({"path": "/pvc/v1/absent/x"}), "no parent"),
        (lambda f: f["nodes"].append({"path": "/pvc/v1/x", "surprise": 1}), "surprise"),
        (lambda f: f["nodes"].append({"path": "/pvc/v1/x", "base64": "%%"}), "/pvc/v1/x"),
        (lambda f: _node(f, "/pvc/v1/spec/vm/vm1")["json"].update(memory_mib="much"), r"vm1 is no VmSpec.*memory_mib"),
        (lambda f: _node(f, "/pvc/v1/claim/vm1").pop("json"), "vm1 is no VmClaim"),
        (lambda f: _remove(f, "/pvc/v1/cluster"), "has no /pvc/v1/cluster"),
    ],
)
def test_a_file_that_is_damaged_or_of_another_kind_is_refused(store, edit, message):
    with pytest.raises(InvalidRequest, match=message):
        read_backup(_edited(store, edit))


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"{}", b"[]", b'{"format": "pvc-state"'])
def test_what_is_no_backup_at_all_is_refused(data):
    with pytest.raises(InvalidRequest, match="not a backup"):
        read_backup(data)


# Into an empty tree.


def test_an_empty_tree_becomes_what_it_was_claims_included(store, empty):
    done = restore(empty, _saved(store))
    assert _values(empty) == _begun_anew(store)
    assert done == Restored(created=len(_values(store)) - len(["/pvc", keys.ROOT]))
    initialise(empty)


def test_a_tree_that_was_only_initialised_counts_as_empty(store, empty):
    initialise(empty, name="new")
    restore(empty, _saved(store))
    assert read(empty, keys.claim("vm1")).value.node == "hv1"
    cluster = read(empty, keys.CLUSTER).value
    assert (cluster.name, cluster.generation) == ("lab", 2)


def test_what_a_fencing_left_to_be_done_is_brought_back_into_an_empty_tree_without_its_proofs(store, empty):
    block = StorageBlock(driver="ceph", lease=3, identity={"client": "hv2"}, pools=("p1",))
    proof = Proof(kind=ProofKind.STORAGE, evidence="closed", by="hv1", pools=("p1",))
    record = FenceRecord(
        node="hv2", lease=3, stage=FenceStage.RECOVERED, proofs=(proof,), dirty=True, drained=True, blocked=(block,)
    )
    paid = FenceRecord(node="hv3", lease=1, stage=FenceStage.RETURNED, proofs=(proof,))
    store.commit(create(keys.fence("hv2"), record), create(keys.fence("hv3"), paid))
    saved = _saved(store)
    restore(empty, saved)
    left = read(empty, keys.fence("hv2")).value
    assert (left.lease, left.stage, left.proofs, left.dirty, left.drained, left.blocked) == (
        3, FenceStage.CANCELLED, (), True, True, (block,),
    )  # fmt: skip
    assert read(empty, keys.fence("hv3")) is None
    store.commit(read(store, keys.fence("hv2")).delete())
    restore(store, saved, force=True)
    assert read(store, keys.fence("hv2")) is None, "they were done since"


def test_jobs_and_fences_of_that_day_are_not_brought_back(store, empty):
    store.commit(
        create(keys.task("t1"), Task(id="t1", kind="volume.import", node="hv1")), Create(f"{keys.FENCE}/hv2", b"{}")
    )
    restore(empty, _saved(store))
    assert (empty.children(keys.TASK), empty.children(keys.FENCE)) == ([], [])


def test_large_trees_are_restored_in_several_transactions(store, empty):
    for number in range(3):
        store.commit(*(Create(f"{keys.ROOT}/plugin/{number}-{i}", b"x" * 3000) for i in range(250)))
    sizes = []

    def fault(moment, session, operations):
        if moment is Moment.BEFORE:
            sizes.append(len(operations))

    empty.tree.fault = fault
    restore(empty, _saved(store))
    assert _values(empty) == _begun_anew(store)
    assert max(sizes) <= 500
    assert len(sizes) > 4


# Over a tree.


def test_a_live_cluster_is_not_overwritten_without_force(store):
    saved = _saved(store)
    store.commit(create(keys.lease("hv1"), Lease(node="hv1", generation=4), ephemeral=True))
    before = store.tree.dump()
    with pytest.raises(InUse, match=r"alive: hv1 hold a lease"):
        restore(store, saved)
    assert store.tree.dump() == before


def test_a_tree_with_objects_is_not_overwritten_without_force(store):
    saved = _saved(store)
    before = store.tree.dump()
    with pytest.raises(InUse, match=r"not empty: it has 4 specs and claims"):
        restore(store, saved)
    assert store.tree.dump() == before


def test_with_force_specs_and_names_become_those_of_the_file(store):
    saved = _saved(store)
    _define(store, "vm3")
    spec = read(store, keys.vm_spec("vm1"))
    store.commit(spec.put(msgspec.structs.replace(spec.value, memory_mib=4096, generation=7)))
    store.commit(
        Delete(keys.vm_spec("vm2").path), Delete(keys.vm_status("vm2").path), Delete(keys.name("vm", "name-vm2"))
    )
    done = restore(store, saved, force=True)
    assert store.children(f"{keys.SPEC}/vm") == ["vm1", "vm2"]
    assert store.children(f"{keys.NAME}/vm") == ["name-vm1", "name-vm2"]
    assert store.children(f"{keys.STATUS}/vm") == ["vm1", "vm2"]
    assert done == Restored(created=3, replaced=1, removed=3)
    restored = read(store, keys.vm_spec("vm1")).value
    assert (restored.memory_mib, restored.generation) == (512, 8)


def test_what_is_observed_now_stays(store):
    saved = _saved(store)
    claim, status = read(store, keys.claim("vm1")), read(store, keys.vm_status("vm1"))
    generation = read(store, keys.generation("hv1"))
    store.commit(
        claim.put(msgspec.structs.replace(claim.value, node="hv2", epoch=2)),
        status.put(msgspec.structs.replace(status.value, state=VmState.RUNNING)),
        generation.put(LeaseGeneration(node="hv1", generation=9)),
    )
    before = store.tree.dump()
    assert restore(store, saved, force=True) == Restored()
    assert store.tree.dump() == before


def test_a_claim_comes_back_over_a_tree_with_objects_only_for_its_epoch(store):
    saved = _saved(store)
    store.commit(Delete(keys.claim("vm1").path))
    restore(store, saved, force=True)
    claim = read(store, keys.claim("vm1")).value
    assert (claim.node, claim.epoch) == ("", 1)


def test_a_vacant_claim_goes_with_its_vm(store):
    saved = _saved(store)
    _define(store, "vm3")
    _run(store, "vm3", node="")
    restore(store, saved, force=True)
    assert store.children(keys.CLAIM) == store.children(f"{keys.SPEC}/vm")[:1] == ["vm1"]


@pytest.mark.parametrize("vacant", [True, False])
def test_a_vm_that_begins_to_run_during_the_restore_is_not_forgotten(store, vacant):
    saved = _saved(store)
    _define(store, "vm3")
    if vacant:
        _run(store, "vm3", node="")
    other = store.tree.connect()
    raced = []

    def fault(moment, session, operations):
        if (
            session is store
            and moment is Moment.BEFORE
            and any(isinstance(op, Delete) for op in operations)
            and not raced
        ):
            raced.append(True)
            if vacant:
                claim = read(other, keys.claim("vm3"))
                other.commit(claim.put(msgspec.structs.replace(claim.value, node="hv1", epoch=2)))
            else:
                _run(other, "vm3")

    store.tree.fault = fault
    with pytest.raises(InUse, match="run now: vm3"):
        restore(store, saved, force=True)
    assert read(store, keys.vm_spec("vm3"))
    assert read(store, keys.claim("vm3")).value.node == "hv1"


def test_a_vm_that_runs_and_is_not_in_the_file_is_not_forgotten(store):
    saved = _saved(store)
    _define(store, "vm3")
    _run(store, "vm3")
    before = store.tree.dump()
    with pytest.raises(InUse, match=r"does not know run now: vm3; stop them"):
        restore(store, saved, force=True)
    assert store.tree.dump() == before


def test_a_vm_whose_claim_is_vacant_is_forgotten(store):
    saved = _saved(store)
    _define(store, "vm3")
    _run(store, "vm3")
    claim = read(store, keys.claim("vm3"))
    store.commit(claim.put(replace(claim.value, node="")))
    restore(store, saved, force=True)
    assert store.get(keys.vm_spec("vm3").path) is None


def test_a_node_that_is_alive_stays_and_one_that_is_not_goes(store):
    saved = _saved(store)
    _join(store, "hv2")
    _join(store, "hv3")
    store.commit(create(keys.lease("hv2"), Lease(node="hv2", generation=4), ephemeral=True))
    restore(store, saved, force=True)
    assert store.children(f"{keys.SPEC}/node") == store.children(f"{keys.STATUS}/node") == ["hv1", "hv2"]
    # The number of a lease is never used again, so it outlives its node.
    assert store.children(keys.GENERATION) == ["hv1", "hv2", "hv3"]
    assert store.children(keys.LEASE) == ["hv2"]


def test_running_jobs_go_on(store):
    saved = _saved(store)
    store.commit(create(keys.task("t1"), Task(id="t1", kind="volume.import", node="hv1")))
    restore(store, saved, force=True)
    assert store.children(keys.TASK) == ["t1"]


def test_what_a_newer_version_added_to_the_base_stays(store):
    saved = _saved(store)
    del saved.values[f"{keys.NAME}/mac"]
    restore(store, saved, force=True)
    assert store.get(f"{keys.NAME}/mac") is not None


# Interrupted.


def _fail_at(count):
    commits = []

    def fault(moment, _store, operations):
        if moment is Moment.AFTER:
            commits.append(operations)
            if len(commits) == count:
                raise StoreUnavailable("no answer")

    return fault


def _many(store):
    for number in range(2):
        store.commit(*(Create(f"{keys.ROOT}/plugin/{number}-{i}", b"x") for i in range(450)))


@pytest.mark.parametrize("commit", range(1, 5))
def test_a_restore_that_is_interrupted_anywhere_is_finished_by_repeating_it(store, empty, commit):
    _many(store)
    saved = _saved(store)
    empty.tree.fault = _fail_at(commit)
    with pytest.raises(StoreUnavailable):
        restore(empty, saved)
    empty.tree.fault = None
    if empty.get(RESTORING):
        restore(empty, saved)
    assert _values(empty) == _begun_anew(store)


def test_an_interrupted_restore_of_another_file_is_not_continued_by_mistake(store, empty):
    saved = _saved(store)
    empty.tree.fault = _fail_at(1)
    with pytest.raises(StoreUnavailable):
        restore(empty, saved)
    empty.tree.fault = None
    _define(store, "vm3")
    with pytest.raises(InUse, match="another file was interrupted"):
        restore(empty, _saved(store))
    restore(empty, _saved(store), force=True)
    assert empty.children(f"{keys.SPEC}/vm") == ["vm1", "vm2", "vm3"]


def test_a_forced_restore_that_is_repeated_still_brings_no_holder_back(store):
    saved = _saved(store)
    store.commit(Delete(keys.claim("vm1").path), Delete(keys.vm_spec("vm2").path))
    store.tree.fault = _fail_at(2)
    with pytest.raises(StoreUnavailable):
        restore(store, saved, force=True)
    store.tree.fault = None
    restore(store, saved)
    assert store.children(f"{keys.SPEC}/vm") == ["vm1", "vm2"]
    assert read(store, keys.claim("vm1")).value.node == ""


def test_a_change_at_the_same_time_is_seen_and_overwritten(store):
    saved = _saved(store)
    spec = read(store, keys.vm_spec("vm1"))
    store.commit(spec.put(msgspec.structs.replace(spec.value, memory_mib=1024)))
    other = store.tree.connect()
    raced = []

    def fault(moment, session, operations):
        if session is store and moment is Moment.BEFORE and any(isinstance(op, Put) for op in operations) and not raced:
            raced.append(True)
            now = read(other, keys.vm_spec("vm1"))
            other.commit(now.put(msgspec.structs.replace(now.value, memory_mib=2048)))

    store.tree.fault = fault
    restore(store, saved, force=True)
    assert raced
    assert read(store, keys.vm_spec("vm1")).value.memory_mib == 512
