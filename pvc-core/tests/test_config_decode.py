"""Decoding of sections: every mistake at once, each with its key, what was found and what is expected."""

import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from pvc_core.config.schema import NodeConfig
from pvc_core.plugin.config import InvalidSection, Secret, decode
from pvc_core.plugin.errors import ConfigError


class Mode(enum.StrEnum):
    FAST = "fast"
    SAFE = "safe"


class Inner(msgspec.Struct, frozen=True):
    port: Annotated[int, Meta(ge=1, le=65535)] = 80
    hosts: list[str] = []


class Section(msgspec.Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=8)]
    size: int = 0
    ratio: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    enabled: bool = True
    mode: Mode = Mode.FAST
    colour: Literal["red", "green"] = "red"
    level: Annotated[str, Meta(pattern="^(low|high)$")] = "low"
    word: Annotated[str, Meta(pattern="^[a-z]+$")] = "x"
    inner: Inner = Inner()
    maybe: Inner | None = None
    either: int | str = 0
    labels: dict[str, int] = {}
    disks: Annotated[tuple[str, ...], Meta(min_length=1)] = ("a",)
    password_file: Secret | None = None
    secret: str = ""
    anything: Any = None


def problems(**values) -> list[str]:
    with pytest.raises(InvalidSection) as caught:
        decode({"name": "n", **values}, Section, "plugins.x")
    assert isinstance(caught.value, ConfigError)
    assert caught.value.exit_status == 2
    return str(caught.value).splitlines()


def test_a_good_section_is_the_struct():
    section = decode(
        {
            "name": "n",
            "ratio": 0.25,
            "mode": "safe",
            "inner": {"port": 443, "hosts": ["a", "b"]},
            "maybe": {"port": 1},
            "either": "x",
            "labels": {"a": 1},
            "disks": ["sda", "sdb"],
            "password_file": "/etc/pvc/secret",
            "anything": [1, {"a": None}],
        },
        Section,
    )
    assert section.mode is Mode.SAFE
    assert section.inner == Inner(port=443, hosts=["a", "b"])
    assert section.disks == ("sda", "sdb")
    assert section.password_file == Secret("/etc/pvc/secret")
    assert section.anything == [1, {"a": None}]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"size": "1"}, "plugins.x.size: expected a whole number, found the text '1'"),
        ({"size": 1.5}, "plugins.x.size: expected a whole number, found the number 1.5"),
        ({"size": True}, "plugins.x.size: expected a whole number, found true"),
        ({"name": 3}, "expected text that is not empty, found the number 3; put it in quotes if it is meant as text"),
        ({"name": ""}, "plugins.x.name: expected text that is not empty, found the text ''"),
        ({"name": "much too long"}, "plugins.x.name: expected text"),
        ({"ratio": 1}, "expected a number above 0 below 1, found the number 1"),
        ({"enabled": "yes"}, "expected true or false, found the text 'yes'"),
        ({"enabled": 1}, "expected true or false, found the number 1"),
        ({"mode": "fsat"}, "expected one of fast, safe, found the text 'fsat'; did you mean 'fast'?"),
        ({"colour": "blue"}, "expected one of green, red, found the text 'blue'"),
        ({"level": "hihg"}, "expected one of low, high, found the text 'hihg'; did you mean 'high'?"),
        ({"word": "X1"}, "expected text matching ^[a-z]+$"),
        ({"inner": "text"}, "plugins.x.inner: expected a mapping, found the text 'text'"),
        ({"inner": {"port": 0}}, "plugins.x.inner.port: expected a whole number from 1 to 65535, found the number 0"),
        ({"inner": {"hosts": ["a", 2]}}, "plugins.x.inner.hosts[1]: expected text, found the number 2"),
        ({"inner": {"hosts": "a"}}, "plugins.x.inner.hosts: expected a list (each: text), found the text 'a'"),
        ({"maybe": {"prot": 1}}, "plugins.x.maybe.prot: unknown key; did you mean 'port'?"),
        ({"either": []}, "plugins.x.either: expected a whole number or text, found a list of 0"),
        ({"labels": {"a": "b"}}, "plugins.x.labels.a: expected a whole number, found the text 'b'"),
        ({"labels": {1: 1}}, "plugins.x.labels: expected text as key, found the number 1; put it in quotes"),
        ({"disks": []}, "plugins.x.disks: expected a list of at least 1 (each: text), found a list of 0"),
        ({"password_file": 3}, "expected the name of a file that holds the secret, found the number 3"),
        ({"colours": "red"}, "plugins.x.colours: unknown key; did you mean 'colour'?"),
        ({"zzz": 1}, "plugins.x.zzz: unknown key; known keys: name, size, ratio"),
    ],
)
def test_one_mistake(values, says):
    [line] = problems(**values)
    assert says in line


def test_all_mistakes_are_told_at_once():
    with pytest.raises(InvalidSection) as caught:
        decode({"sise": 1, "inner": {"port": -1}, "labels": []}, Section)
    assert [p.keys for p in caught.value.problems] == [("sise",), (), ("inner", "port"), ("labels",)]
    assert "the key 'name' is missing: expected text that is not empty" in str(caught.value)


def test_what_stands_where_a_secret_may_be_is_not_repeated():
    [line] = problems(secret=12345)
    assert "12345" not in line
    assert "found something else" in line


def test_unknown_keys_are_refused_though_the_schema_does_not_say_so():
    assert not Section.__struct_config__.forbid_unknown_fields
    assert "unknown key" in problems(extra=1)[0]


def test_an_absent_section_and_empty_ones_are_empty():
    assert decode(None, Inner) == Inner()
    assert decode({"name": "n", "inner": None}, Section).inner == Inner()
    assert decode({"name": "n", "maybe": None}, Section).maybe is None


def test_a_section_that_is_no_mapping():
    with pytest.raises(InvalidSection, match=r"plugins\.x: expected a mapping, found a list of 1"):
        decode([1], Section, "plugins.x")


def test_rules_of_the_schemas_own():
    class Window(msgspec.Struct, frozen=True):
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    with pytest.raises(InvalidSection, match=r"^w: low is above high$"):
        decode({"low": 2, "high": 1}, Window, "w")


def test_long_text_is_cut():
    [line] = problems(mode="x" * 500)
    assert len(line) < 160


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["name", "size", "inner", "maybe", "disks", "either", "x"]), _values))
def test_whatever_is_given_it_is_decoded_or_refused_in_words(value):
    try:
        decoded = decode(value, Section)
    except InvalidSection as error:
        assert error.problems
        assert all(problem.message for problem in error.problems)
    else:
        assert isinstance(decoded, Section)
        assert (
            msgspec.convert(msgspec.to_builtins(decoded, enc_hook=str), Section, dec_hook=lambda t, v: t(v)) == decoded
        )


@given(st.dictionaries(st.sampled_from(["cluster", "node", "timing", "plugins", "x"]), _values))
def test_a_nodes_file_is_never_a_traceback(value):
    with pytest.raises(InvalidSection):
        decode(value, NodeConfig)
