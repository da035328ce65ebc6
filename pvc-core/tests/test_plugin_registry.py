"""Loaded plugins: order, isolation, collect and event hooks, counters, traces, closing."""

import logging
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pvc_core.model.network import NetworkSpec
from pvc_core.model.placement import NodeView
from pvc_core.model.storage import PoolSpec
from pvc_core.model.task import Task
from pvc_core.model.vm import VmSpec
from pvc_core.plugin import DriverError, FenceTarget, NodeInfo, NotReady, PowerState
from pvc_core.plugin.errors import CircuitOpen, DeadlineExceeded
from pvc_core.plugin.specs.storage import Cancelled, VolumeRef
from pvc_core.runtime.binding import BINDINGS
from pvc_core.runtime.hooks import DRIVER_SPECS, hook_names, within
from pvc_core.runtime.registry import Registry
from pvc_core.runtime.start import load_plugins
from pvc_core.testkit.distributions import Site, node_config
from pvc_core.testkit.waiting import eventually

NETWORK = NetworkSpec(id="1", name="lan", driver="any", parameters={"key": "hunter2"})
VM = VmSpec(id="1", name="web", memory_mib=512, vcpus=1)
NODE = NodeInfo(name="node1", role="coordinator")


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


@pytest.fixture
def load() -> Iterator:
    made = []

    def load(*names: str, **sections) -> Registry:
        config = node_config({**dict.fromkeys(names), **sections})
        made.append(load_plugins(config, NODE, lambda *_: None, preflight_every_s=None))
        return made[-1]

    yield load
    for registry in made:
        registry.close()


def hooks_plugin(site: Site, name: str, body: str, **options) -> None:
    """Install a plugin with collect and event hooks only."""
    site.plugin(name, body, kind="hooks", base="from pvc_core.plugin import *\nimport threading", **options)


TELLER = """
    class Driver:
        told = []
        def __init__(self, context, config):
            self.context = context

        @hookimpl
        def vm_started(self, vm, node):
            self.told.append((vm, node, threading.current_thread().name))
            {then}

        @hookimpl
        def resource_kinds(self):
            {answer}
"""


def told(name: str) -> list:
    return sys.modules[f"plug_{name}.driver"].Driver.told


def test_every_binding_forwards_every_hook_of_its_specification():
    for kind, spec in DRIVER_SPECS.items():
        for name in hook_names(spec):
            assert vars(BINDINGS[kind])[name].__doc__ == getattr(spec, name).__doc__
        assert not BINDINGS[kind].__abstractmethods__


def test_only_what_is_enabled_is_imported(site, load):
    site.plugin("a")
    site.plugin("b")
    load("a")
    assert "plug_a.driver" in sys.modules
    assert "plug_b.manifest" not in sys.modules


def test_a_driver_gets_its_context_and_its_section(site, load):
    site.plugin("a")
    site.module(
        "plug_a.manifest",
        """
        import msgspec
        from pvc_core.plugin import *
        class Config(msgspec.Struct, frozen=True):
            device: str
        MANIFEST = Manifest(name="a", summary="", api=HOOK_API, network=("a",), config="plug_a.manifest:Config")
        """,
    )
    binding = load(a={"device": "eth0"}).network("a")
    driver = binding.unit.instance
    assert driver.config.device == "eth0"
    assert driver.context.config is driver.config
    assert driver.context.node == NODE
    assert driver.context.log.name == "pvc.plugin.a"


def test_two_drivers_of_a_kind_answer_each_for_itself(site, load):
    for name in ("a", "b"):
        site.plugin(
            name,
            f"""
            class Driver(Driver):
                def network_list(self):
                    return ["{name}"]
            """,
        )
    registry = load("a", "b")
    assert registry.network("a").network_list() == ["a"]
    assert registry.network("b").network_list() == ["b"]
    assert registry.network_drivers() == ["a", "b"]


def test_positional_and_missing_arguments_are_those_of_the_specification(site, load):
    site.plugin("a")
    driver = load("a").network("a")
    assert driver.network_ensure(network=NETWORK) == driver.network_ensure(NETWORK)
    with pytest.raises(TypeError, match="network"):
        driver.network_ensure()


def test_collect_asks_in_the_order_of_the_configuration(site, load):
    for name in ("a", "b", "c"):
        hooks_plugin(site, name, TELLER.format(then="pass", answer=f"return ['{name}']"))
    assert load("b", "c", "a").collect("resource_kinds") == [["b"], ["c"], ["a"]]


