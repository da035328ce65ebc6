"""Words completed by the shell, the names of the cluster's objects included."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from pvc_core.cli.main import build
from pvc_core.cli.session import Session
from pvc_core.client.local import Client
from pvc_core.store import keys
from pvc_core.store.api import Create
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_network, add_node

SHELLS = ["bash", "zsh", "fish"]


@pytest.fixture
def tree() -> MemoryTree:
    tree = MemoryTree()
    pvc = CommandLine(tree)
    add_node(tree, "node1")
    add_node(tree, "node2")
    add_network(tree, "lan")
    for name in ("web1", "web2", "db"):
        pvc("vm", "define", "-", input=f"name: {name}\nmemory: 1G\n")
    tree.connect().commit(Create(keys.name("volume", "ssd:web1"), b"x"), Create(keys.name("pool", "ssd"), b"y"))
    return tree


def complete(tree: MemoryTree, *words: str) -> list[str]:
    session = Session(connect=lambda _config, timeout_s=None: Client(tree.connect))
    found = ShellComplete(build(), {"obj": session}, "pvc", "_PVC_COMPLETE").get_completions(
        list(words[:-1]), words[-1]
    )
    return [item.value for item in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["v"], ["vm"]),
        (["vm", "st"], ["start", "stop"]),
        (["vm", "info", ""], ["db", "web1", "web2"]),
        (["vm", "info", "web"], ["web1", "web2"]),
        (["vm", "start", "web1", "--node", ""], ["node1", "node2"]),
        (["vm", "start", "web1", "--no"], ["--node", "--no-wait"]),
        (["node", "flush", "node"], ["node1", "node2"]),
        (["network", "info", ""], ["lan"]),
        (["storage", "volume", "info", "s"], ["ssd/web1"]),
        (["storage", "pool", "info", ""], ["ssd"]),
        (["vm", "list", "--format", "j"], ["json"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_words_are_completed_from_commands_and_the_cluster(
    tree: MemoryTree, words: list[str], expected: list[str]
) -> None:
    assert sorted(complete(tree, *words)) == sorted(expected)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_names_its_shells_entry(shell: str) -> None:
    ran = CommandLine(None)("completion", shell)
    assert (ran.status, ran.err) == (0, "")
    assert f"_PVC_COMPLETE={shell}_complete" in ran.out


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_the_shell_accepts_the_script(shell: str) -> None:
    script = CommandLine(None)("completion", shell).out
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=30)


def test_an_unknown_login_shell_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/dash")
    ran = CommandLine(None)("completion")
    assert (ran.status, ran.err) == (2, "pvc: name your shell: bash, zsh, fish\n")
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert "zsh_complete" in CommandLine(None)("completion").out


def test_names_of_a_cluster_that_does_not_answer_are_given_up_quickly_and_silently(tmp_path: Path) -> None:
    file = tmp_path / "pvc.yml"
    file.write_text("cluster:\n  coordinators: [{name: n1, address: 127.0.0.1}]\n  zookeeper: {port: 1}\n")
    environment = os.environ | {
        "_PVC_COMPLETE": "bash_complete",
        "COMP_WORDS": f"pvc --config {file} vm info ",
        "COMP_CWORD": "5",
    }
    start = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "pvc_core.cli"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert time.monotonic() - start < 20
    assert (ran.stdout.strip(), ran.stderr) == ("", "")
