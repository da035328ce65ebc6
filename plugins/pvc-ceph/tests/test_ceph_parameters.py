"""Parameters of pools: what they may be, and what is said of others."""

import pytest

from pvc_ceph.parameters import pool_parameters, validate_pool, warnings
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.storage import PoolSpec


def pool(**parameters):
    return PoolSpec(id="1", name="ssd", driver="ceph-rbd", parameters=parameters)


def test_a_pool_without_parameters_has_three_copies_of_which_two_are_written():
    found = pool_parameters(pool())
    assert (found.pool, found.copies, found.mincopies, found.tier, found.pgs, found.autoscale, found.adopt) == (
        "ssd", 3, 2, "", 0, "on", False
    )  # fmt: skip
    assert warnings(found) == []


@pytest.mark.parametrize(("copies", "mincopies"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_mincopies_are_half_of_the_copies_rounded_up(copies, mincopies):
    assert pool_parameters(pool(copies=copies)).mincopies == mincopies


def test_with_placement_groups_of_its_own_nothing_changes_them():
    assert pool_parameters(pool(pgs=64)).autoscale == "off"
    assert pool_parameters(pool(pgs=64, autoscale="warn")).autoscale == "warn"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"copys": 3}, r"pool ssd: driver ceph-rbd has no parameter 'copys'; did you mean 'copies'"),
        ({"copies": 0}, "copies 0 is not a number from 1 to 10"),
        ({"copies": "3"}, "copies '3' is not a number"),
        ({"copies": True}, "copies True is not a number"),
        ({"copies": 2, "mincopies": 3}, "mincopies 3 is more than its 2 copies"),
        ({"mincopies": 0}, "mincopies 0 is not a number"),
        ({"pgs": 100}, "pgs 100 is not a power of two"),
        ({"pgs": -1}, "pgs -1 is not a number"),
        ({"autoscale": "maybe"}, "autoscale 'maybe' is not one of on, warn, off"),
        ({"tier": "SSD drives"}, "tier 'SSD drives' is not valid: a CRUSH device class"),
        ({"pool": "a/b"}, "pool 'a/b' is not valid"),
        ({"pool": ""}, "pool '' is not valid"),
        ({"adopt": "yes"}, "adopt 'yes' is neither true nor false"),
        ({"adopt": True, "copies": 3}, "with adopt the pool stays as it is in Ceph; leave out copies"),
    ],
)
def test_what_cannot_be_is_refused(parameters, said):
    with pytest.raises(InvalidRequest, match=said):
        validate_pool(pool(**parameters))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"copies": 1}, ["every failed disk loses data"]),
        ({"copies": 2}, ["a second failure before the first is healed loses data", "acknowledged that exists once"]),
        ({"copies": 3, "mincopies": 1}, ["acknowledged that exists once"]),
        ({"copies": 3, "mincopies": 3}, ["one node that is off stops all writes"]),
        ({"copies": 2, "mincopies": 2}, ["a second failure", "one node that is off stops all writes"]),
        ({"copies": 4, "mincopies": 2}, []),
        ({"adopt": True}, []),
    ],
)
def test_other_copies_bring_the_warning_that_fits(parameters, said):
    found = warnings(pool_parameters(pool(**parameters)))
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))


def test_the_check_of_the_operation_returns_the_warnings():
    assert validate_pool(pool()) == []
    assert len(validate_pool(pool(copies=2))) == 2
