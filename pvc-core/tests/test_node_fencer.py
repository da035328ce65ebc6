"""Fencing by the primary: proof before revocation, levels in order, what returns, what a new primary goes on from."""

import pytest
from msgspec.structs import replace

from pvc_core.model.fence import FenceLevel, FenceRecord, FenceStage, Proof, ProofKind
from pvc_core.model.vm import MigrationPhase, MigrationRecord, VmClaim, VmState
from pvc_core.node.watch import Watch
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.plan import fencing as plan
from pvc_core.plugin.specs.fencing import PowerState
from pvc_core.store import documents, keys
from pvc_core.store.api import Put
from pvc_core.testkit.fence_site import COORDINATORS, LEVEL, OTHER, ClosableSite, FenceSite
from pvc_core.testkit.stepped import FixedHost


@pytest.fixture
def site():
    return FenceSite()


def test_the_vms_of_a_dead_node_run_elsewhere_once_its_power_is_proven_off(site):
    vm = site.vm("web")
    site.lost("hv3")
    assert site.stage() is FenceStage.SUSPECTED
    took = site.until(lambda: site.cluster.world.running(vm) not in ([], ["hv3"]))
    assert took < site.cluster.timing.grace + 3.0
    record = site.record()
    assert record.stage is FenceStage.RECOVERED
    assert [proof.kind for proof in record.proofs] == [ProofKind.POWER]
    assert [(item.name, item.outcome) for item in record.vms] == [("web", "freed")]
    assert [event.stage for event in record.events] == ["suspected", "fencing", "proven", "recovered"]


def test_a_running_node_that_was_cut_off_is_switched_off_before_its_vms_start_elsewhere(site):
    vm = site.vm("web")
    site.isolated("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    assert not site.cluster.nodes["hv3"].running
    site.until(lambda: len(site.cluster.world.running(vm)) == 1)


def test_nothing_is_done_within_the_grace_time(site):
    vm = site.vm("web")
    site.lost("hv3")
    site.cluster.run(site.cluster.timing.grace - 0.5)
    assert site.stage() is FenceStage.SUSPECTED
    assert site.read(keys.claim(vm)).node == "hv3"
    assert site.power.read("hv3") is PowerState.ON


def test_a_node_that_is_back_within_the_grace_time_keeps_its_vms(site):
    vm = site.vm("web")
    site.lost("hv3")
    site.returns("hv3")
    site.until(lambda: site.stage() is FenceStage.CANCELLED)
    site.until(lambda: site.cluster.world.running(vm) == ["hv3"])
    assert site.power.read("hv3") is PowerState.ON


def test_a_node_that_gave_its_lease_up_is_never_fenced(site):
    vm = site.vm("web")
    node = site.cluster.nodes["hv3"]
    node.agent.lease.release()
    node.kill().expire()
    site.cluster.run(120.0)
    assert site.record() is None
    assert site.cluster.world.running(vm) == ["hv3"]


@pytest.mark.parametrize("whose", ["node", "cluster"])
def test_in_maintenance_nothing_is_fenced_until_it_ends(site, whose):
    key = keys.node_spec("hv3") if whose == "node" else keys.CLUSTER
    site.vm("web")
    site.change(key, maintenance=True, maintenance_until=site.cluster.clock.wall() + 90.0)
    site.lost("hv3")
    site.cluster.run(60.0)
    assert site.record() is None
    site.until(lambda: site.stage() is FenceStage.RECOVERED, 120.0)
    assert not site.read(key).maintenance


def test_maintenance_that_begins_in_the_middle_stops_the_search(site):
    site.power.silent.add("hv3")
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.FENCING)
    site.change(keys.node_spec("hv3"), maintenance=True)
    site.cluster.run(120.0)
    rounds = site.record().round
    site.power.silent.clear()
    site.cluster.run(120.0)
    assert (site.stage(), site.record().round) == (FenceStage.FENCING, rounds)
    assert site.record().waits_for == "the node is in maintenance"
    site.change(keys.node_spec("hv3"), maintenance=False)
    site.until(lambda: site.stage() is FenceStage.RECOVERED)


