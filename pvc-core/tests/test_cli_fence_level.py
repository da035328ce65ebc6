"""`pvc fence level` on a state tree in memory."""

import pytest

from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_node


@pytest.fixture
def pvc() -> CommandLine:
    tree = MemoryTree()
    command = CommandLine(tree)
    add_node(tree, "hv1", capabilities=("fencing:ipmi", "fencing:strip"))
    add_node(tree, "hv2", capabilities=("fencing:ipmi",))
    return command


def test_levels_are_added_and_listed(pvc: CommandLine) -> None:
    said = pvc("fence", "level", "add", "hv1", "ipmi", "address=10.0.9.1", "password_file=/etc/pvc/bmc")
    assert (said.status, said.out, said.err) == (0, "node hv1: ipmi is level 1\n", "")
    pvc("fence", "level", "add", "hv1", "strip", "port=1")
    said = pvc("fence", "level", "add", "hv1", "strip", "port=2", "--level", "2")
    assert said.out == "node hv1: strip is in level 2, with 1 other\n"
    assert "no working fence driver strip on hv2" in said.err
    assert pvc("fence", "level", "list").out.splitlines() == [
        "NODE  LEVEL  DRIVER  PARAMETERS",
        "hv1   1      ipmi    address=10.0.9.1 password_file=/etc/pvc/bmc",
        "hv1   2.1    strip   port=1",
        "hv1   2.2    strip   port=2",
        "hv2   none   -       -",
    ]
    found = pvc("fence", "level", "list", "hv1", "--format", "json").json()
    assert found[0]["levels"][1]["devices"][1] == {"driver": "strip", "parameters": {"port": "2"}}


def test_repeating_an_addition_says_that_it_is_there(pvc: CommandLine) -> None:
    args = ("fence", "level", "add", "hv1", "ipmi", "port=623")
    pvc(*args)
    assert pvc(*args).out == "node hv1: ipmi is level 1 already\n"
    found = pvc(*args, "--format", "json").json()
    assert (found["fence"]["changed"], found["fence"]["level"]) == (False, 1)
    assert found["fence"]["levels"][0]["devices"][0]["parameters"] == {"port": "623"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("hv1", "ipmi", "address"), "'address' is not of the form key=value"),
        (("hv1", "ipmi", "a=1", "a=2"), "parameter a is given twice"),
        (("hv1", "ipmi", "password=hunter2"), "password is a secret"),
        (("hv1", "ipmi", "--level", "0"), "--level"),
    ],
)
def test_a_wrong_addition_is_refused(pvc: CommandLine, args: tuple[str, ...], message: str) -> None:
    said = pvc("fence", "level", "add", *args)
    assert (said.status, said.out) == (2, "")
    assert message in said.err
    assert "hunter2" not in said.err


def test_removal_says_what_it_means_and_asks(pvc: CommandLine) -> None:
    pvc("fence", "level", "add", "hv1", "strip", "port=1")
    pvc("fence", "level", "add", "hv1", "strip", "port=2", "--level", "1")
    device = ("fence", "level", "remove", "hv1", "1", "--device", "2")
    assert "then the others alone are taken for the whole power" in pvc(*device, input="n\n", interactive=True).err
    assert pvc(*device, "--yes").out == "node hv1: device 2 of fence level 1 is removed; 1 level left\n"
    level = ("fence", "level", "remove", "hv1", "1")
    assert "it would have no fence level left" in pvc(*level, input="n\n", interactive=True).err
    assert pvc(*level, "--yes").out == "node hv1: fence level 1 is removed; no level left\n"
    assert pvc(*level, "--yes").err == "pvc: node hv1 has no fence level 1: it has none\n"
