"""Sizes as people write them."""

import pytest

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.units import parse_bytes, parse_mib


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), (4096, 4096), ("10G", 10 << 30), (" 512 MiB ", 512 << 20), ("1.5k", 1536), ("2TB", 2 << 40)],
)
def test_every_prefix_is_a_power_of_1024(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "mib"), [("512", 512), (512, 512), (" 512 ", 512), ("2G", 2048), ("1.5g", 1536)])
def test_a_bare_number_of_memory_is_mib(text, mib):
    assert parse_mib(text) == mib


@pytest.mark.parametrize(
    "text", ["", "ten", "-1G", "10 Q", "²", "\u0663G", "9" * 400 + "G", "9" * 5000, "1.2.3", "1e9"]
)
def test_what_is_not_a_size_is_refused(text):
    for parse in (parse_bytes, parse_mib):
        with pytest.raises(InvalidRequest, match="is not a size"):
            parse(text)


def test_parts_of_a_byte_or_of_a_mib_are_refused():
    with pytest.raises(InvalidRequest, match="not a whole number of bytes"):
        parse_bytes("0.3")
    with pytest.raises(InvalidRequest, match="not a whole number of MiB"):
        parse_mib("100K")