def test_without_a_proof_nothing_is_recovered_and_the_record_says_why(site):
    vm = site.vm("web")
    site.power.silent.add("hv3")
    site.lost("hv3")
    site.cluster.run(600.0)
    record = site.record()
    assert record.stage is FenceStage.FENCING
    assert record.round > 5
    assert record.waits_for == (
        "power: level 1: fake: the power controller of node hv3 does not answer; "
        "storage: no storage driver here can keep a node from writing; watchdog: it had armed none"
    )
    assert site.read(keys.claim(vm)).node == "hv3"


@pytest.mark.parametrize("fault", ["stuck", "silent", "unreadable"])
def test_a_controller_that_does_not_confirm_is_no_proof_and_is_asked_again_for_ever(site, fault):
    vm = site.vm("web")
    getattr(site.power, fault).add("hv3")
    site.lost("hv3")
    site.cluster.run(300.0)
    assert site.record().proofs == ()
    assert site.read(keys.claim(vm)).node == "hv3"
    getattr(site.power, fault).clear()
    site.until(lambda: len(site.cluster.world.running(vm)) == 1, 120.0)


def test_the_next_level_is_tried_when_one_fails(site):
    site.change(keys.node_spec("hv3"), fence_levels=(LEVEL, OTHER))
    site.power.silent.add("hv3")
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    attempts = [(a.level, a.ok) for a in site.record().attempts]
    assert attempts == [(1, False), (2, True)]


def test_all_devices_of_a_level_must_be_off(site):
    both = FenceLevel(devices=(*LEVEL.devices, *OTHER.devices))
    site.change(keys.node_spec("hv3"), fence_levels=(both,))
    site.other.silent.add("hv3")
    site.lost("hv3")
    site.cluster.run(120.0)
    assert site.stage() is FenceStage.FENCING
    site.other.silent.clear()
    site.until(lambda: site.stage() is FenceStage.RECOVERED, 120.0)


def test_power_is_not_cut_where_the_cluster_does_not_count_it(site):
    site.change(keys.CLUSTER, recovery=("watchdog",))
    site.lost("hv3")
    site.cluster.run(120.0)
    assert site.power.read("hv3") is PowerState.ON
    assert site.record().waits_for == "watchdog: it had armed none"


def test_an_expired_watchdog_is_a_proof(site):
    vm = site.vm("web")
    site.power.silent.add("hv3")
    last = documents.read(site.cluster.operator, keys.generation("hv3"))
    site.dies("hv3")
    site.cluster.operator.commit(last.put(replace(last.value, watchdog_down_s=21.0)))
    site.loses_lease("hv3")
    site.cluster.run(20.5)
    assert site.read(keys.claim(vm)).node == "hv3"
    site.until(lambda: len(site.cluster.world.running(vm)) == 1, 5.0)
    assert site.record().proofs[0].kind is ProofKind.WATCHDOG


def test_an_operators_word_is_a_proof_also_in_maintenance(site):
    vm = site.vm("web")
    site.change(keys.node_spec("hv3"), maintenance=True)
    site.lost("hv3")
    lease = site.read(keys.generation("hv3")).generation
    proof = Proof(kind=ProofKind.OPERATOR, evidence="it burnt down", by="me@desk")
    record = plan.with_proof(FenceRecord(node="hv3", lease=lease), proof)
    record = plan.with_event(record, FenceStage.PROVEN, "confirmed", "me@desk", 1.0)
    site.cluster.operator.commit(documents.create(keys.fence("hv3"), record))
    site.until(lambda: len(site.cluster.world.running(vm)) == 1)
    assert site.stage() is FenceStage.RECOVERED


