"""Fixtures for tests on a whole cluster; pytest loads this by itself where pvc-sandbox is installed.

Everything else is imported when a fixture is used, so that other tests pay nothing and coverage sees it.

``sandbox``: a cluster of three nodes for the whole session.  ``fenced_sandbox``: another one, whose nodes have BMCs
through which they are fenced when they are lost.  ``ceph_sandbox``: one with Ceph in its nodes.  ``vxlan_sandbox``: one
with managed networks.  ``--sandbox NAME`` uses one that is up already, and leaves it up: quicker while a test is being
written.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pvc_sandbox.sandbox import Sandbox

_PREFIX = "pytest-"

Eventually = Callable[..., Any]
"""``eventually(what, condition, within_s=60, detail=None)``: the condition's first true result; see ``waiting.wait_until``."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--sandbox``."""
    group = parser.getgroup("pvc", "PVC's sandbox")
    group.addoption("--sandbox", metavar="NAME", help="run on this sandbox, which is up already, and leave it up")


@pytest.fixture(scope="session")
def sandbox(request: pytest.FixtureRequest) -> "Iterator[Sandbox]":
    """Return a cluster of three nodes, all coordinators; a test leaves every node on, connected and in service.

    Its nodes have no BMC: one whose power a test cuts stays off until the test switches it on.
    """
    with _cluster(request, "", bmc=False) as made:
        yield made


@pytest.fixture(scope="session")
def fenced_sandbox(request: pytest.FixtureRequest) -> "Iterator[Sandbox]":
    """Return a cluster like ``sandbox``, whose nodes have BMCs: a lost one is fenced, and its VMs run elsewhere.

    A test leaves every BMC mended.
    """
    with _cluster(request, "-fenced", bmc=True) as made:
        yield made


@pytest.fixture(scope="session")
def ceph_sandbox(request: pytest.FixtureRequest) -> "Iterator[Sandbox]":
    """Return a cluster like ``fenced_sandbox``, in whose nodes Ceph runs: a monitor, a manager and an OSD in each.

    A test leaves every BMC mended, and every OSD up.
    """
    with _cluster(request, "-ceph", bmc=True, storage="ceph") as made:
        yield made


@pytest.fixture(scope="session")
def vxlan_sandbox(request: pytest.FixtureRequest) -> "Iterator[Sandbox]":
    """Return a cluster like ``fenced_sandbox``, with managed networks: FRR runs in its nodes, and a router outside.

    A test leaves every BMC mended, FRR running on every node, and the router outside too.
    """
    with _cluster(request, "-vxlan", bmc=True, network="vxlan") as made:
        yield made


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Return the function that waits for a condition with a deadline."""
    from pvc_sandbox.waiting import wait_until

    def wait(
        what: str, condition: Callable[[], Any], within_s: float = 60.0, detail: Callable[[], str] | None = None
    ) -> Any:
        return wait_until(what, condition, deadline_s=within_s, detail=detail)

    return wait


@contextmanager
def _cluster(
    request: pytest.FixtureRequest, suffix: str, *, bmc: bool, storage: str = "dir", network: str = "bridge"
) -> "Iterator[Sandbox]":
    from pvc_sandbox.sandbox import Sandbox

    name = request.config.getoption("--sandbox")
    if name:
        made = Sandbox(name)
        wanted = f"--storage {storage} --network {network} --{'' if bmc else 'no-'}bmc"
        if (made.plan.bmc, made.plan.storage, made.plan.frr) != (bmc, storage, network == "vxlan"):
            raise pytest.UsageError(f"for this test, first: pvc sandbox up --name {name} {wanted}")
        made.wait_ready()
        yield made
        return
    _remove_leftovers()
    made = Sandbox(f"{_PREFIX}{os.getpid()}{suffix}")
    try:
        made.up(nodes=3, bmc=bmc, storage=storage, network=network)
        yield made
    finally:
        made.down()


def _remove_leftovers() -> None:
    """Remove the sandboxes of sessions that were killed: their name holds the process that made them."""
    from pvc_sandbox.layout import sandboxes
    from pvc_sandbox.sandbox import Sandbox

    for layout in sandboxes():
        owner = layout.name.removeprefix(_PREFIX).partition("-")[0]
        if layout.name.startswith(_PREFIX) and owner.isdigit() and not _is_alive(int(owner)):
            Sandbox(layout.name).down()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
