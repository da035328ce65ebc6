"""The room in a pool: what its volumes take, what they were promised, and what is refused."""

from hypothesis import given
from hypothesis import strategies as st

from pvc_core.model.storage import PoolStatus, PoolUsage, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.plan.pool_space import PoolSpace, Wanted, made_bytes, over_limit, pool_space, refusal

GIB = 1 << 30


def pool(total, used, volumes=0):
    usage = PoolUsage(total_bytes=total, used_bytes=used, free_bytes=total - used)
    return PoolStatus(id="p", usage=usage, volumes_bytes=volumes)


def volume(size, used=None, *, state=VolumeState.READY, expected=0, **spec):
    """Return a volume's documents; without ``used`` it is not made yet."""
    made = VolumeStatus(id="v", state=state, size_bytes=size, used_bytes=used or 0)
    waiting = VolumeStatus(id="v", state=VolumeState.CREATING if used is None else state, expected_bytes=expected)
    return VolumeSpec(id="v", name="v", pool="p", size_bytes=size, **spec), made if used is not None else waiting


def space(status, *volumes):
    found = pool_space(status, volumes)
    return found.used_bytes, found.promised_bytes


def test_of_a_pool_without_figures_nothing_is_known():
    assert pool_space(PoolStatus(id="p"), [volume(5)]) is None


def test_other_contents_of_the_pool_are_kept_apart_from_its_volumes():
    assert space(pool(100, 30, volumes=20), volume(50, 20)) == (30, 60)


def test_a_volume_that_was_filled_since_the_figures_counts_with_what_it_has_now():
    assert space(pool(100, 30, volumes=20), volume(50, 20), volume(40, 40)) == (70, 100)


def test_volumes_that_report_more_than_they_take_leave_the_pool_its_own_figure():
    assert space(pool(100, 15, volumes=40), volume(50, 40)) == (15, 25)
    assert space(pool(100, 15, volumes=40)) == (0, 0)


def test_a_volume_that_was_removed_since_the_figures_frees_what_it_had():
    assert space(pool(100, 30, volumes=20)) == (10, 10)


def test_what_a_guest_cannot_use_is_not_free():
    usage = PoolUsage(total_bytes=100, used_bytes=10, free_bytes=60)
    assert pool_space(PoolStatus(id="p", usage=usage), []).free_bytes == 60


def test_volumes_that_are_not_made_yet():
    empty = pool(100, 0)
    assert space(empty, volume(10)) == (0, 10)
    assert space(empty, (volume(10)[0], None)) == (0, 10)
    assert space(empty, volume(10, full_copy=True, source="a")) == (10, 10)
    assert space(empty, volume(10, source="a")) == (0, 10)
    assert space(empty, volume(0, task="t", expected=7)) == (7, 7)


def test_a_volume_on_its_way_out_is_promised_nothing_more():
    assert space(pool(100, 20, volumes=20), volume(50, 20, deleting=True)) == (20, 20)
    failed = VolumeSpec(id="v", name="v", pool="p", size_bytes=9), VolumeStatus(id="v", state=VolumeState.FAILED)
    assert space(pool(100, 0), failed) == (0, 0)
    assert space(pool(100, 0), volume(50, deleting=True)) == (0, 0)


def test_a_growth_that_is_not_carried_out_yet_counts():
    spec, status = volume(50, 20)
    bigger = VolumeSpec(id="v", name="v", pool="p", size_bytes=80)
    assert space(pool(100, 20, volumes=20), (bigger, status)) == (20, 80)
    assert spec.size_bytes == 50


def test_only_volumes_that_were_made_are_part_of_the_figures():
    statuses = [volume(50, 20)[1], volume(0, task="t", expected=7)[1]]
    assert made_bytes(statuses) == 20


def test_refusals_say_all_their_numbers():
    found = PoolSpace(100 * GIB, 40 * GIB, 73 * GIB)
    assert refusal("ssd", found, Wanted("volume ssd/a of 70 GiB", 70 * GIB, 70 * GIB), 80, force=True) == (
        "volume ssd/a of 70 GiB does not fit into pool ssd: 70 GiB are needed and 60 GiB of its 100 GiB are free; "
        "remove volumes or snapshots, or enlarge the pool"
    )
    assert refusal("ssd", found, Wanted("volume ssd/a of 20 GiB", 20 * GIB, 20 * GIB), 80, force=False) == (
        "volume ssd/a of 20 GiB would let pool ssd become 93 % full, more than 80 %: of its 100 GiB, 40 GiB are used and "
        "60 GiB free, 33 GiB more are promised to its volumes, 7 GiB would be left; remove volumes or snapshots, enlarge "
        "the pool, or use --force and watch it"
    )
    assert "nothing of its 2 B is free" in refusal("ssd", PoolSpace(2, 2, 2), Wanted("v", 1, 1), 80, force=True)
    assert "13 GiB would be lacking" in refusal("ssd", found, Wanted("v", 40 * GIB, 40 * GIB), 80, force=False)
    assert over_limit("ssd", found, 80) == ""
    assert over_limit("ssd", found, 70) == (
        "pool ssd becomes 73 % full once its volumes are, more than 70 %: of its 100 GiB, 40 GiB are used and 60 GiB "
        "free, 33 GiB more are promised to its volumes; watch it: when it is full the writes of all its guests fail"
    )


def test_a_little_more_than_the_limit_is_not_said_to_be_the_limit():
    said = refusal("ssd", PoolSpace(1000, 800, 800), Wanted("v", 1, 1), 80, force=False)
    assert "become 81 % full, more than 80 %" in said


SIZES = st.integers(0, 60)


@given(st.lists(st.tuples(SIZES, SIZES), max_size=8), SIZES, st.integers(1, 400), st.integers(1, 100), st.booleans())
def test_what_is_allowed_fits_and_force_only_allows_more(volumes, wanted, total, limit, sparse):
    made = [volume(max(size, 1), min(used, max(size, 1))) for size, used in volumes]
    used = made_bytes(status for _, status in made)
    total = max(total, used)
    found = pool_space(pool(total, used, volumes=used), made)
    asked = Wanted("v", 0 if sparse else wanted, wanted)
    forced, free = (refusal("p", found, asked, limit, force=force) for force in (True, False))
    assert not forced or free
    assert bool(forced) == (asked.need_bytes > total - used)
    if not free:
        promised = sum(spec.size_bytes for spec, _ in made) + wanted
        assert promised * 100 <= limit * total
        assert sparse or used + wanted <= total