def test_a_proof_of_an_earlier_loss_counts_for_nothing(site):
    vm = site.vm("web")
    proof = Proof(kind=ProofKind.POWER, evidence="long ago", by="hv1")
    old = replace(plan.with_proof(FenceRecord(node="hv3", lease=0), proof), stage=FenceStage.RETURNED, dirty=False)
    site.cluster.operator.commit(documents.create(keys.fence("hv3"), old))
    site.power.silent.add("hv3")
    site.lost("hv3")
    site.cluster.run(120.0)
    assert site.record().proofs == ()
    assert site.read(keys.claim(vm)).node == "hv3"


def test_a_device_that_said_off_while_the_node_was_alive_is_not_believed(site):
    vm = site.vm("web")
    site.change(keys.node_spec("hv3"), fence_levels=(OTHER, LEVEL))
    site.cluster.run(5.0)
    site.other.stuck.add("hv3")
    site.other.add("hv3", PowerState.OFF)
    site.cluster.run(3 * site.cluster.timing.fence_check)
    site.isolated("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    assert [(a.level, a.ok) for a in site.record().attempts] == [(1, False), (2, True)]
    assert site.record().attempts[0].message == "not believed: it said off while the node was alive"
    site.until(lambda: len(site.cluster.world.running(vm)) == 1)


def test_after_a_power_cut_of_the_whole_site_slow_hosts_are_waited_for(site):
    vm = site.vm("web")
    for name in COORDINATORS:
        site.lost(name)
    for name in ("hv1", "hv2"):
        site.cluster.nodes[name].host.uptime_s = 40.0
        site.returns(name)
    site.cluster.run(200.0)
    assert site.stage() is FenceStage.SUSPECTED
    assert site.record().waits_for == "its host may still be starting: this one was started a short while ago too"
    site.returns("hv3")
    site.until(lambda: site.stage() is FenceStage.CANCELLED)
    site.until(lambda: site.cluster.world.running(vm) == ["hv3"])


def test_a_host_that_never_comes_back_after_that_is_fenced_in_the_end(site):
    vm = site.vm("web")
    for name in COORDINATORS:
        site.lost(name)
    for name in ("hv1", "hv2"):
        site.cluster.nodes[name].host.uptime_s = 40.0
        site.returns(name)
    site.until(lambda: len(site.cluster.world.running(vm)) == 1, 300.0)


def test_a_host_that_was_seen_after_the_start_is_not_waited_for(site):
    for name in COORDINATORS:
        site.lost(name)
    for name in COORDINATORS:
        site.cluster.nodes[name].host.uptime_s = 40.0
        site.returns(name)
    site.cluster.run(20.0)
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED, 10.0)


def test_several_nodes_are_fenced_at_the_same_time(site):
    site.held = True
    site.lost("hv3")
    site.lost("hv2")
    assert site.read(keys.PRIMARY).node == "hv1"
    site.until(lambda: len(site.pending) == 2)
    site.answer()
    assert (site.stage("hv2"), site.stage("hv3")) == (FenceStage.RECOVERED, FenceStage.RECOVERED)


def test_an_answer_that_comes_after_the_nodes_return_is_dropped(site):
    vm = site.vm("web")
    site.held = True
    site.power.stuck.add("hv3")
    site.lost("hv3")
    site.until(lambda: site.pending)
    site.returns("hv3")
    assert site.stage() is FenceStage.FENCING
    site.answer()
    site.until(lambda: site.stage() is FenceStage.CANCELLED)
    site.until(lambda: site.cluster.world.running(vm) == ["hv3"])


def test_power_is_not_cut_when_the_node_is_back_at_the_last_moment(site):
    site.held = True
    site.lost("hv3")
    site.until(lambda: site.pending)
    site.returns("hv3")
    site.answer()
    site.until(lambda: site.stage() is FenceStage.CANCELLED)
    assert site.power.read("hv3") is PowerState.ON


