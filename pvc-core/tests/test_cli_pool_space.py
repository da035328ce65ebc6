"""`pvc storage volume ...` in a pool without room: one line with the numbers, and what `--force` says."""

import pytest

from pvc_core.model.storage import PoolSpec, PoolStatus, PoolUsage
from pvc_core.store import keys
from pvc_core.store.api import Create
from pvc_core.store.documents import create
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_node

GIB = 1 << 30
POOL = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def tree() -> MemoryTree:
    return MemoryTree()


@pytest.fixture
def pvc(tree: MemoryTree) -> CommandLine:
    """A cluster with pool ``ssd`` of 100 GiB, 60 of them used, and volume ``ssd/web`` of 4 GiB."""
    command = CommandLine(tree)
    add_node(tree, "node1")
    usage = PoolUsage(total_bytes=100 * GIB, used_bytes=60 * GIB, free_bytes=40 * GIB)
    tree.connect().commit(
        create(keys.pool_spec(POOL), PoolSpec(id=POOL, name="ssd", driver="dir", node="node1")),
        create(keys.pool_status(POOL), PoolStatus(id=POOL, observed_generation=1, created=True, usage=usage)),
        Create(keys.name("pool", "ssd"), POOL.encode()),
        Create(keys.ref("pool", POOL), b""),
    )
    assert command("storage", "volume", "add", "ssd/web", "4G", "--no-wait").status == 0
    return command


COMMANDS = [
    ("add", "ssd/a", "20G"),
    ("resize", "ssd/web", "24G"),
    ("import", "ssd/a", "/srv/a.img"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_exceeds_the_limit_is_one_line_with_its_numbers_and_changes_nothing(
    pvc: CommandLine, tree: MemoryTree, command: tuple[str, ...]
) -> None:
    limit = ("cluster", "settings", "--pool-full-percent", "64")
    assert pvc(*limit).status == 0
    before = tree.dump()
    ran = pvc("storage", "volume", *command)
    (line,) = ran.err.splitlines()
    assert (ran.status, ran.out) == (1, "")
    assert line.startswith("pvc: volume ssd/")
    assert "more than 64 %: of its 100 GiB, 60 GiB are used and 40 GiB free, 4 GiB more are promised" in line
    assert "use --force and watch it" in line
    assert tree.dump() == before


def test_a_clone_that_exceeds_the_limit_is_refused(pvc: CommandLine, tree: MemoryTree) -> None:
    assert pvc("cluster", "settings", "--pool-full-percent", "67").status == 0
    before = tree.dump()
    ran = pvc("storage", "volume", "clone", "ssd/web", "b")
    assert "volume ssd/b of 4 GiB would let pool ssd become 68 % full" in ran.err
    assert (ran.status, tree.dump()) == (1, before)


@pytest.mark.parametrize("command", [*COMMANDS[:2], ("clone", "ssd/web", "b")], ids=" ".join)
def test_force_does_it_and_warns(pvc: CommandLine, command: tuple[str, ...]) -> None:
    assert pvc("cluster", "settings", "--pool-full-percent", "60").status == 0
    ran = pvc("storage", "volume", *command, "--force", "--no-wait")
    assert ran.status == 0
    assert ran.err.startswith("pvc: warning: pool ssd becomes ")
    assert "more than 60 %" in ran.err
    (line,) = ran.out.splitlines()
    assert " will be " in line


def test_a_forced_import_warns(pvc: CommandLine) -> None:
    assert pvc("cluster", "settings", "--pool-full-percent", "60").status == 0
    ran = pvc("storage", "volume", "import", "ssd/b", "/srv/a.img", "--force", "--no-wait")
    assert (ran.status, "pool ssd becomes 64 % full" in ran.err) == (0, True)


def test_force_that_was_not_needed_says_nothing(pvc: CommandLine) -> None:
    ran = pvc("storage", "volume", "add", "ssd/a", "1G", "--force", "--no-wait")
    assert (ran.status, ran.err) == (0, "")


def test_what_is_not_free_is_refused_also_by_force(pvc: CommandLine, tree: MemoryTree) -> None:
    before = tree.dump()
    ran = pvc("storage", "volume", "add", "ssd/a", "41G", "--force")
    assert ran.err == (
        "pvc: volume ssd/a of 41 GiB does not fit into pool ssd: 41 GiB are needed and 40 GiB of its 100 GiB are free; "
        "remove volumes or snapshots, or enlarge the pool\n"
    )
    assert (ran.status, tree.dump()) == (1, before)


@pytest.mark.parametrize("percent", ["0", "101", "many"])
def test_a_limit_that_is_no_percentage_is_refused(pvc: CommandLine, tree: MemoryTree, percent: str) -> None:
    before = tree.dump()
    ran = pvc("cluster", "settings", "--pool-full-percent", percent)
    assert (ran.status, len(ran.err.splitlines()), tree.dump()) == (2, 1, before)
