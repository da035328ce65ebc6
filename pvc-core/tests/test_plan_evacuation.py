"""Planning where many VMs go at once."""

import random

from hypothesis import given
from hypothesis import strategies as st

from pvc_core.model.placement import NodeView
from pvc_core.model.vm import VmSpec
from pvc_core.plan.evacuation import Candidate, plan_evacuation
from pvc_core.plan.placement import Policy


def node(name, memory=8192, **changes):
    return NodeView(name=name, **({"cpus": 8, "memory_mib": memory} | changes))


def candidate(name, memory=1024, **changes):
    return Candidate(
        vm=VmSpec(id=f"id-{name}", name=name, memory_mib=memory, vcpus=1, **changes), exclude={"a": "it is flushed"}
    )


def test_vms_are_spread_because_each_choice_counts_before_the_next():
    plan = plan_evacuation([candidate(f"v{i}") for i in range(8)], [node("a"), node("b"), node("c")])
    targets = [item.target for item in plan.assignments]
    assert sorted(targets) == ["b"] * 4 + ["c"] * 4
    assert not plan.unplaced


def test_largest_goes_first():
    plan = plan_evacuation(
        [candidate("small", 1024), candidate("large", 6000), candidate("middle", 3000)], [node("b"), node("c", 4096)]
    )
    assert [item.name for item in plan.assignments] == ["large", "middle", "small"]
    assert not plan.unplaced


def test_higher_priority_goes_before_larger():
    vms = [candidate("large", 6000), candidate("low", 100, priority=-1), candidate("first", 3000, priority=5)]
    plan = plan_evacuation(vms, [node("b", 6000)])
    assert [item.name for item in plan.assignments] == ["first", "low"]
    assert [item.name for item in plan.unplaced] == ["large"]


def test_packing_never_costs_a_vm_of_higher_priority_its_place():
    # The two with a single choice would fill both nodes, and leave less memory over.
    vms = [
        candidate("first", 3000, priority=1),
        candidate("only-b", 3500, node_limit=("b",)),
        candidate("only-c", 3500, node_limit=("c",)),
    ]
    plan = plan_evacuation(vms, [node("b", 4000), node("c", 4000)])
    assert plan.assignments[0].name == "first"
    assert len(plan.unplaced) == 1


def test_nothing_returns_to_the_node_that_is_left():
    plan = plan_evacuation([candidate("web")], [node("a", 99999), node("b", 512)])
    assert not plan.assignments
    assert plan.unplaced[0].reasons == {
        "a": "it is flushed",
        "b": "1 GiB wanted, it has 512 MiB for VMs in all",
    }


def test_vms_over_capacity_are_left_over_with_reasons_after_the_others_were_counted():
    plan = plan_evacuation([candidate("one", 5000), candidate("two", 5000)], [node("b", 8000)])
    assert [item.name for item in plan.assignments] == ["one"]
    assert [(item.name, item.reasons) for item in plan.unplaced] == [
        ("two", {"b": "4.9 GiB wanted, 2.9 GiB of 7.8 GiB left"})
    ]


def test_packs_tightly_when_the_selectors_would_leave_vms_over():
    # By free memory the two of 3000 go to different nodes, and then the one limited to c has no room.
    vms = [candidate("x", 3000), candidate("y", 3000), candidate("z", 2500, node_limit=("c",))]
    plan = plan_evacuation(vms, [node("b", 6000), node("c", 5000)])
    assert plan.repacked
    assert {item.name: item.target for item in plan.assignments} == {"x": "b", "y": "b", "z": "c"}


def test_weighers_do_not_hinder_packing():
    vms = [candidate("x", 3000), candidate("y", 3000), candidate("z", 2500, node_limit=("c",))]
    plan = plan_evacuation(vms, [node("b", 6100), node("c", 5600)], Policy(weighers=(lambda *_: 1.0,)))
    assert not plan.unplaced


def test_nothing_to_do_is_an_empty_plan():
    assert plan_evacuation([], [node("b")]).assignments == ()


memory = st.integers(1, 4096)
nodes = st.lists(
    st.builds(
        node,
        st.sampled_from(list("abcdef")),
        st.integers(0, 16384),
        allocated_mib=st.integers(0, 8192),
        alive=st.booleans(),
        ready=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda view: view.name,
)
vms = st.lists(
    st.builds(
        candidate,
        st.integers(0, 50).map(lambda i: f"v{i}"),
        memory,
        priority=st.integers(-1, 1),
        selector=st.sampled_from(["", "mem", "vms", "memprov"]),
    ),
    max_size=15,
    unique_by=lambda c: c.vm.name,
)


@given(vms, nodes)
def test_never_assigns_beyond_memory_nor_to_a_node_that_takes_none(candidates, views):
    plan = plan_evacuation(candidates, views)
    by_name = {view.name: view for view in views}
    size = {c.vm.id: c.vm.memory_mib for c in candidates}
    used = {view.name: view.allocated_mib for view in views}
    for item in plan.assignments:
        assert item.target != "a"
        assert by_name[item.target].alive
        assert by_name[item.target].ready
        used[item.target] += size[item.vm]
        assert used[item.target] <= by_name[item.target].memory_mib
    assert sorted([i.vm for i in plan.assignments] + [i.vm for i in plan.unplaced]) == sorted(size)
    for item in plan.unplaced:
        assert set(item.reasons) == set(by_name)
        assert all(item.reasons.values())


@given(vms, nodes, st.randoms(use_true_random=False))
def test_plan_does_not_depend_on_any_order(candidates, views, shuffler: random.Random):
    plan = plan_evacuation(candidates, views)
    other_vms, other_views = list(candidates), list(views)
    shuffler.shuffle(other_vms)
    shuffler.shuffle(other_views)
    assert plan_evacuation(other_vms, other_views) == plan
    assert plan_evacuation(candidates, views) == plan