def test_power_is_not_cut_when_there_is_another_proof_by_then(site):
    site.held = True
    site.lost("hv3")
    site.until(lambda: site.pending)
    entry = documents.read(site.cluster.operator, keys.fence("hv3"))
    proof = Proof(kind=ProofKind.OPERATOR, evidence="it is being repaired", by="me@desk")
    site.cluster.operator.commit(entry.put(plan.with_proof(entry.value, proof)))
    site.answer()
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    assert [proof.kind for proof in site.record().proofs] == [ProofKind.OPERATOR]
    assert site.power.read("hv3") is PowerState.ON


def test_a_new_primary_goes_on_from_the_record(site):
    vm = site.vm("web")
    site.held = True
    site.lost("hv3")
    site.until(lambda: site.pending)
    site.pending.clear()
    site.held = False
    site.lost("hv1")
    took = site.until(lambda: site.cluster.world.running(vm) == ["hv2"], 60.0)
    assert took < site.cluster.timing.grace
    assert [e.by for e in site.record().events] == ["hv1", "hv1", "hv2", "hv2"]


def test_a_vm_that_was_asked_to_stop_stays_stopped(site):
    vm = site.vm("web")
    site.cluster.nodes["hv3"].kill()
    site.change(keys.vm_spec(vm), power="stopped")
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.cluster.run(60.0)
    assert site.cluster.world.running(vm) == []
    assert site.read(keys.vm_status(vm)).state is VmState.STOPPED


def test_a_vm_that_is_never_restarted_stays_down_and_says_so(site):
    vm = site.vm("web", restart="never")
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.cluster.run(60.0)
    assert site.cluster.world.running(vm) == []
    assert site.read(keys.vm_status(vm)).reason == "node hv3 failed under it, and it is not to be restarted"


def test_a_vm_without_room_waits_visibly_and_starts_when_there_is_room(site):
    vms = [site.vm(f"big{n}", "hv3") for n in range(2)]
    for vm in vms:
        site.change(keys.vm_spec(vm), memory_mib=12000)
    fillers = []
    for node in ("hv1", "hv2"):
        filler = site.vm(f"filler-{node}", node)
        site.change(keys.vm_spec(filler), memory_mib=12000)
        fillers.append(filler)
    site.cluster.run(30.0)
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.cluster.run(20.0)
    reasons = [site.read(keys.vm_status(vm)) for vm in vms]
    assert {status.state for status in reasons} == {VmState.WAITING}
    assert all("hv1: " in status.reason and "hv2: " in status.reason for status in reasons)
    site.change(keys.vm_spec(fillers[0]), power="stopped", stop_forced=True)
    site.until(lambda: any(site.cluster.world.running(vm) for vm in vms))


def test_a_guest_that_a_migration_had_brought_to_its_target_is_left_to_the_target(site):
    vm = site.vm("web")
    entry = documents.read(site.cluster.operator, keys.claim(vm))
    site.cluster.nodes["hv3"].kill()
    migration = MigrationRecord(target="hv2", attempt="a1", phase=MigrationPhase.ARRIVED, target_lease=1)
    site.cluster.operator.commit(entry.put(replace(entry.value, migration=migration)))
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    item = site.record().vms[0]
    assert (item.outcome, item.target) == ("handed-over", "hv2")
    site.until(lambda: len(site.cluster.world.running(vm)) == 1)


def test_a_migration_that_waits_for_the_word_of_a_dead_target_goes_on(site):
    vm = site.vm("web", node="hv2")
    entry = documents.read(site.cluster.operator, keys.claim(vm))
    migration = MigrationRecord(target="hv3", attempt="a1", phase=MigrationPhase.UNCERTAIN, target_lease=1)
    site.cluster.operator.commit(entry.put(replace(entry.value, migration=migration)))
    site.lost("hv3")
    site.until(lambda: site.read(keys.claim(vm)).migration is None, 60.0)
    site.until(lambda: site.cluster.world.running(vm) == ["hv2"])


def test_a_fenced_node_is_out_of_service_until_somebody_puts_it_back(site):
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    assert site.read(keys.node_spec("hv3")).scheduling == "drain"
    site.returns("hv3")
    site.until(lambda: site.stage() is FenceStage.RETURNED)
    site.cluster.run(60.0)
    assert site.read(keys.node_spec("hv3")).scheduling == "drain"


