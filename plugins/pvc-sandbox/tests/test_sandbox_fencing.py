"""How the nodes of a sandbox get their fence levels."""

import pytest

from pvc_sandbox.fencing import set_levels
from pvc_sandbox.layout import Layout
from pvc_sandbox.node_bmc import NodeBmc


@pytest.fixture
def bmcs(tmp_path):
    layout = Layout(name="t", index=7, state=str(tmp_path))
    return [NodeBmc(layout, number) for number in (1, 2)]


class Pvc:
    """Takes note of the commands, in place of a cluster."""

    def __init__(self, **levels):
        self.levels = levels
        self.commands = []

    def json(self, *arguments):
        assert arguments == ("fence", "level", "list")
        return [{"node": node, "levels": levels} for node, levels in self.levels.items()]

    def several(self, commands):
        self.commands += [tuple(command) for command in commands]


def level(bmc, **changes):
    return {"devices": [{"driver": "ipmi", "parameters": bmc.fence_parameters() | changes}]}


OTHER = {"devices": [{"driver": "agents", "parameters": {"agent": "fence_apc"}}]}


def test_every_node_gets_its_own_bmc(bmcs):
    pvc = Pvc(hv1=[], hv2=[OTHER])
    assert set_levels(pvc, bmcs, wanted=True) == ["hv1", "hv2"]
    first = next(command for command in pvc.commands if "hv1" in command)
    assert first[:5] == ("fence", "level", "add", "hv1", "ipmi")
    assert "address=10.79.7.101" in first
    assert any(word.startswith("password_file=") for word in first)
    assert len(pvc.commands) == 2


def test_new_cluster_is_not_asked_first(bmcs):
    pvc = Pvc()
    pvc.json = None
    assert set_levels(pvc, bmcs, wanted=True, new=True) == ["hv1", "hv2"]
    assert [command[2] for command in pvc.commands] == ["add", "add"]


def test_levels_that_are_right_are_left_alone(bmcs):
    pvc = Pvc(hv1=[level(bmcs[0])], hv2=[OTHER, level(bmcs[1])])
    assert set_levels(pvc, bmcs, wanted=True) == []
    assert pvc.commands == []


def test_level_of_an_earlier_address_is_replaced(bmcs):
    pvc = Pvc(hv1=[level(bmcs[0], address="10.79.3.101"), OTHER], hv2=[level(bmcs[1])])
    assert set_levels(pvc, bmcs, wanted=True) == ["hv1"]
    assert [command[2] for command in pvc.commands] == ["remove", "add"]
    assert pvc.commands[0][3:] == ("hv1", "1", "--yes")


def test_without_bmcs_only_their_levels_go(bmcs):
    old = level(bmcs[0], address="10.79.3.101")
    pvc = Pvc(hv1=[level(bmcs[0]), OTHER, old], hv2=[OTHER])
    assert set_levels(pvc, bmcs, wanted=False) == ["hv1"]
    assert [command[2:5] for command in pvc.commands] == [("remove", "hv1", "3"), ("remove", "hv1", "1")]
