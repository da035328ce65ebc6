"""The plugin of docs/first-plugin.md works as it stands there."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc_core.plugin import NodeInfo
from pvc_core.runtime.doctor import examine
from pvc_core.runtime.start import load_plugins
from pvc_core.testkit.distributions import Site, node_config

PAGE = Path(__file__).parents[2] / "docs" / "first-plugin.md"
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    """The files of the page, installed."""
    with Site(tmp_path) as site:
        for path, text in FILES.items():
            if path.startswith("src/") and path.endswith(".py"):
                site.module(path.removeprefix("src/").removesuffix(".py").replace("/", "."), text)
        (tmp_path / "pvc_island" / "py.typed").touch()
        project = tomllib.loads(FILES["pyproject.toml"])["project"]
        site.distribution(
            project["name"],
            project["entry-points"],
            version=project["version"],
            requires=tuple(project["dependencies"]),
        )
        yield site


def test_the_page_has_all_files():
    modules = ("manifest", "config", "driver")
    wanted = {"pyproject.toml", "tests/test_island_contract.py", *(f"src/pvc_island/{name}.py" for name in modules)}
    assert set(FILES) == wanted


def test_the_doctor_finds_nothing_wrong(site):
    assert examine("island") == []


@pytest.mark.real
def test_a_node_loads_it(site):
    config = node_config({"island": {"mtu": 9000}})
    registry = load_plugins(config, NodeInfo(name="node1", role="coordinator"), lambda *_: None)
    try:
        (status,) = registry.status()
        assert (status.name, status.state, status.capabilities) == ("island", "healthy", ("network:island",)), status
        assert not registry.network("island").network_capabilities().live_migration
    finally:
        registry.close()


@pytest.mark.real
def test_it_keeps_the_contract(site):
    test = site.directory / "tests" / "test_island_contract.py"
    test.parent.mkdir()
    test.write_text(FILES["tests/test_island_contract.py"])
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", site.directory, test],
        env={**os.environ, "PYTHONPATH": str(site.directory)},
        cwd=site.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout
    assert "passed" in child.stdout
