"""What the state store takes, and what its modules cost to import."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc_core.model.errors import InvalidRequest
from pvc_core.store.api import Check, Create, Delete, Put
from pvc_core.store.limits import MAX_REQUEST, TooLarge, check_path, check_transaction, parent, request_size
from pvc_core.store.zookeeper_client import server_name

_NAMES = st.text(st.sampled_from("abcé.-_:@ 0"), min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))


@given(st.lists(_NAMES, min_size=1, max_size=5))
def test_names_joined_by_slashes_are_a_path(names):
    path = "/" + "/".join(names)
    assert check_path(path) == path
    assert check_path(parent(path)) == ("/" + "/".join(names[:-1]))


@pytest.mark.parametrize(
    "path", ["", "a", "a/b", "/a/", "//", "/a//b", "/.", "/a/..", "/a/./b", "/\x00", "/a\x7f", "/\ud800"]
)
def test_anything_else_is_not(path):
    with pytest.raises(InvalidRequest, match="is not a path of the state tree"):
        check_path(path)


def test_dots_within_a_name_are_allowed():
    assert check_path("/pvc/..a/.b/c.") == "/pvc/..a/.b/c."


@pytest.mark.parametrize("operation", [Create("/é", b"12"), Put("/é", b"12", 0), Delete("/é"), Check("/é")])
def test_the_size_of_an_operation_counts_bytes_and_headers(operation):
    assert request_size(operation) > len("/é".encode()) + len(getattr(operation, "value", b""))


def test_a_transaction_may_just_fill_a_request():
    value = bytes(MAX_REQUEST - request_size(Create("/a", b"")))
    check_transaction([Create("/a", value)])
    with pytest.raises(TooLarge):
        check_transaction([Create("/a", value + b"x")])


def test_an_ipv6_address_is_put_in_brackets():
    assert server_name("10.0.0.1", 2181) == "10.0.0.1:2181"
    assert server_name("fd00::1", 2181) == "[fd00::1]:2181"


def test_kazoo_is_imported_only_by_what_connects():
    code = (
        "import sys, pvc_core.store.memory, pvc_core.store.documents, pvc_core.store.schema, pvc_core.store.restore;"
        "sys.exit('kazoo' in sys.modules or 'ssl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
