"""Fixtures of pvc-vxlan's tests."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def evpn_support():
    """The module ``evpn_site.py`` beside this file, which is not a test."""
    spec = importlib.util.spec_from_file_location("evpn_site", Path(__file__).with_name("evpn_site.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def evpn_fabric(evpn_support):
    """Four nodes with FRR in one fabric, two of them route reflectors, and a fifth without, for all tests of a module."""
    site = evpn_support.EvpnSite(5, started=4)
    yield site
    site.close()


@pytest.fixture
def evpn_nodes(evpn_fabric):
    """The same, without networks and guests at first and at the end."""
    yield evpn_fabric
    evpn_fabric.clear()


@pytest.fixture
def evpn_make(evpn_support):
    """Make another fabric; it is closed at the end."""
    made = []

    def make(*arguments, **more):
        made.append(evpn_support.EvpnSite(*arguments, **more))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def evpn_bird(evpn_support):
    """Make a router outside; it is closed at the end."""
    made = []

    def make(*arguments, **more):
        made.append(evpn_support.Bird(*arguments, **more))
        return made[-1]

    yield make
    for bird in made:
        bird.close()


@pytest.fixture(scope="session")
def gateway_support():
    """The module ``gateway_site.py`` beside this file, which is not a test."""
    spec = importlib.util.spec_from_file_location("gateway_site", Path(__file__).with_name("gateway_site.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gateway_site(gateway_support):
    """Nodes, guests and an outside; nothing of it is left at the end."""
    site = gateway_support.Site()
    yield site
    site.close()


@pytest.fixture
def gateway_node(gateway_site):
    """A node that is the primary."""
    return gateway_site.node()


@pytest.fixture(scope="session")
def cli_support():
    """The module ``cli_site.py`` beside this file, which is not a test."""
    spec = importlib.util.spec_from_file_location("cli_site", Path(__file__).with_name("cli_site.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
