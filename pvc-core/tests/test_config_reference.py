"""The sample and the reference are complete, current, and true."""

import re
from pathlib import Path

import msgspec

import pvc_core
from pvc_core.config.environment import VARIABLES
from pvc_core.config.load import load_node_config
from pvc_core.config.reference import render, settings
from pvc_core.config.sample import SAMPLE
from pvc_core.config.schema import ClientConfig, NodeConfig
from pvc_core.config.source import parse
from pvc_core.plugin.config import decode

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
ALL_ON = re.sub(r"(?m)^( *)#(?=\S)", r"\1", SAMPLE)
"""The sample with every setting that is shown at its default switched on."""


def test_the_sample_is_a_valid_configuration(tmp_path):
    (tmp_path / "pvcnoded.yml").write_text(SAMPLE)
    config = load_node_config(str(tmp_path / "pvcnoded.yml"), {})
    assert len(config.cluster.coordinators) == 3
    assert list(config.plugins) == ["dir", "bridge"]


def test_settings_that_the_sample_shows_are_at_their_defaults():
    as_is = decode(parse(SAMPLE, "sample").value, NodeConfig)
    all_on = decode(parse(ALL_ON, "sample").value, NodeConfig)
    zookeeper = msgspec.structs.replace(all_on.cluster.zookeeper, auth=None, tls=None)
    cluster = msgspec.structs.replace(all_on.cluster, zookeeper=zookeeper)
    assert msgspec.structs.replace(all_on, cluster=cluster) == as_is


def test_the_sample_shows_every_setting():
    source = parse(ALL_ON, "sample")

    def keys(value, prefix=""):
        if isinstance(value, list):
            value, prefix = value[0], prefix[:-1] + "[]."
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{prefix}{key}"
                if not prefix.startswith("plugins"):
                    yield from keys(inner, f"{prefix}{key}.")

    shown = {key for key in keys(source.value) if not key.startswith("plugins.")}
    assert shown == {setting.key for setting in settings(NodeConfig)}


def test_every_setting_is_described():
    for schema in (NodeConfig, ClientConfig):
        for setting in settings(schema):
            assert setting.description.endswith("."), setting.key


def test_the_reference_is_current():
    assert PAGE.read_text() == render(), "run python -m pvc_core.config.reference > docs/configuration.md"


def test_settings_say_what_is_expected_and_the_default():
    found = {setting.key: setting for setting in settings(NodeConfig)}
    assert found["cluster.zookeeper.port"].expected == "a whole number from 1 to 65535"
    assert found["cluster.zookeeper.port"].default == "2181"
    assert found["cluster.coordinators[].name"].default == ""
    assert found["node.memory_mib"].default == "none"
    assert found["cluster.zookeeper.tls.ca"].description == "File with the authority's certificate."


def test_every_environment_variable_of_core_is_documented():
    source = Path(pvc_core.__file__).parent
    read = {
        name
        for file in source.rglob("*.py")
        if "testkit" not in file.parts
        for name in re.findall(r"[\"'](PVC_[A-Z_]+)[\"']", file.read_text())
    }
    assert read == set(VARIABLES)
