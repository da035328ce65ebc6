"""The primary role: sticky, one holder, moved by command or failure; its services in order; its duties."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import Conflict
from pvc_core.model.node import NodeSpec
from pvc_core.model.storage import PoolSpec, VolumeSpec
from pvc_core.model.task import Task, TaskState
from pvc_core.node import duties as duties_module
from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.specs.lifecycle import RoleService
from pvc_core.store import documents, keys
from pvc_core.store.documents import create
from pvc_core.testkit.stepped import SteppedCluster

COORDINATORS = ("hv1", "hv2", "hv3")


class Service(RoleService):
    def __init__(self, node, name, order, journal):
        self.node, self.name, self.order, self.journal = node, name, order, journal
        self.error = None
        self.running = False
        """It outlives the daemon."""

    def acquire(self, term):
        if self.error is not None:
            raise self.error
        self.running = True
        self.journal.append((self.node, "acquire", self.name, term))

    def relinquish(self):
        if self.error is not None:
            raise self.error
        if self.running:
            self.running = False
            self.journal.append((self.node, "relinquish", self.name))


class Site:
    def __init__(self, names=COORDINATORS, coordinators=COORDINATORS):
        self.cluster = SteppedCluster(coordinators)
        self.journal = []
        self.services = {}
        self.guards = []
        for name in names:
            mine = tuple(Service(name, what, order, self.journal) for what, order in (("dhcp", 200), ("address", 10)))
            self.services[name] = {service.name: service for service in mine}
            self.cluster.add(name, services=mine, duties=(("note", self._duty(name)),))
        self.cluster.settle()

    def _duty(self, name):
        def duty(guard):
            self.guards.append((name, guard))

        return duty

    def read(self):
        return documents.read(self.cluster.operator, keys.PRIMARY).value

    def ask(self, wanted):
        entry = documents.read(self.cluster.operator, keys.PRIMARY)
        self.cluster.operator.commit(entry.put(replace(entry.value, wanted=wanted)))

    def node(self, name):
        return self.cluster.nodes[name]

    def lose(self, name):
        """The node is dead: its session ends a lease time later."""
        self.node(name).kill().expire()


@pytest.fixture
def site():
    return Site()


def test_the_first_coordinator_takes_the_vacant_role_and_runs_its_services_in_order(site):
    primary = site.read()
    assert (primary.node, primary.stage, primary.term) == ("hv1", "active", 1)
    assert primary.lease == site.node("hv1").agent.lease.generation()
    assert site.journal == [("hv1", "acquire", "address", 1), ("hv1", "acquire", "dhcp", 1)]


def test_a_hypervisor_never_takes_the_role():
    site = Site(names=("hv9",))
    assert site.read().node is None


def test_the_role_stays_when_others_come_and_go(site):
    site.lose("hv2")
    site.cluster.run(60)
    site.node("hv2").start()
    site.cluster.run(60)
    assert (site.read().node, site.read().term) == ("hv1", 1)
    assert len(site.journal) == 2


def test_the_role_of_a_dead_holder_is_taken_at_once_by_exactly_one(site):
    site.lose("hv1")
    site.cluster.settle()
    primary = site.read()
    assert (primary.node, primary.term, primary.stage) == ("hv2", 2, "active")
    assert site.journal[2:] == [("hv2", "acquire", "address", 2), ("hv2", "acquire", "dhcp", 2)]


def test_a_living_holder_is_not_robbed_by_a_late_decision(site):
    """The proof is inside the transaction: hv1's lease comes back between hv2's look and its write."""
    from pvc_core.store.memory import Moment

    hv1, hv2 = site.node("hv1"), site.node("hv2")
    lease_path = keys.lease("hv1").path
    lease = site.cluster.operator.get(lease_path)

    def come_back(moment, session, operations):
        if session is hv2.store and moment is Moment.BEFORE and any(o.path == keys.PRIMARY.path for o in operations):
            site.cluster.tree.fault = None
            from pvc_core.store.api import Create

            site.cluster.operator.commit(Create(lease_path, lease.value))

    hv1.kill().expire()
    site.cluster.tree.fault = come_back
    hv2.agent.step(("primary", ""))
    assert site.read().node == "hv1"


def test_a_holder_cut_off_from_the_store_relinquishes_on_its_own_clock_before_it_can_be_replaced(site):
    hv1 = site.node("hv1")
    hv1.store.suspend()
    relinquished = site.cluster.until(lambda: len(site.journal) == 4, site.cluster.timing.lease)
    assert relinquished < site.cluster.timing.lease
    assert site.journal[2:] == [("hv1", "relinquish", "dhcp"), ("hv1", "relinquish", "address")]
    hv1.store.expire()
    site.cluster.settle()
    assert site.read().node == "hv2"
    hv1.store.resume()
    site.cluster.run(5)
    assert site.read().node == "hv2"
    assert [entry for entry in site.journal[4:] if entry[0] == "hv1"] == []


def test_a_short_disturbance_moves_nothing(site):
    site.node("hv1").store.suspend()
    site.cluster.run(3)
    site.node("hv1").store.resume()
    site.cluster.run(60)
    assert (site.read().node, site.read().term) == ("hv1", 1)
    assert len(site.journal) == 2


def test_a_holder_whose_session_was_replaced_goes_on_with_a_new_term(site):
    hv1 = site.node("hv1")
    others = [site.node("hv2"), site.node("hv3")]
    for node in others:
        node.kill().expire()
    hv1.store.expire()
    hv1.store.reconnect()
    site.cluster.settle()
    assert (site.read().node, site.read().term) == ("hv1", 2)
    assert site.journal[-1] == ("hv1", "acquire", "dhcp", 2)


def test_a_restarted_holder_keeps_the_role(site):
    site.node("hv1").kill()
    site.node("hv1").start()
    site.cluster.settle()
    assert (site.read().node, site.read().term, site.read().stage) == ("hv1", 2, "active")


def test_an_operator_moves_the_role_services_being_ended_before_others_begin(site):
    site.ask("hv3")
    site.cluster.settle()
    primary = site.read()
    assert (primary.node, primary.wanted, primary.stage, primary.term) == ("hv3", None, "active", 2)
    assert site.journal[2:] == [
        ("hv1", "relinquish", "dhcp"),
        ("hv1", "relinquish", "address"),
        ("hv3", "acquire", "address", 2),
        ("hv3", "acquire", "dhcp", 2),
    ]


def test_secondary_gives_the_role_to_another_one(site):
    site.ask("*")
    site.cluster.settle()
    assert site.read().node == "hv2"
    site.cluster.run(120)
    assert site.read().node == "hv2"


def test_a_wanted_node_that_is_not_alive_changes_nothing(site):
    site.lose("hv3")
    site.ask("hv3")
    site.cluster.settle()
    assert (site.read().node, site.read().wanted, site.read().term) == ("hv1", None, 1)
    assert len(site.journal) == 2


def test_secondary_without_another_coordinator_changes_nothing():
    site = Site(names=("hv1",), coordinators=("hv1",))
    site.ask("*")
    site.cluster.settle()
    assert (site.read().node, site.read().wanted, site.read().stage) == ("hv1", None, "active")


def test_asking_the_holder_to_be_primary_changes_nothing(site):
    site.ask("hv1")
    site.cluster.settle()
    assert (site.read().node, site.read().wanted, site.read().term) == ("hv1", None, 1)


def test_a_wanted_node_that_hangs_is_waited_for_only_as_long_as_a_lease(site):
    site.node("hv3").running = False
    site.ask("hv3")
    site.cluster.settle()
    assert site.read().node is None
    took = site.cluster.until(lambda: site.read().node is not None, 60)
    assert site.cluster.timing.lease <= took <= site.cluster.timing.lease + 2
    assert site.read().node in ("hv1", "hv2")


def test_a_wanted_node_still_gets_the_role_when_the_holder_dies_meanwhile(site):
    site.node("hv1").running = False
    site.ask("hv3")
    site.lose("hv1")
    site.cluster.settle()
    assert site.read().node == "hv3"


def test_stopping_vacates_the_role_at_once(site):
    site.node("hv1").parts.election.stop()
    site.node("hv1").running = False
    site.cluster.settle()
    assert site.read().node == "hv2"
    assert site.journal[2:4] == [("hv1", "relinquish", "dhcp"), ("hv1", "relinquish", "address")]


def test_a_service_that_cannot_be_acquired_is_told_retried_and_stops_no_other(site):
    site.services["hv2"]["address"].error = DriverError("address 10.0.0.100 answers already")
    site.ask("hv2")
    site.cluster.settle()
    assert site.read().stage == "active"
    assert site.journal[-1] == ("hv2", "acquire", "dhcp", 2)
    condition = next(c for c in site.node("hv2").parts.state.conditions if c.type == "RoleService/address")
    assert not condition.ok
    assert "answers already" in condition.message
    site.services["hv2"]["address"].error = None
    site.cluster.run(5)
    assert site.journal[-1] == ("hv2", "acquire", "address", 2)
    condition = next(c for c in site.node("hv2").parts.state.conditions if c.type == "RoleService/address")
    assert condition.ok


def test_a_service_that_cannot_be_relinquished_does_not_hold_the_role_back(site):
    site.services["hv1"]["dhcp"].error = DriverError("stuck")
    site.ask("hv2")
    site.cluster.settle()
    assert site.read().node == "hv2"
    assert ("hv1", "relinquish", "address") in site.journal
    site.cluster.run(5)
    condition = next(c for c in site.node("hv1").parts.state.conditions if c.type == "RoleService/dhcp")
    assert (condition.ok, condition.reason) == (False, "RelinquishFailed")
    site.services["hv1"]["dhcp"].error = None
    site.cluster.run(10)
    assert ("hv1", "relinquish", "dhcp") in site.journal
    assert [c for c in site.node("hv1").parts.state.conditions if c.type == "RoleService/dhcp"] == []


def test_what_a_daemon_that_was_killed_as_primary_left_running_ends_when_another_node_is_primary(site):
    site.lose("hv1")
    site.cluster.settle()
    assert site.read().node == "hv2"
    assert site.services["hv1"]["address"].running
    site.node("hv1").start()
    site.cluster.settle()
    assert site.journal[-2:] == [("hv1", "relinquish", "dhcp"), ("hv1", "relinquish", "address")]


def test_a_daemon_that_is_restarted_as_primary_does_not_interrupt_its_services(site):
    site.node("hv1").kill()
    site.node("hv1").start()
    site.cluster.settle()
    assert site.read().node == "hv1"
    assert [entry for entry in site.journal if entry[1] == "relinquish"] == []


def test_every_node_tells_its_plugins_who_is_primary(site):
    site.lose("hv1")
    site.cluster.settle()
    told = [arguments for event, arguments in site.node("hv3").drivers.events if event == "primary_changed"]
    assert told[-1] == {"node": "hv2", "term": 2}
    assert {"node": "hv1", "term": 1} in told


def test_duties_are_done_by_the_primary_only_and_a_deposed_ones_writes_fail(site):
    assert {name for name, _ in site.guards} == {"hv1"}
    _, guard = site.guards[-1]
    hv1 = site.node("hv1")
    hv1.store.commit(*guard)
    site.ask("hv2")
    site.cluster.settle()
    with pytest.raises(Conflict):
        hv1.store.commit(*guard)
    assert site.guards[-1][0] == "hv2"


# --- duties ---------------------------------------------------------------------------------------------


def put(site, *operations):
    site.cluster.operator.commit(*operations)
    site.cluster.settle()


def task(site, id_="t"):
    return documents.read(site.cluster.operator, keys.task(id_)).value


@pytest.mark.parametrize("state", [TaskState.QUEUED, TaskState.RUNNING])
def test_unfinished_tasks_of_a_lost_node_fail_after_the_grace_time(site, state):
    site.node("hv3").running = False
    put(site, create(keys.task("t"), Task(id="t", kind="x", node="hv3", state=state, lease=1)))
    site.lose("hv3")
    site.cluster.run(site.cluster.timing.grace - 1)
    assert task(site).state is state
    site.cluster.run(2)
    assert task(site).state is TaskState.FAILED
    assert "hv3" in task(site).error


def test_tasks_of_a_node_that_is_back_in_time_are_left_to_it(site):
    site.node("hv3").running = False
    put(site, create(keys.task("t"), Task(id="t", kind="x", node="hv3", state=TaskState.RUNNING, lease=1)))
    site.lose("hv3")
    site.cluster.run(site.cluster.timing.grace / 2)
    site.node("hv3").start()
    site.cluster.run(1)
    assert task(site).error == "the daemon ended while the task ran"


def test_finished_tasks_are_left_alone(site):
    put(site, create(keys.task("t"), Task(id="t", kind="x", node="hv3", state=TaskState.DONE)))
    site.lose("hv3")
    site.cluster.run(30)
    assert task(site).state is TaskState.DONE


def test_pools_and_volumes_of_a_lost_node_get_another_one(site, monkeypatch):
    monkeypatch.setattr(duties_module, "choose_volume_node", lambda _, driver: {"fake": "hv2"}[driver])
    put(
        site,
        create(keys.pool_spec("p1"), PoolSpec(id="p1", name="ssd", driver="fake", node="hv3")),
        create(keys.volume_spec("v1"), VolumeSpec(id="v1", name="a", pool="p1", size_bytes=1, node="hv3")),
        create(keys.volume_spec("v2"), VolumeSpec(id="v2", name="b", pool="p1", size_bytes=1, node="hv1")),
    )
    site.lose("hv3")
    site.cluster.run(site.cluster.timing.grace + 1)
    operator = site.cluster.operator
    pool, first, second = (
        documents.read(operator, key).value
        for key in (keys.pool_spec("p1"), keys.volume_spec("v1"), keys.volume_spec("v2"))
    )
    assert (pool.node, pool.generation) == ("hv2", 2)
    assert (first.node, first.generation) == ("hv2", 2)
    assert (second.node, second.generation) == ("hv1", 1)


def test_the_loss_of_a_node_is_told_once_and_an_orderly_stop_is_not(site):
    site.node("hv2").agent.lease.release()
    site.node("hv2").running = False
    site.lose("hv3")
    site.cluster.run(200)
    lost = [arguments for event, arguments in site.node("hv1").drivers.events if event == "node_lost"]
    assert lost == [{"node": "hv3"}]


def test_a_duty_that_fails_does_not_keep_the_others(caplog):
    cluster, done = SteppedCluster(), []

    def broken(guard):
        raise RuntimeError("boom")

    cluster.add("hv1", duties=(("broken", broken), ("fine", lambda guard: done.append(guard) or None)))
    cluster.settle()
    assert done
    assert "duty-defect duty=broken" in caplog.text


def test_nodes_join_by_themselves_with_the_role_of_the_configuration(site):
    spec = documents.read(site.cluster.operator, keys.node_spec("hv2")).value
    assert spec == NodeSpec(id="hv2", role="coordinator")