def test_collect_leaves_out_those_that_fail_or_have_nothing_to_say(site, load, caplog):
    hooks_plugin(site, "a", TELLER.format(then="pass", answer="return ['a']"))
    hooks_plugin(site, "bad", TELLER.format(then="pass", answer="raise ValueError('boo')"))
    hooks_plugin(site, "wrong", TELLER.format(then="pass", answer="return 'text'"))
    hooks_plugin(site, "none", TELLER.format(then="pass", answer="return None"))
    registry = load("bad", "wrong", "none", "a")
    assert registry.collect("resource_kinds") == [["a"]]
    assert registry.collect("resource_kinds") == [["a"]]
    complaints = [r.message for r in caplog.records if r.message.startswith("hook-failed")]
    assert len(complaints) == 2, "the same complaint is logged once"
    assert {s.name: s.failures for s in registry.status()} == {"bad": 2, "wrong": 2, "none": 0, "a": 0}


def test_collect_waits_for_all_at_once(site, load):
    for name in ("a", "b"):
        hooks_plugin(
            site,
            name,
            TELLER.format(then="pass", answer="threading.Event().wait(30)"),
        )
    begun = time.monotonic()
    with within(0.3):
        assert load("a", "b").collect("resource_kinds") == []
    assert time.monotonic() - begun < 10


def test_a_filter_that_fails_counts_as_a_reason(site, load):
    hooks_plugin(
        site,
        "picky",
        """
        class Driver:
            def __init__(self, context, config): pass
            @hookimpl
            def node_filter(self, vm, node):
                if node.name == "bad":
                    raise ValueError("boo")
                return "it is Friday" if node.name == "friday" else None
            @hookimpl
            def node_weight(self, node):
                return 1 / (node.cpus - 1)
        """,
    )
    registry = load("picky")
    ask = lambda name: registry.collect("node_filter", vm=VM, node=NodeView(name=name))  # noqa: E731
    assert ask("good") == []
    assert ask("friday") == ["it is Friday"]
    assert "plugin 'picky' failed to judge it" in ask("bad")[0]
    assert registry.collect("node_weight", vm=VM, node=NodeView(name="x", cpus=3)) == [0.5]
    assert registry.collect("node_weight", vm=VM, node=NodeView(name="x", cpus=1)) == []


def test_a_resource_that_cannot_be_reconciled_is_an_error_after_all_were_asked(site, load):
    hooks_plugin(
        site,
        "bad",
        """
        class Driver:
            def __init__(self, context, config): pass
            @hookimpl
            def resource_reconcile(self, kind, id, spec):
                raise NotReady("the array does not answer")
        """,
    )
    hooks_plugin(
        site,
        "good",
        """
        class Driver:
            told = []
            def __init__(self, context, config): pass
            @hookimpl
            def resource_reconcile(self, kind, id, spec):
                self.told.append(id)
                return {"state": "ready"}
        """,
    )
    registry = load("bad", "good")
    with pytest.raises(NotReady, match=r"^bad\.resource_reconcile: the array does not answer$"):
        registry.collect("resource_reconcile", kind="osd", id="1", spec=None)
    assert told("good") == ["1"]
    assert load("good").collect("resource_reconcile", kind="osd", id="1", spec=None) == [{"state": "ready"}]


def test_events_reach_every_plugin_in_order_though_one_fails_and_one_hangs(site, load):
    hooks_plugin(site, "bad", TELLER.format(then="raise SystemExit(1)", answer="return []"))
    hooks_plugin(site, "stuck", TELLER.format(then="threading.Event().wait(30)", answer="return []"))
    hooks_plugin(site, "good", TELLER.format(then="pass", answer="return []"))
    registry = load("bad", "stuck", "good")
    for unit in registry._listeners["vm_started"]:
        unit.begin = _impatient(unit)
    begun = time.monotonic()
    for number in range(4):
        registry.notify("vm_started", vm=f"vm{number}", node="node1")
    assert time.monotonic() - begun < 1, "telling does not wait"
    eventually(lambda: len(told("good")) == 4, "all four are told")
    assert [event[0] for event in told("good")] == ["vm0", "vm1", "vm2", "vm3"]
    assert len(told("bad")) == 4
    assert len(told("stuck")) == 2, "after two calls that hang it gets no more"
    assert registry.collect("resource_kinds") == [[], []]
    states = {s.name: s.state for s in registry.status()}
    assert states == {"bad": "healthy", "stuck": "open", "good": "healthy"}


def _impatient(unit):
    begin = unit.begin

    def begin_impatiently(hook, arguments):
        with within(0.1 if hook.name == "vm_started" else 10):
            return begin(hook, arguments)

    return begin_impatiently


