"""How much fits on uneven hosts: against brute force, and against what CRUSH draws."""

from functools import cache
from itertools import combinations, permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pvc_ceph.sizing import MOST_COPIES, ideal_bytes, shares, uneven, usable_bytes
from pvc_core.model.errors import InvalidRequest

TIB = 1 << 40
HOSTS = st.lists(st.integers(0, 9), min_size=1, max_size=5).map(lambda sizes: {f"h{i}": s for i, s in enumerate(sizes)})
COPIES = st.integers(1, 4)


@cache
def most(left, copies):
    """Return how many whole objects find room, by trying all placements; ``left``: free places of each host, sorted."""
    return max(
        (
            1 + most(tuple(sorted(free - (index in chosen) for index, free in enumerate(left))), copies)
            for chosen in combinations(range(len(left)), copies)
            if all(left[index] for index in chosen)
        ),
        default=0,
    )


def drawn(hosts, copies):
    """Return the probability of each host to be drawn, over all orders in which hosts can be."""
    total = dict.fromkeys(hosts, 0.0)
    for order in permutations([name for name, size in hosts.items() if size], copies):
        left, chance = sum(hosts.values()), 1.0
        for name in order:
            chance *= hosts[name] / left
            left -= hosts[name]
        for name in order:
            total[name] += chance
    return total


@settings(deadline=None)  # some have many placements
@given(st.lists(st.integers(0, 6), max_size=5), COPIES)
def test_the_ideal_is_what_the_best_of_all_placements_keeps(sizes, copies):
    hosts = {f"h{index}": size for index, size in enumerate(sizes)}
    assert ideal_bytes(hosts, copies) == most(tuple(sorted(sizes)), copies)


@given(HOSTS, COPIES)
def test_shares_are_the_probabilities_of_all_orders_of_drawing(hosts, copies):
    assume(sum(size > 0 for size in hosts.values()) >= copies)
    found, expected = shares(hosts, copies), drawn(hosts, copies)
    assert found == pytest.approx(expected, abs=1e-9)
    assert sum(found.values()) == pytest.approx(copies)


@given(HOSTS, COPIES)
def test_crush_fills_no_host_beyond_its_size_and_one_of_them_wholly(hosts, copies):
    scaled = {name: size * TIB for name, size in hosts.items()}
    fits = usable_bytes(scaled, copies)
    assert fits <= ideal_bytes(scaled, copies)
    if fits == 0:
        assert sum(size > 0 for size in hosts.values()) < copies
        return
    full = {name: part * fits / scaled[name] for name, part in shares(scaled, copies).items() if scaled[name]}
    assert max(full.values()) == pytest.approx(1.0, abs=1e-6)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, MOST_COPIES))
def test_equal_hosts_hold_the_raw_space_divided_by_the_copies(size, count, copies):
    hosts = {f"h{index}": size * TIB for index in range(count)}
    assert usable_bytes(hosts, copies) == (size * TIB * count // copies if count >= copies else 0)


@given(HOSTS, COPIES, st.randoms(use_true_random=False))
def test_names_and_order_do_not_matter(hosts, copies, random):
    sizes = list(hosts.values())
    random.shuffle(sizes)
    other = {f"x{index}": size for index, size in enumerate(sizes)}
    assert usable_bytes(other, copies) == usable_bytes(hosts, copies)


def test_the_shares_are_those_that_ceph_itself_draws():
    """200,000 objects by `crushtool --test` (Ceph 16), three hosts of 16 and one of 4."""
    found = shares({"a": 16, "b": 16, "c": 16, "d": 4}, 3)
    assert found == pytest.approx({"a": 0.8852, "b": 0.8863, "c": 0.8848, "d": 0.3437}, abs=0.002)
    assert usable_bytes({"a": 16 * TIB, "b": 16 * TIB, "c": 16 * TIB, "d": 4 * TIB}, 3) == pytest.approx(
        4 * TIB / 0.3437, rel=0.002
    )


def test_hosts_without_disks_count_for_nothing():
    assert usable_bytes({"a": TIB, "b": TIB, "c": 0}, 2) == TIB
    assert usable_bytes({"a": TIB, "b": TIB, "c": 0}, 3) == 0
    assert usable_bytes({}, 3) == ideal_bytes({}, 3) == 0
    assert shares({"a": TIB, "b": 0}, 3) == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("copies", [0, -1, 11])
def test_copies_that_no_pool_can_have_are_refused(copies):
    with pytest.raises(InvalidRequest, match=f"{copies} copies of each object cannot be had; take 1 to 10"):
        usable_bytes({"a": 1}, copies)


def test_what_would_take_for_ever_is_refused():
    hosts = {f"h{size}": size * TIB for size in range(1, 60)}
    with pytest.raises(InvalidRequest, match="59 different sizes of hosts and 6 copies are too many"):
        usable_bytes(hosts, 6)
    assert usable_bytes(hosts, 3) > 0


# --- the warning of an uneven addition --------------------------------------------------------------

THREE = {"hv1": 4 * TIB, "hv2": 4 * TIB, "hv3": 4 * TIB}


def test_a_disk_that_gives_nothing_is_warned_of_with_its_numbers():
    assert uneven(THREE, {**THREE, "hv1": 6 * TIB}, 3) == (
        "the 2 TiB added to hv1 give nothing of usable space instead of 682.7 GiB, because the other hosts have 4 TiB and "
        "each of the 3 copies is on another host: add disks to the others as well"
    )


def test_a_small_host_that_is_full_first_takes_space_away():
    text = uneven(THREE, {**THREE, "hv4": TIB}, 3)
    assert text.startswith("the 1 TiB added to hv4 give 1.1 TiB less of usable space instead of 341.3 GiB, because")


def test_an_even_addition_is_not_warned_of():
    assert uneven(THREE, dict.fromkeys(THREE, 6 * TIB), 3) == ""
    assert uneven(THREE, {**THREE, "hv4": 4 * TIB}, 3) == ""
    assert uneven(THREE, THREE, 3) == ""


def test_the_disk_that_evens_the_hosts_out_is_not_warned_of():
    assert uneven({**THREE, "hv1": 6 * TIB, "hv2": 6 * TIB}, dict.fromkeys(THREE, 6 * TIB), 3) == ""


def test_the_first_disks_of_a_cluster_are_not_warned_of():
    assert uneven({}, {"hv1": 4 * TIB}, 3) == ""
    assert uneven({"hv1": 4 * TIB}, {"hv1": 4 * TIB, "hv2": 4 * TIB}, 3) == ""
    assert uneven({"hv1": 4 * TIB, "hv2": 4 * TIB}, THREE, 3) == ""


def test_a_removal_is_not_warned_of():
    assert uneven({**THREE, "hv1": 6 * TIB}, THREE, 3) == ""


def test_others_of_different_sizes_are_told_as_a_range():
    before = {"a": 4 * TIB, "b": 8 * TIB, "c": 8 * TIB}
    assert "the other hosts have 4 TiB to 8 TiB" in uneven(before, {**before, "c": 12 * TIB}, 3)
