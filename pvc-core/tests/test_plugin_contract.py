"""Do values fit the specification's annotations?"""

import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import pytest

from pvc_core.model.storage import Snapshot
from pvc_core.plugin.specs.storage import DiskSource, VolumeInfo
from pvc_core.runtime.contract import mismatch, text_of
from pvc_core.runtime.hooks import hooks


class Colour(enum.StrEnum):
    RED = "red"


class Tree(msgspec.Struct):
    name: str
    children: "list[Tree]" = []


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1, int),
        (1, float),
        (1.5, float),
        (True, bool),
        ("a", str),
        (None, None),
        (None, str | None),
        ([], list[str]),
        (["a"], list[str]),
        (("a", "b"), tuple[str, ...]),
        (("a", 1), tuple[str, int]),
        ({"a": 1}, dict[str, int]),
        ({"a": object()}, dict[str, Any]),
        (Colour.RED, Colour),
        ("x", Literal["x", "y"]),
        (len, Callable[[str], int]),
        (3, Annotated[int, "a figure"]),
        (frozenset({"a"}), frozenset[str]),
        (Tree("a", [Tree("b")]), Tree),
        (VolumeInfo(name="v", size_bytes=1, snapshots=(Snapshot(name="s"),)), VolumeInfo),
    ],
)
def test_fits(value, wanted):
    assert mismatch(value, wanted) is None


@pytest.mark.parametrize(
    ("value", "wanted", "says"),
    [
        (None, bool, "None instead of bool"),
        (1, bool, "a value of type int instead of bool"),
        (True, int, "type bool instead of int"),
        (True, float, "type bool instead of float"),
        ("1", int, "type str instead of int"),
        (1, None, "instead of None"),
        (1, str | None, "a value of type int instead of str | None"),
        (("a",), list[str], "type tuple instead of list[str]"),
        (["a", 1], list[str], "in element 1: a value of type int instead of str"),
        (("a",), tuple[str, int], "a tuple of 1 instead of 2"),
        ({1: 1}, dict[str, int], "in a key: a value of type int"),
        ({"a": "b"}, dict[str, int], "in the value of 'a'"),
        ("red", Colour, "type str instead of Colour"),
        ("z", Literal["x", "y"], "'z' instead of one of 'x', 'y'"),
        (3, Callable[[], int], "instead of a function"),
        (Tree("a", [Tree(1)]), Tree, "in Tree.children: in element 0: in Tree.name: a value of type int"),
        (DiskSource(type="tape", source_xml=""), DiskSource, "in DiskSource.type: 'tape' instead of one of"),
        ([VolumeInfo(name="v", size_bytes="1")], list[VolumeInfo], "in VolumeInfo.size_bytes"),
    ],
)
def test_does_not_fit(value, wanted, says):
    assert says in (mismatch(value, wanted) or "")


def test_every_annotation_of_a_specification_can_be_shown():
    for hook in hooks().values():
        assert "<" not in text_of(hook.returns), hook.name
