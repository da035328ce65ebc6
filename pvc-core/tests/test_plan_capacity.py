"""n-1 memory."""

from hypothesis import given
from hypothesis import strategies as st

from pvc_core.model.placement import NodeView
from pvc_core.plan.capacity import capacity


def node(name, memory, *, alive=True):
    return NodeView(name=name, memory_mib=memory, alive=alive)


def test_largest_of_unequal_nodes_is_taken_away():
    result = capacity([node("a", 4096), node("b", 16384), node("c", 8192)], 12288)
    assert (result.total_mib, result.largest, result.available_mib) == (28672, "b", 12288)
    assert not result.degraded
    assert result.message == ""


def test_one_mib_more_is_degraded_with_numbers():
    result = capacity([node("a", 4096), node("b", 16384), node("c", 8192)], 12289)
    assert result.degraded
    assert result.message == (
        "running VMs may use 12.0 GiB, more than the 12 GiB that the others have when the largest node (b, 16 GiB) "
        "is lost: stop VMs or add memory"
    )


def test_node_that_is_down_counts_once_and_is_not_lost_twice():
    nodes = [node("a", 8192, alive=False), node("b", 8192), node("c", 8192)]
    result = capacity(nodes, 16384)
    assert (result.total_mib, result.alive_mib, result.available_mib) == (24576, 16384, 16384)
    assert not result.degraded


def test_more_down_than_the_largest_node_has_counts_what_is_alive():
    nodes = [node("a", 8192, alive=False), node("b", 8192, alive=False), node("c", 8192)]
    assert capacity(nodes, 8192).available_mib == 8192
    assert capacity(nodes, 8193).degraded


def test_single_node_has_nothing_to_fall_back_on():
    assert not capacity([node("a", 8192)], 8192).degraded
    over = capacity([node("a", 8192)], 9216)
    assert over.degraded
    assert "more than the 8 GiB that the cluster has" in over.message


def test_no_nodes():
    assert not capacity([], 0).degraded
    assert capacity([], 1).degraded


@given(
    st.lists(st.tuples(st.integers(0, 1 << 20), st.booleans()), max_size=12),
    st.integers(0, 1 << 24),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter_and_the_loss_of_any_one_node_is_survived(sizes, running, shuffler):
    nodes = [node(f"n{i}", memory, alive=alive) for i, (memory, alive) in enumerate(sizes)]
    result = capacity(nodes, running)
    shuffler.shuffle(nodes)
    assert capacity(nodes, running) == result
    assert result.available_mib <= result.total_mib
    if not result.degraded and len(nodes) > 1 and all(view.alive for view in nodes):
        for lost in nodes:
            assert running <= result.total_mib - lost.memory_mib