def test_a_fenced_node_is_switched_on_and_put_back_where_the_cluster_wants_that(site):
    vm = site.vm("web")
    site.change(keys.CLUSTER, power_on_after_fence=True, return_after_fence=True)
    site.lost("hv3")
    site.until(lambda: site.record() is not None and site.record().powered_on != "")
    assert site.power.read("hv3") is PowerState.ON
    site.returns("hv3")
    site.until(lambda: site.read(keys.node_spec("hv3")).scheduling == "ready")
    site.until(lambda: site.cluster.world.running(vm) == ["hv3"], 120.0)


def test_a_node_that_an_operator_had_flushed_is_not_put_back(site):
    site.change(keys.CLUSTER, return_after_fence=True)
    site.change(keys.node_spec("hv3"), scheduling="drain")
    site.cluster.run(30.0)
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.returns("hv3")
    site.cluster.run(60.0)
    assert site.read(keys.node_spec("hv3")).scheduling == "drain"


def test_a_node_that_returns_ends_the_domains_whose_claims_it_lost_before_anything_else(site):
    vm = site.vm("web")
    site.power.stuck.add("hv3")
    site.isolated("hv3")
    lease = site.read(keys.generation("hv3")).generation
    entry = documents.read(site.cluster.operator, keys.fence("hv3"))
    proof = Proof(kind=ProofKind.OPERATOR, evidence="it is off, surely", by="me@desk")
    record = plan.with_event(plan.with_proof(entry.value, proof), FenceStage.PROVEN, "so", "me@desk", 1.0)
    assert record.lease == lease
    # The network driver of the other nodes is of no use to the test: they shall not start it yet.
    for name in ("hv1", "hv2"):
        site.change(keys.node_spec(name), scheduling="drain")
    site.cluster.settle()
    entry = documents.read(site.cluster.operator, keys.fence("hv3"))
    site.cluster.operator.commit(entry.put(record))
    site.until(lambda: site.read(keys.claim(vm)).node == "")
    assert site.cluster.world.running(vm) == ["hv3"]
    site.cluster.nodes["hv3"].store.resume()
    site.cluster.nodes["hv3"].store.reconnect()
    site.until(lambda: site.stage() is FenceStage.RETURNED)
    assert site.cluster.world.running(vm) == []
    assert not site.record().dirty


def test_each_stage_is_told_to_the_plugins(site):
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.cluster.settle()
    told = [(name, a.get("stage")) for name, a in site.cluster.nodes["hv1"].drivers.events if "fence" in name]
    assert told == [
        ("fence_stage", "suspected"),
        ("fence_stage", "fencing"),
        ("fence_stage", "proven"),
        ("node_fenced", None),
        ("fence_stage", "recovered"),
    ]


def test_a_claim_that_is_handed_to_a_node_proven_dead_is_taken_too(site):
    vm = site.vm("web", node="hv2")
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.cluster.nodes["hv2"].kill()
    entry = documents.read(site.cluster.operator, keys.claim(vm))
    handed = VmClaim(vm=vm, node="hv3", lease=1, epoch=entry.value.epoch + 1)
    site.cluster.operator.commit(entry.put(handed))
    site.until(lambda: site.read(keys.claim(vm)).node == "", 120.0)


def _interpose(site, concerns, action):
    """Do something just before the primary commits a transaction that concerns some path."""
    store = site.cluster.nodes["hv1"].store
    commit, done = store.commit, []

    def interposed(*operations):
        if not done and any(concerns in operation.path for operation in operations if isinstance(operation, Put)):
            done.append(1)
            action()
        commit(*operations)

    store.commit = interposed
    return done


