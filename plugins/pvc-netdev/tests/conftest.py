"""Network namespaces for tests on the real kernel: only what is in them is changed."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from pvc_netdev import namespace
from pvc_netdev.links import Links


@pytest.fixture
def make_namespace() -> Iterator[Callable[[], str]]:
    """Return a maker of named namespaces with a loopback that is up; they go with the test."""
    prefix = f"nd{uuid.uuid4().hex[:8]}"
    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        name = f"{prefix}-{count}"
        namespace.create(name)
        with Links(name) as links:
            links.set(links.get("lo"), "switching on", state="up")
        return name

    yield make
    for name in namespace.names(f"{prefix}-"):
        namespace.remove(name)


@pytest.fixture
def inside(make_namespace) -> Iterator[str]:
    """Have the test in a namespace of its own; its name."""
    name = make_namespace()
    with namespace.entered(name):
        yield name


@pytest.fixture
def links(inside) -> Iterator[Links]:
    with Links() as opened:
        yield opened
