"""Configuration files: lines in messages, YAML's traps, the environment, clients and nodes."""

import re
import socket
import subprocess
import sys
import textwrap

import pytest

from pvc_core.config.environment import CLIENT_FILE, NODE_FILE, VARIABLES, client_file, node_file
from pvc_core.config.load import load_client, load_client_config, load_node_config, node_info, role
from pvc_core.config.source import parse, parse_all
from pvc_core.plugin.errors import ConfigError

NODE = """\
    cluster:
      coordinators:
        - {name: node1, address: 10.0.0.1}
    node:
      name: node1
      address: 10.0.0.1
    plugins:
      dir:
        colour: red
    """


@pytest.fixture
def file(tmp_path):
    class File:
        path = str(tmp_path / "pvc.yml")

        def write(self, text: str) -> str:
            (tmp_path / "pvc.yml").write_text(textwrap.dedent(text))
            return self.path

        def refused(self, text: str, load=load_node_config) -> list[str]:
            with pytest.raises(ConfigError) as caught:
                load(self.write(text))
            return str(caught.value).replace(f"{self.path}:", "FILE:").splitlines()

    return File()


def test_a_node(file):
    config = load_node_config(file.write(NODE), {})
    assert config.node.name == "node1"
    assert config.timing.lease == 10
    assert config.plugins == {"dir": {"colour": "red"}}, "left to the plugin's own schema"
    assert role(config) == "coordinator"
    info = node_info(config)
    assert (info.name, info.role, info.coordinators) == ("node1", "coordinator", ("node1",))


def test_a_hypervisor_is_a_node_that_is_no_coordinator(file):
    config = load_node_config(
        file.write(NODE.replace("name: node1\n      address: 10.0.0.1", "name: hv9\n      address: 10.0.0.9"))
    )
    assert role(config) == "hypervisor"


def test_the_name_is_the_host_name_when_none_is_given(file):
    text = NODE.replace("      name: node1\n", "").replace("      address: 10.0.0.1\n", "      address: 10.0.0.77\n")
    assert load_node_config(file.write(text)).node.name == socket.gethostname().partition(".")[0]


def test_the_environment_overrides_directories(file):
    environment = {"PVC_STATE_DIRECTORY": "/s", "PVC_RUN_DIRECTORY": "/r", "PVC_CONSOLE_DIRECTORY": "/c"}
    node = load_node_config(file.write(NODE), environment).node
    assert (node.state_directory, node.run_directory, node.console_directory) == ("/s", "/r", "/c")
    assert environment.keys() <= VARIABLES.keys()


def test_files_are_found_by_option_environment_and_default():
    assert node_file("x", {"PVC_NODE_CONFIG": "y"}) == "x"
    assert node_file(None, {"PVC_NODE_CONFIG": "y", "PVC_CONFIG": "z"}) == "y"
    assert node_file(None, {}) == NODE_FILE
    assert client_file("x", {"PVC_CONFIG": "y"}) == "x"
    assert client_file(None, {"PVC_CONFIG": "y"}) == "y"
    assert client_file(None, {}) in (CLIENT_FILE, NODE_FILE)


def test_a_client_reads_its_own_file_or_a_nodes(file):
    client = load_client_config(
        file.write("cluster:\n  name: lab\n  coordinators: [{name: a, address: b}]\nnetwork_namespace: ns1\n")
    )
    assert (client.cluster.name, client.network_namespace) == ("lab", "ns1")
    path = file.write(NODE.replace("    plugins:", "    nonsense: 1\n    plugins:"))
    assert load_client_config(path).cluster.coordinators[0].name == "node1", (
        "a node's other sections are not its business"
    )
    assert load_client(path).cluster.name == "pvc"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "address: 10.0.0.1\nplugins",
            "adress: 10.0.0.1\nplugins",
            [
                "FILE:4: node: the key 'address' is missing: expected text",
                "FILE:6: node.adress: unknown key; did you mean 'address'?",
            ],
        ),
        (
            "- {name: node1,",
            "- {name: [node1],",
            ["FILE:3: cluster.coordinators[0].name: expected text, found a list of 1"],
        ),
        (
            "plugins:\n",
            "timing: {lease: 0}\nplugins:\n",
            ["FILE:7: timing.lease: expected a number above 0, found the number 0"],
        ),
        (
            "plugins:\n",
            "timing:\n  lease: soon\nplugins:\n",
            ["FILE:8: timing.lease: expected a number above 0, found the text 'soon'"],
        ),
        ("plugins:\n", "plugin:\n", ["FILE:7: plugin: unknown key; did you mean 'plugins'?"]),
        (
            "  dir:\n    colour: red",
            "  dir: yes",
            ["FILE:8: plugins.dir: expected a mapping or nothing, found the text 'yes'"],
        ),
        ("  dir:\n", "  'd/r':\n", ["FILE:8: plugins.d/r: a plugin's name is one word of letters, digits and '-'"]),
        ("name: node1\n", "name: node_1!\n", None),
    ],
)
def test_mistakes_are_told_with_their_line(file, old, new, says):
    text = textwrap.dedent(NODE)
    assert old in text
    lines = file.refused(text.replace(old, new))
    if says is None:
        assert lines[0].startswith("FILE:5: node.name: the name 'node_1!' is not a valid name")
    else:
        assert [line.replace(" or nothing", "") for line in lines] == [line.replace(" or nothing", "") for line in says]