def test_from_a_node_that_returns_just_before_its_vms_are_taken_none_is_taken(site):
    site.vm("web")
    site.lost("hv3")

    def returns():
        site.cluster.world.power_on("hv3")
        node = site.cluster.nodes["hv3"]
        node.start()
        node.agent.step(("session", ""))

    done = _interpose(site, "/claim/", returns)
    site.until(lambda: done)
    site.until(lambda: site.stage() is FenceStage.RETURNED)
    assert site.record().vms == ()


def test_a_deposed_primary_takes_nothing(site):
    vm = site.vm("web")
    site.lost("hv3")

    def deposed():
        entry = documents.read(site.cluster.operator, keys.PRIMARY)
        site.cluster.operator.commit(entry.put(replace(entry.value, node="hv2", term=entry.value.term + 1)))

    done = _interpose(site, "/claim/", deposed)
    site.until(lambda: done)
    assert site.read(keys.claim(vm)).node == "hv3"


def test_the_grace_time_begins_anew_with_each_loss_even_if_the_return_was_not_seen(site):
    site.lost("hv3")
    watch = Watch(site.cluster.nodes["hv1"].agent.context, FixedHost())
    watch.look()
    since = watch.gone()["hv3"].since
    site.cluster.clock.move_to(site.cluster.clock.monotonic() + 3.0)
    watch.look()
    assert watch.gone()["hv3"].since == since
    entry = documents.read(site.cluster.operator, keys.generation("hv3"))
    site.cluster.operator.commit(entry.put(replace(entry.value, generation=2)))
    watch.look()
    assert watch.gone()["hv3"].since == since + 3.0
    assert watch.missing().within == {"hv3"}


def test_a_lease_that_is_taken_while_the_watch_looks_is_not_gone(site):
    site.lost("hv3")
    context = site.cluster.nodes["hv1"].agent.context
    watch, store = Watch(context, FixedHost()), context.store
    children_many = store.children_many

    def returns_then(paths):
        found = children_many(paths)
        store.children_many = children_many
        site.returns("hv3")
        return found

    store.children_many = returns_then
    watch.look()
    assert site.read(keys.lease("hv3")) is not None
    assert watch.gone() == {}


@pytest.fixture
def stored():
    return ClosableSite()


def test_a_node_whose_storage_is_closed_loses_the_vms_on_it_and_only_those(stored):
    covered, mixed, bare = stored.vm_on("a", "shared"), stored.vm_on("b", "shared", "plain"), stored.vm("c")
    stored.isolated("hv3")
    stored.until(lambda: stored.read(keys.claim(covered)).node in ("hv1", "hv2"))
    stored.cluster.run(30.0)
    record = stored.record()
    assert [proof.kind for proof in record.proofs] == [ProofKind.STORAGE]
    assert (record.stage, [vm.vm for vm in record.vms]) == (FenceStage.PROVEN, [covered])
    assert {stored.read(keys.claim(vm)).node for vm in (mixed, bare)} == {"hv3"}
    assert record.waits_for


def test_the_rest_follows_when_there_is_a_proof_for_the_whole_node(stored):
    covered, mixed = stored.vm_on("a", "shared"), stored.vm_on("b", "shared", "plain")
    stored.isolated("hv3")
    stored.until(lambda: stored.read(keys.claim(covered)).node in ("hv1", "hv2"))
    stored.power.silent.clear()
    stored.until(lambda: stored.read(keys.claim(mixed)).node in ("hv1", "hv2"), 120.0)
    stored.until(lambda: stored.stage() is FenceStage.RECOVERED)
    assert stored.record().whole_node().kind is ProofKind.POWER


def test_what_is_to_be_closed_is_in_the_record_before_it_is_closed(stored):
    stored.vm_on("a", "shared")
    stored.held = True
    stored.isolated("hv3")
    stored.until(lambda: stored.pending)
    stored.answer()  # power: silent
    stored.until(lambda: stored.pending)
    stored.answer()  # what can be closed
    stored.until(lambda: stored.pending)
    assert [block.driver for block in stored.record().blocked] == ["fake"]
    assert stored.backend.blocked == set()
    stored.answer()
    assert len(stored.backend.blocked) == 1


