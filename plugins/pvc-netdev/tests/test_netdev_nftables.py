"""What nftables has, asked of the real kernel."""

import subprocess
import uuid

import pytest

from pvc_core.plugin import DriverError
from pvc_netdev import namespace
from pvc_netdev.namespace import entered
from pvc_netdev.nftables import has_table

pytestmark = pytest.mark.real

TABLE = "inet pvc-test"


@pytest.fixture
def there():
    name = f"nft-{uuid.uuid4().hex[:8]}"
    namespace.create(name)
    yield name
    namespace.remove(name)


def nft(there, text):
    with entered(there):
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True, timeout=20)


def test_a_table_is_found_by_its_family_and_name(there):
    assert not has_table(TABLE, there)
    nft(there, f"table {TABLE} {{ }}")
    assert has_table(TABLE, there)
    assert not has_table("ip pvc-test", there)
    assert not has_table("inet pvc", there)
    with entered(there):
        assert has_table(TABLE)
    nft(there, "flush ruleset")
    assert not has_table(TABLE, there)


def test_a_namespace_that_is_not_there_is_an_error():
    with pytest.raises(DriverError, match="there is no network namespace nft-none"):
        has_table(TABLE, "nft-none")
