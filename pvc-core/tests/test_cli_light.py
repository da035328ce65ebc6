"""`pvc --help` stays light, and a broken plugin costs its own command only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from pvc_core.cli.lazy import LazyGroup, Stub
from pvc_core.cli.main import build
from pvc_core.cli.plugins import PluginCommand
from pvc_core.cli.table import CORE, Entry
from pvc_core.plugin.manifest import CommandSpec
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_node

HEAVY = {"kazoo", "libvirt", "pluggy", "puresasl", "rados", "rbd", "rich", "ssl", "stevedore", "yaml"}
MOST_MODULES = 220

COUNT = """
import sys
bare = set(sys.modules)
sys.argv = ["pvc", *sys.argv[1:]]
from pvc_core.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("\\nMODULES", *sorted(set(sys.modules) - bare))
"""


def run(*argv: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PVC_")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def entries(parents: tuple[str, ...] = (), table: tuple[Entry, ...] = CORE) -> list[tuple[tuple[str, ...], Entry]]:
    found = []
    for entry in table:
        found.append(((*parents, entry.name), entry))
        found += entries((*parents, entry.name), entry.commands)
    return found


GROUPS = [path for path, entry in entries() if entry.commands]
COMMANDS = [(path, entry) for path, entry in entries() if not entry.commands]


@pytest.mark.parametrize("words", [(), *GROUPS], ids=" ".join)
def test_help_imports_few_modules_and_no_heavy_one(words: tuple[str, ...]) -> None:
    ran = run("-c", COUNT, *words, "--help")
    assert ran.returncode == 0, ran.stderr
    modules = ran.stdout.rpartition("\nMODULES ")[2].split()
    assert HEAVY.isdisjoint(module.partition(".")[0] for module in modules)
    assert len(modules) < MOST_MODULES


@pytest.mark.parametrize(("path", "entry"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_of_the_table_is_there(path: tuple[str, ...], entry: Entry) -> None:
    command = Stub(entry.name, entry.help, entry.target).load()
    assert command.name == path[-1]
    assert command.help
    assert entry.help.endswith(".")
    assert len(entry.help) <= 72


def test_help_lists_all_groups_and_says_what_they_are_for() -> None:
    ran = CommandLine(None)("--help")
    assert ran.status == 0
    for entry in CORE:
        assert f"  {entry.name} " in ran.out
        assert entry.help in ran.out


def test_a_group_without_a_command_shows_its_help() -> None:
    ran = CommandLine(None)("vm")
    assert ran.status == 2
    assert "define" in ran.err


def distribution(path: Path, name: str, module: str) -> Path:
    """Install a plugin's distribution into a directory: its metadata and the module with its manifest."""
    info = path / f"pvc_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pvc-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pvc.plugin]\n{name} = pvc_{name}:MANIFEST\n")
    (path / f"pvc_{name}.py").write_text(module)
    return path


MANIFEST = """
from pvc_core.plugin import CommandSpec, Manifest
MANIFEST = Manifest(
    name="{name}", summary="for a test", api=(1, 0),
    commands=(CommandSpec(name="{name}", target="{target}", help="Do it.", extends="{extends}"),),
)
"""


@pytest.mark.parametrize("module", ["import no_such_module", "raise SystemExit(3)", "assert False", "MANIFEST = 3"])
def test_a_broken_manifest_is_one_warning_and_everything_else_works(tmp_path: Path, module: str) -> None:
    distribution(tmp_path, "broken", module)
    ran = run("-m", "pvc_core.cli", "vm", "--help", path=tmp_path)
    assert ran.returncode == 0
    assert "define" in ran.stdout
    warnings = [line for line in ran.stderr.splitlines() if "broken" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("pvc: warning: plugin 'broken' is left out: ")
    assert "pvc plugin doctor broken" in warnings[0]


def test_a_plugins_command_is_imported_only_when_it_is_called(tmp_path: Path) -> None:
    distribution(tmp_path, "extra", MANIFEST.format(name="extra", target="pvc_extra_cli:command", extends="vm"))
    (tmp_path / "pvc_extra_cli.py").write_text(
        "import click\n@click.command()\n@click.argument('word')\ndef command(word):\n    click.echo(f'did {word}')\n"
    )
    listed = run("-c", COUNT, "vm", "--help", path=tmp_path)
    assert "extra" in listed.stdout
    assert "pvc_extra_cli" not in listed.stdout.split()
    ran = run("-m", "pvc_core.cli", "vm", "extra", "it", path=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "did it\n")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("assert False, 'never'", "AssertionError: never"),
        ("command = 3", "TypeError: pvc_sick:command is not a click command but a int"),
        ("", "AttributeError: module 'pvc_sick' has no attribute 'command'"),
    ],
)
def test_a_broken_command_of_a_plugin_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    (tmp_path / "pvc_sick.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pvc_sick", raising=False)
    spec = CommandSpec(name="sick", target="pvc_sick:command", help="Be sick.")
    ran = CommandLine(None, plugins=[PluginCommand("sick", spec)])("sick")
    monkeypatch.delitem(sys.modules, "pvc_sick", raising=False)
    assert ran.status == 1
    assert (
        ran.err
        == f"pvc: the command 'sick' of plugin 'sick' cannot be used here: {said}; run: pvc plugin doctor sick\n"
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            CommandSpec(name="vm", target="x:y", help="Mine."),
            "its command 'vm' is left out, because that name is taken",
        ),
        (CommandSpec(name="x", extends="nowhere", target="x:y", help="Mine."), "which is no group of pvc"),
        (CommandSpec(name="list", extends="vm", target="x:y", help="Mine."), "that name is taken"),
    ],
)
def test_core_wins_over_a_plugins_command(spec: CommandSpec, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = build([PluginCommand("greedy", spec)])
    assert said in capsys.readouterr().err
    vm = root.commands["vm"]
    assert isinstance(vm, LazyGroup)
    assert isinstance(vm.commands["list"], Stub)
    assert not vm.commands["list"].plugin


def test_a_wrong_word_gets_the_nearest_command() -> None:
    ran = CommandLine(None)("vm", "lst")
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1
    assert "'list'" in ran.err


def test_completing_a_commands_word_needs_no_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pvc_core.cli.commands.vm_show", None)
    words = ShellComplete(build(), {}, "pvc", "_PVC_COMPLETE").get_completions(["vm"], "li")
    assert [item.value for item in words] == ["list"]


PEERS = """
import click
from pvc_core.plugin.cli import Client, Column, Output, pass_client, pass_output, session

@click.command()
@click.argument("word", default="")
@pass_output
@pass_client
def command(client: Client, out: Output, word: str) -> None:
    columns = [Column("Name", lambda row: row.name), Column("Daemon", lambda row: row.daemon, right=True)]
    out.listing(client.call("node.list", name=word), columns, empty="nobody")
    session().confirm("Go on?", yes=True)
    out.done("it is done", word=word)
"""


def test_a_plugins_command_gets_the_cluster_and_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pvc_peers.py").write_text(PEERS)
    monkeypatch.syspath_prepend(tmp_path)
    tree = MemoryTree()
    spec = CommandSpec(name="peers", extends="network", target="pvc_peers:command", help="List peers.")
    pvc = CommandLine(tree, plugins=[PluginCommand("peers", spec)])
    add_node(tree, "node1")
    assert pvc("network", "peers").out == "NAME    DAEMON\nnode1  running\nit is done\n"
    assert '"name": "node1"' in pvc("--format", "json", "network", "peers").out
    ran = pvc("network", "peers", "(")
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)
    ran = pvc("network", "peers", "--colour")
    assert "it stands before the command" in ran.err