def test_a_node_whose_storage_was_closed_ends_all_guests_and_gets_it_back(stored):
    covered, bare = stored.vm_on("a", "shared"), stored.vm("c")
    stored.isolated("hv3")
    stored.until(lambda: stored.read(keys.claim(covered)).node in ("hv1", "hv2"))
    node = stored.cluster.nodes["hv3"]
    node.store.resume()
    node.store.reconnect()
    stored.until(lambda: stored.stage() is FenceStage.RETURNED)
    assert stored.cluster.world.running(covered) != ["hv3"]
    stored.until(lambda: stored.record().blocked == ())
    assert stored.backend.blocked == set()
    assert stored.read(keys.claim(bare)).node != "hv3"
    assert stored.read(keys.vm_status(bare)).crashes == 0
    stored.until(lambda: stored.cluster.world.running(bare) in (["hv1"], ["hv2"]), 120.0)


def test_a_migration_to_a_node_with_open_storage_is_not_answered_for_it(stored):
    """Storage that is closed for one VM proves nothing for another."""
    stored.vm_on("a", "shared")
    other = stored.vm("c", node="hv2")
    entry = documents.read(stored.cluster.operator, keys.claim(other))
    migration = MigrationRecord(target="hv3", attempt="a1", phase=MigrationPhase.UNCERTAIN, target_lease=1)
    stored.cluster.operator.commit(entry.put(replace(entry.value, migration=migration)))
    stored.isolated("hv3")
    stored.until(lambda: stored.stage() is FenceStage.PROVEN)
    stored.cluster.run(60.0)
    assert stored.read(keys.claim(other)).migration.phase is MigrationPhase.UNCERTAIN


def test_guests_whose_storage_may_have_been_closed_start_afresh_when_it_is_open(stored):
    """The primary was still closing it when the node came back: nobody knows which writes failed."""
    vm = stored.vm_on("a", "shared")
    stored.held = True
    stored.isolated("hv3")
    for _ in ("power", "what can be closed"):
        stored.until(lambda: stored.pending)
        stored.answer()
    stored.until(lambda: stored.pending)
    node = stored.cluster.nodes["hv3"]
    node.store.resume()
    node.store.reconnect()
    stored.until(lambda: not stored.record().dirty)
    assert stored.cluster.world.running(vm) == []
    assert stored.read(keys.vm_status(vm)).crashes == 0
    stored.held = False
    stored.answer()
    stored.until(lambda: stored.stage() is FenceStage.CANCELLED)
    stored.until(lambda: stored.record().blocked == ())
    stored.until(lambda: stored.cluster.world.running(vm) == ["hv3"])
    assert stored.backend.blocked == set()


def test_storage_that_cannot_be_opened_keeps_the_node_from_running_vms(stored):
    vm = stored.vm_on("a", "shared")
    new = vm_define(stored.cluster.ops, VmDefine(name="new", memory=512, node="hv3", node_limit=("hv3",))).id
    stored.isolated("hv3")
    stored.until(lambda: stored.read(keys.claim(vm)).node in ("hv1", "hv2"))
    for name in ("hv1", "hv2"):
        stored.cluster.nodes[name].drivers.break_driver("fake", "gone")
    node = stored.cluster.nodes["hv3"]
    node.store.resume()
    node.store.reconnect()
    stored.until(lambda: stored.stage() is FenceStage.RETURNED)
    stored.change(keys.node_spec("hv3"), scheduling="ready")
    stored.change(keys.vm_spec(new), power="running")
    stored.cluster.run(60.0)
    assert stored.cluster.world.running(new) == []
    said = "hv3: it was fenced, and its storage cannot be opened again: "
    stored.until(lambda: said in stored.read(keys.vm_status(new)).reason)
    for name in ("hv1", "hv2"):
        stored.cluster.nodes[name].drivers.mend_driver("fake")
    stored.until(lambda: stored.cluster.world.running(new) == ["hv3"], 180.0)
