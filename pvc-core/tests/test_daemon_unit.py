"""The systemd unit agrees with the daemon it starts."""

import configparser
from pathlib import Path

import pytest

from pvc_core.config.environment import NODE_FILE
from pvc_core.config.schema import NodeSection
from pvc_core.node.daemon import STOP_S
from pvc_core.node.main import EXIT_CONFIG

UNIT = Path(__file__).parents[1] / "systemd/pvcnoded.service"


@pytest.fixture
def service():
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(UNIT)
    return parser["Service"]


def test_the_unit_reads_the_default_configuration(service):
    assert service["ExecStart"] == f"pvcnoded --config {NODE_FILE}"


def test_a_wrong_configuration_is_not_tried_again(service):
    assert service["RestartPreventExitStatus"] == str(EXIT_CONFIG)


def test_the_service_manager_is_told_and_watches(service):
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 30


def test_an_orderly_stop_has_its_time(service):
    assert int(service["TimeoutStopSec"]) > STOP_S


def test_the_run_directory_outlives_a_restart(service):
    assert NodeSection(address="x").run_directory == f"/run/{service['RuntimeDirectory']}"
    assert service["RuntimeDirectoryPreserve"] == "yes"