def test_coordinators_are_1_3_or_5(file):
    for number in range(1, 8):
        members = "\n".join(f"    - {{name: n{i}, address: 10.0.0.{i}}}" for i in range(1, number + 1))
        text = f"cluster:\n  coordinators:\n{members}\nnode: {{name: hv, address: 10.0.1.1}}\n"
        if number in (1, 3, 5):
            assert len(load_node_config(file.write(text)).cluster.coordinators) == number
        else:
            [line] = file.refused(text)
            assert line.startswith(f"FILE:2: cluster.coordinators: expected 1, 3 or 5 coordinators, found {number}")


def test_names_and_addresses_of_coordinators_are_unique(file):
    text = """\
        cluster:
          coordinators:
            - {name: a, address: 10.0.0.1}
            - {name: b, address: 10.0.0.2}
            - {name: a, address: 10.0.0.2}
        node: {name: hv, address: 10.0.1.1}
        """
    assert file.refused(text) == [
        "FILE:5: cluster.coordinators[2].name: coordinator 1 has the name 'a' too",
        "FILE:5: cluster.coordinators[2].address: coordinator 2 has the address '10.0.0.2' too",
    ]


def test_a_nodes_address_agrees_with_the_coordinators(file):
    other = NODE.replace("      address: 10.0.0.1\n", "      address: 10.0.0.2\n")
    assert "this node's entry in cluster.coordinators says '10.0.0.1'" in file.refused(other)[0]
    stolen = NODE.replace("      name: node1\n", "      name: hv1\n")
    assert "is the address of coordinator 'node1', and this node is 'hv1'" in file.refused(stolen)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n", "expected a mapping, found a list of 1"),
        ("a: [1, 2\n", "this is not valid YAML: "),
        ("a: 1\nb:\n\t- 1\n", "this is not valid YAML: "),
        ("a: 1\na: 2\n", "FILE:2: found the key 'a' a second time (first in line 1): remove one"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "FILE:4: found the key 'b' a second time (first in line 2)"),
        ("a: !!python/object:os.system x\n", "the tag 'python/object:os.system': plain values only"),
        ("a: &x {b: *x}\n", "FILE:1: found an alias to the mapping or list that it stands in"),
        ("base: &b {x: 1}\na:\n  <<: *b\n", "FILE:3: found a merge key (<<): write the keys out"),
        ("[a]: 1\n", "FILE:1: found a mapping or list as key"),
        ("a: 1\n---\nb: 2\n", "this is not valid YAML"),
    ],
)
def test_files_that_are_no_configuration(file, text, says):
    assert says in "\n".join(file.refused(text))


def test_yaml_errors_have_a_line(file):
    assert re.match(r"FILE:[23]: this is not valid YAML: ", file.refused("a: 1\nb: [1\nc: 2\n")[0])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*nothing.yml: No such file"):
        load_node_config(str(tmp_path / "nothing.yml"))
    with pytest.raises(ConfigError, match="Is a directory"):
        load_client_config(str(tmp_path))
    (tmp_path / "bin").write_bytes(b"a: \x80\x00")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_node_config(str(tmp_path / "bin"))
    (tmp_path / "big").write_bytes(b"a" * 1100000)
    with pytest.raises(ConfigError, match="larger than"):
        load_node_config(str(tmp_path / "big"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("0600", "0600"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0x1f", 31),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("'12'", "12"),
        ("10.0.0.1", "10.0.0.1"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse(f"a: {text}\n", "f").value["a"]
    assert found == value
    assert type(found) is type(value)


def test_anchors_are_made_once():
    depth = 40
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, depth)]
    value = parse("\n".join(lines), "bomb").value
    assert value["a39"][0] is value["a39"][1]


def test_several_documents():
    first, second = parse_all("a: 1\n---\n---\nb: x\nb2: y\n", "f")
    assert (first.value, second.value) == ({"a": 1}, {"b": "x", "b2": "y"})
    assert second.line(("b2",)) == 5


def test_reading_a_clients_file_imports_little(file):
    path = file.write(NODE)
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pvc_core.config.load import load_client; load_client(sys.argv[1]); print(*sys.modules)",
            path,
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    assert not set(said.stdout.split()) & {
        "pluggy",
        "stevedore",
        "kazoo",
        "click",
        "importlib.metadata",
        "pvc_core.plugin.specs.storage",
    }