def test_a_driver_that_hangs_when_told_of_events_still_does_its_work(site, load):
    site.plugin(
        "a",
        """
        import threading
        from pvc_core.plugin import hookimpl

        class Driver(Driver):
            @hookimpl
            def metrics(self):
                threading.Event().wait(30)
        """,
    )
    registry = load("a")
    for _ in range(2):
        with within(0.05):
            assert registry.collect("metrics") == []
    found = registry.status()[0]
    assert (found.state, found.stage, found.capabilities) == ("degraded", "call", ("network:a",))
    assert registry.network("a").network_remove(NETWORK)


def test_events_that_wait_are_told_before_closing(site, load):
    hooks_plugin(site, "a", TELLER.format(then="pass", answer="return []"))
    registry = load("a")
    for number in range(20):
        registry.notify("vm_started", vm=str(number), node="node1")
    registry.close()
    assert [event[0] for event in told("a")] == [str(number) for number in range(20)]
    registry.notify("vm_started", vm="after", node="node1")


def test_a_name_that_is_no_such_hook_is_a_mistake_of_core(site, load):
    registry = load()
    with pytest.raises(ValueError, match="no event hook"):
        registry.notify("vm_begun", vm="x")
    with pytest.raises(ValueError, match="no collect hook"):
        registry.collect("vm_started", vm="x")


def test_hooks_may_be_a_module_without_a_class(site, load):
    site.module(
        "plug_m.manifest",
        "from pvc_core.plugin import *\nMANIFEST = Manifest(name='m', summary='', api=HOOK_API, hooks=('m',))",
    )
    site.module(
        "plug_m.driver", "from pvc_core.plugin import hookimpl\n@hookimpl\ndef resource_kinds():\n    return ['osd']\n"
    )
    site.distribution("pvc-m", {"pvc.plugin": {"m": "plug_m.manifest:MANIFEST"}, "pvc.hooks": {"m": "plug_m.driver"}})
    assert load("m").collect("resource_kinds") == [["osd"]]


def test_role_services_and_tasks_are_supervised(site, load):
    hooks_plugin(
        site,
        "a",
        """
        class Address(RoleService):
            name = "address"
            order = 5
            def acquire(self, term):
                self.term = term
                if term == 3:
                    raise OSError("no such device")
            def relinquish(self):
                raise NotReady("it is gone")

        def job(task, progress):
            if progress(0.5):
                raise Cancelled
            raise KeyError("x")

        class Driver:
            def __init__(self, context, config): pass
            @hookimpl
            def role_services(self): return [Address()]
            @hookimpl
            def task_runners(self): return {"a.job": job}
            @hookimpl
            def queries(self): return {"a.size": lambda arguments: 3 * arguments["disks"]}
        """,
    )
    registry = load("a")
    [[service]] = registry.collect("role_services")
    assert (service.name, service.order) == ("address", 5)
    service.acquire(2)
    with pytest.raises(DriverError, match=r"^a.role_service\(address\).acquire: unexpected OSError: no such device"):
        service.acquire(3)
    with pytest.raises(NotReady, match=r"^a.role_service\(address\).relinquish: it is gone"):
        service.relinquish()
    [queries] = registry.collect("queries")
    assert queries["a.size"]({"disks": 2}) == 6
    with pytest.raises(DriverError, match=r"^a.a.size: unexpected KeyError: 'disks'"):
        queries["a.size"]({})
    [runners] = registry.collect("task_runners")
    task = Task(id="1", kind="a.job", node="node1")
    with pytest.raises(DriverError, match=r"^a.task a.job: unexpected KeyError"):
        runners["a.job"](task, lambda done: False)
    with pytest.raises(Cancelled):
        runners["a.job"](task, lambda done: True)


FENCE = """
    class Driver(FenceDriver):
        release = threading.Event()
        def __init__(self, context, config): pass
        def fence_preflight(self): return True
        def power_status(self, target):
            if target.parameters.get("address") == "dead":
                self.release.wait(60)
            return PowerState.ON
        def power_off(self, target): return "off"
        def power_on(self, target): return PowerState.ON
"""


def test_power_controllers_that_hang_do_not_keep_others_from_being_used(site, load):
    site.plugin("bmc", FENCE, kind="fencing", base="from pvc_core.plugin import *\nimport threading")
    registry = load("bmc")
    driver = registry.fencing("bmc")
    dead = FenceTarget(node="n1", parameters={"address": "dead"})
    for _ in range(2):
        with within(0.05), pytest.raises(DeadlineExceeded):
            driver.power_status(dead)
    with pytest.raises(CircuitOpen):
        driver.power_status(dead)
    assert driver.power_status(FenceTarget(node="n2")) is PowerState.ON
    found = registry.status()[0]
    assert (found.state, found.capabilities) == ("degraded", ("fencing:bmc",))
    sys.modules["plug_bmc.driver"].Driver.release.set()


