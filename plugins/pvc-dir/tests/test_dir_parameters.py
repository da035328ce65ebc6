"""Parameters of pools, the manifest and the configuration section."""

import importlib
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.storage import PoolSpec
from pvc_core.plugin import ConfigError, decode
from pvc_dir.config import DirConfig
from pvc_dir.manifest import MANIFEST
from pvc_dir.parameters import pool_parameters, validate_pool


def _pool(**parameters):
    return PoolSpec(id="p1", name="ssd", driver="dir", parameters=parameters)


def test_a_path_is_enough():
    assert pool_parameters(_pool(path="/srv/pvc")) == ("/srv/pvc", "raw", False)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "needs the parameter 'path'"),
        ({"path": "srv/pvc"}, "not an absolute path"),
        ({"path": 5}, "not an absolute path"),
        ({"path": "/srv/\npvc"}, "not an absolute path"),
        ({"path": "/srv/../etc"}, "write path '/srv/../etc' as '/etc'"),
        ({"path": "/srv/pvc/"}, "as '/srv/pvc'"),
        ({"path": "/"}, "belongs to the system"),
        ({"path": "/etc"}, "belongs to the system"),
        ({"path": "/srv/pvc", "formt": "raw"}, "did you mean 'format'"),
        ({"path": "/srv/pvc", "format": "vmdk"}, "not one of raw, qcow2"),
        ({"path": "/srv/pvc", "format": ["raw"]}, "not one of raw, qcow2"),
        ({"path": "/srv/pvc", "mounted": "yes"}, "neither true nor false"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(InvalidRequest, match="pool ssd") as caught:
        validate_pool(_pool(**parameters))
    assert message in str(caught.value)


def test_the_manifest_and_the_entry_points_agree():
    (found,) = entry_points(group="pvc.plugin", name="dir")
    assert found.load() is MANIFEST
    assert {point.name for point in entry_points(group="pvc.storage") if point.dist.name == "pvc-dir"} == {"dir"}
    assert MANIFEST.storage == ("dir",)
    for target in (MANIFEST.config, *MANIFEST.validators.values()):
        module, _, name = target.partition(":")
        assert getattr(importlib.import_module(module), name)


def test_the_manifest_imports_neither_driver_nor_libraries():
    code = "import sys, pvc_dir.manifest; print(*(m for m in sys.modules if m.startswith(('pvc_dir.', 'pluggy', 'kazoo'))))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split() == ["pvc_dir.manifest"]


def test_the_section_is_decoded_strictly():
    assert decode({"roots": ["/srv"]}, DirConfig, "plugins.dir").roots == ("/srv",)
    with pytest.raises(ConfigError, match="qemu_img"):
        decode({"qemu-img": "qemu-img"}, DirConfig, "plugins.dir")
