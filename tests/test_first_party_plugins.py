"""The plugins of this repository are as the doctor wants plugins to be, and the sample configuration loads them."""

from importlib.metadata import entry_points

import pytest

from pvc_core.config.sample import SAMPLE
from pvc_core.runtime.check import check_config
from pvc_core.runtime.doctor import examine

OURS = sorted(entry.name for entry in entry_points().select(group="pvc.plugin") if entry.module.startswith("pvc_"))


@pytest.mark.parametrize("name", OURS)
def test_the_doctor_finds_nothing(name):
    assert examine(name) == []


def test_the_sample_enables_plugins_that_are_there(tmp_path):
    assert {"bridge", "dir"} <= set(OURS)
    (tmp_path / "pvcnoded.yml").write_text(SAMPLE)
    assert check_config(str(tmp_path / "pvcnoded.yml"), {}) == []
