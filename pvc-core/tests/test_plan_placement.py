"""Choosing a node."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc_core.model.errors import NoNodeFits
from pvc_core.model.placement import NodeView
from pvc_core.model.vm import SELECTORS, VmSpec
from pvc_core.plan.placement import CORE_POLICY, CORE_SELECTORS, Policy, obstacle, place, require_node, with_vm


def node(name, **changes):
    defaults = {"cpus": 8, "memory_mib": 8192, "free_mib": 8192, "accelerators": ("tcg",)}
    return NodeView(name=name, **(defaults | changes))


def vm(name="web", **changes):
    return VmSpec(id=f"id-{name}", name=name, **({"memory_mib": 1024, "vcpus": 1} | changes))


@pytest.mark.parametrize(
    ("selector", "worse", "better"),
    [
        ("mem", {"allocated_mib": 4096}, {"allocated_mib": 1024, "provisioned_mib": 8000}),
        ("memprov", {"provisioned_mib": 4096}, {"provisioned_mib": 1024, "allocated_mib": 1000}),
        ("vcpus", {"allocated_vcpus": 9}, {"allocated_vcpus": 3}),
        ("load", {"load1": 2.5}, {"load1": 0.5}),
        ("vms", {"vms": 7}, {"vms": 6}),
    ],
)
def test_selector_prefers(selector, worse, better):
    decision = place(vm(selector=selector), [node("a", **worse), node("b", **better)])
    assert (decision.node, decision.selector, decision.reasons) == ("b", selector, {})


def test_every_core_selector_of_the_model_exists():
    assert tuple(CORE_SELECTORS) == SELECTORS


def test_default_selector_is_used_when_the_vm_names_none():
    views = [node("a", vms=0, allocated_mib=4000), node("b", vms=3)]
    assert place(vm(), views, Policy(default_selector="vms")).node == "a"
    assert place(vm(), views).node == "b"


def test_equal_scores_go_to_the_first_by_name():
    assert place(vm(), [node("c"), node("b"), node("d")]).node == "b"


@pytest.mark.parametrize(
    ("view", "request_", "reason"),
    [
        ({"alive": False, "not_ready_reason": "its lease is gone"}, {}, "its lease is gone"),
        ({"ready": False, "not_ready_reason": "it is flushed"}, {}, "it is flushed"),
        ({}, {"node_limit": ("hv8", "hv9")}, "it is not in the VM's node limit (hv8, hv9)"),
        ({}, {"accelerator": "kvm"}, "it cannot run guests with kvm"),
        ({"cpus": 2}, {"vcpus": 3}, "3 vCPUs wanted, it has 2 CPUs"),
        ({"allocated_mib": 7680}, {}, "1 GiB wanted, 512 MiB of 8 GiB left"),
        ({}, {"memory_mib": 9216}, "9 GiB wanted, it has 8 GiB for VMs in all"),
    ],
)
def test_filter_says_why(view, request_, reason):
    decision = place(vm(**request_), [node("hv1", **view)])
    assert decision.node is None
    assert decision.reasons == {"hv1": reason}


def test_memory_is_counted_by_allocation_not_by_what_is_free_now():
    assert place(vm(), [node("a", free_mib=0, allocated_mib=0)]).node == "a"
    assert place(vm(), [node("a", free_mib=8192, allocated_mib=8192)]).node is None


def test_exactly_full_is_full_enough():
    assert place(vm(), [node("a", allocated_mib=7168)]).node == "a"
    assert place(vm(), [node("a", allocated_mib=7169)]).node is None


def test_missing_capability_names_the_driver():
    needs = frozenset({"storage:ceph-rbd", "network:vxlan"})
    have = node("hv1", capabilities=frozenset({"storage:dir", "network:vxlan"}))
    assert place(vm(), [have], CORE_POLICY, needs).reasons == {"hv1": "it has no working storage driver ceph-rbd"}
    assert place(vm(), [node("hv2", capabilities=needs), have], CORE_POLICY, needs).node == "hv2"


def test_error_names_the_reason_of_every_node():
    decision = place(vm(), [node("b", cpus=0), node("a", ready=False, not_ready_reason="it is flushed")])
    with pytest.raises(NoNodeFits) as caught:
        require_node(decision)
    assert str(caught.value) == "no node can take VM 'web': a: it is flushed; b: 1 vCPUs wanted, it has 0 CPUs"
    assert caught.value.reasons == {"a": "it is flushed", "b": "1 vCPUs wanted, it has 0 CPUs"}


def test_error_without_any_node():
    with pytest.raises(NoNodeFits, match="the cluster has no nodes"):
        require_node(place(vm(), []))


def test_excluded_node_keeps_its_reason():
    decision = place(vm(), [node("a"), node("b")], exclude={"a": "it is there now"})
    assert decision.node == "b"
    assert decision.reasons == {"a": "it is there now"}


def test_unknown_selector_falls_back_to_mem_and_says_so():
    decision = place(vm(selector="menprov"), [node("a", allocated_mib=10), node("b")])
    assert (decision.node, decision.selector) == ("b", "mem")
    assert decision.note == "there is no selector 'menprov'; did you mean 'memprov'?; mem was used"


def test_plugin_selector_is_used():
    policy = Policy(selectors={"last": lambda _, view: float(ord(view.name))})
    assert place(vm(selector="last"), [node("a"), node("b")], policy).node == "b"


def test_plugin_cannot_replace_a_core_selector():
    policy = Policy(selectors={"mem": lambda _, view: -float(view.memory_mib)})
    assert place(vm(), [node("a", memory_mib=4096), node("b")], policy).node == "b"


def broken(*_):
    raise RuntimeError("boom")


def test_failing_plugin_selector_falls_back_to_mem():
    decision = place(vm(selector="x"), [node("a", allocated_mib=1), node("b")], Policy(selectors={"x": broken}))
    assert (decision.node, decision.selector) == ("b", "mem")
    assert "selector 'x' failed (RuntimeError: boom)" in decision.note


def test_plugin_filter_gives_its_reason_and_a_failing_one_counts_as_reason():
    policy = Policy(filters=(lambda _, view: "too warm" if view.name == "a" else None,))
    assert place(vm(), [node("a"), node("b")], policy).reasons == {"a": "too warm"}
    assert obstacle(vm(), node("a"), Policy(filters=(broken,))) == "a filter failed: RuntimeError: boom"


def test_weight_of_one_outdoes_any_score():
    views = [node("a", allocated_mib=0), node("b", allocated_mib=7000)]
    assert place(vm(), views).node == "a"
    assert place(vm(), views, Policy(weighers=(lambda _, view: 1.0 if view.name == "b" else None,))).node == "a"
    assert place(vm(), views, Policy(weighers=(lambda _, view: 1.0 if view.name == "b" else -0.1,))).node == "b"


def test_failing_or_exaggerating_weigher_does_not_decide():
    views = [node("a"), node("b", allocated_mib=10)]
    loud = Policy(weighers=(lambda _, view: 99.0 if view.name == "b" else 0.5, broken))
    assert place(vm(), views, loud).node == "a"


def test_assigned_vm_is_counted_before_the_next_choice():
    views = {name: node(name) for name in "abc"}
    chosen = []
    for i in range(6):
        one = vm(f"v{i}")
        target = require_node(place(one, views.values()))
        views[target] = with_vm(views[target], one)
        chosen.append(target)
    assert sorted(chosen) == list("aabbcc")


# --- properties -------------------------------------------------------------------------------------

DRIVERS = ("storage:dir", "storage:ceph-rbd", "network:bridge", "network:vxlan")

node_views = st.builds(
    NodeView,
    name=st.sampled_from([f"hv{i}" for i in range(12)]),
    alive=st.booleans(),
    ready=st.booleans(),
    cpus=st.integers(0, 16),
    memory_mib=st.integers(0, 16384),
    allocated_mib=st.integers(0, 16384),
    provisioned_mib=st.integers(0, 32768),
    allocated_vcpus=st.integers(0, 64),
    vms=st.integers(0, 40),
    load1=st.floats(0, 100, allow_nan=False),
    capabilities=st.frozensets(st.sampled_from(DRIVERS)),
    accelerators=st.lists(st.sampled_from(["kvm", "tcg"]), unique=True).map(tuple),
)
clusters = st.lists(node_views, max_size=8, unique_by=lambda view: view.name)
specs = st.builds(
    VmSpec,
    id=st.just("id"),
    name=st.just("web"),
    memory_mib=st.integers(1, 16384),
    vcpus=st.integers(1, 16),
    selector=st.sampled_from(["", "nonsense", *SELECTORS]),
    node_limit=st.lists(st.sampled_from([f"hv{i}" for i in range(12)]), max_size=4).map(tuple),
    accelerator=st.sampled_from(["auto", "kvm", "tcg"]),
)
needs = st.frozensets(st.sampled_from(DRIVERS), max_size=2)


@given(specs, clusters, needs)
def test_chosen_node_passes_every_filter_and_every_other_node_has_a_reason_or_a_score(spec, views, capabilities):
    decision = place(spec, views, CORE_POLICY, capabilities)
    assert set(decision.reasons) | set(decision.scores) == {view.name for view in views}
    assert not set(decision.reasons) & set(decision.scores)
    for view in views:
        assert (obstacle(spec, view, CORE_POLICY, capabilities) is None) == (view.name in decision.scores)
    if decision.node is None:
        assert not decision.scores
        return
    chosen = next(view for view in views if view.name == decision.node)
    assert chosen.alive
    assert chosen.ready
    assert chosen.allocated_mib + spec.memory_mib <= chosen.memory_mib
    assert spec.vcpus <= chosen.cpus
    assert capabilities <= chosen.capabilities
    assert not spec.node_limit or chosen.name in spec.node_limit
    assert decision.scores[decision.node] == max(decision.scores.values())


@given(specs, clusters, needs, st.randoms(use_true_random=False))
def test_decision_does_not_depend_on_the_order_of_the_nodes(spec, views, capabilities, shuffler: random.Random):
    shuffled = list(views)
    shuffler.shuffle(shuffled)
    weighed = Policy(weighers=(lambda _, view: (view.vms % 3 - 1) / 2,))
    for policy in (CORE_POLICY, weighed):
        assert place(spec, views, policy, capabilities) == place(spec, shuffled, policy, capabilities)


@given(specs, clusters, needs)
def test_excluded_node_is_never_chosen(spec, views, capabilities):
    first = place(spec, views, CORE_POLICY, capabilities)
    if first.node is not None:
        again = place(spec, views, CORE_POLICY, capabilities, exclude={first.node: "no"})
        assert again.node != first.node
        assert again.reasons[first.node] == "no"