def test_power_state_as_text_is_no_power_state(site, load):
    site.plugin("bmc", FENCE, kind="fencing", base="from pvc_core.plugin import *\nimport threading")
    with pytest.raises(DriverError, match="type str instead of PowerState"):
        load("bmc").fencing("bmc").power_off(FenceTarget(node="n1"))


def test_selectors_need_no_preflight(site, load):
    site.plugin(
        "fewest",
        """
        class Driver(SelectorDriver):
            def __init__(self, context, config): pass
            def selector_score(self, vm, node): return -node.vms
        """,
        kind="scheduling",
        base="from pvc_core.plugin import *",
    )
    registry = load("fewest")
    assert registry.selector("fewest").selector_score(VM, NodeView(name="n", vms=3)) == -3
    assert registry.status()[0].capabilities == ("scheduling:fewest",)


def test_calls_and_failures_are_counted(site, load):
    site.plugin("a", "class Driver(Driver):\n    def network_list(self):\n        raise ValueError\n")
    registry = load("a")
    driver = registry.network("a")
    before = registry.status()[0]
    for _ in range(3):
        driver.network_remove(NETWORK)
    after = registry.status()[0]
    assert (after.calls - before.calls, after.failures) == (3, 0)
    with pytest.raises(DriverError):
        driver.network_list()
    after = registry.status()[0]
    assert (after.calls - before.calls, after.failures) == (4, 1)


def test_capabilities_are_asked_once(site, load):
    site.plugin("a")
    registry = load("a")
    before = registry.status()[0]
    for _ in range(3):
        registry.network("a").network_capabilities()
    assert registry.status()[0].calls == before.calls == 2, "the preflight, and the capabilities"


def test_traces_are_off_at_first_and_show_no_secret(site, load, caplog):
    site.plugin("a")
    caplog.set_level(logging.INFO, "pvc.trace")
    registry = load("a")
    registry.network("a").network_ensure(NETWORK)
    assert not [r for r in caplog.records if r.name == "pvc.trace"]
    registry.trace(True)
    registry.network("a").network_ensure(NETWORK)
    traced = [r.message for r in caplog.records if r.name == "pvc.trace"]
    assert len(traced) == 2
    assert "hook=network_ensure network=NetworkSpec(id='1', name='lan'" in traced[0]
    assert "hunter2" not in "".join(traced)
    assert "result=NetworkState(device='br-lan', mtu=1500, problems=[])" in traced[1]


def test_traces_can_be_switched_on_by_the_environment(site, load, caplog, monkeypatch):
    monkeypatch.setenv("PVC_TRACE_HOOKS", "1")
    caplog.set_level(logging.INFO, "pvc.trace")
    site.plugin("a")
    load("a")
    assert any("hook=network_preflight" in r.message for r in caplog.records if r.name == "pvc.trace")


def test_a_call_that_was_stopped_while_it_waited_for_a_thread_is_not_made(site, load):
    site.plugin(
        "disks",
        """
        class Driver(FakeStorage):
            rolled_back = []
            def __init__(self, context, config):
                super().__init__(FakeBackend(), context.node.name)
            def snapshot_rollback(self, volume, snapshot, progress):
                self.rolled_back.append(snapshot)
                return True
        """,
        kind="storage",
        base="from pvc_core.testkit.fake_storage import FakeBackend, FakeStorage",
    )
    driver = load("disks").storage("disks")
    volume = VolumeRef(pool=PoolSpec(id="1", name="ssd", driver="disks"), name="v")
    with pytest.raises(Cancelled, match="stopped before it began"):
        driver.snapshot_rollback(volume, "s1", lambda _: True)
    assert driver.snapshot_rollback(volume, "s2", lambda _: False)
    assert sys.modules["plug_disks.driver"].Driver.rolled_back == ["s2"]


def test_long_calls_do_not_delay_short_ones(site, load):
    site.plugin(
        "disks",
        """
        class Driver(FakeStorage):
            release = threading.Event()
            def __init__(self, context, config):
                super().__init__(FakeBackend(), context.node.name)
            def volume_delete(self, volume):
                return self.release.wait(60)
        """,
        kind="storage",
        base="import threading\nfrom pvc_core.testkit.fake_storage import FakeBackend, FakeStorage",
    )
    driver = load("disks").storage("disks")
    pool = PoolSpec(id="1", name="ssd", driver="disks")
    done = []
    deletes = [
        threading.Thread(target=lambda: done.append(driver.volume_delete(VolumeRef(pool=pool, name="v"))))
        for _ in range(6)
    ]
    for thread in deletes:
        thread.start()
    assert driver.pool_ensure(pool)
    assert not done
    sys.modules["plug_disks.driver"].Driver.release.set()
    for thread in deletes:
        thread.join(20)
    assert done == [True] * 6
