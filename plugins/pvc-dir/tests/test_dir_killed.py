"""A daemon killed before any change it makes to the file system: the next try, on another node, ends well.

The call runs in a child process that dies, as by SIGKILL, before its n-th change; n grows until it survives.
"""

import os
import sys
from collections.abc import Callable

import pytest

MIB = 1024 * 1024
VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"
_KILLED = 99
_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "subprocess.Popen"}


def _die_at(count: int) -> None:
    left = count

    def watch(event: str, arguments: tuple) -> None:
        nonlocal left
        changes = event in _CHANGES or (event == "open" and str(arguments[1]) in {"x", "xb", "r+b", "w", "wb"})
        if changes:
            left -= 1
            if left < 0:
                os._exit(_KILLED)

    sys.addaudithook(watch)


def _survives(call: Callable[[], object], count: int) -> bool:
    """Run a call in a child that dies before change number ``count``; return whether it got to its end."""
    child = os.fork()
    if child == 0:
        try:
            _die_at(count)
            call()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _KILLED), "the call failed by itself"
    return status == 0


def _prepare(site) -> None:
    driver = site.driver()
    driver.pool_ensure(site.pool)
    driver.volume_create(site.ref("web1"), 2 * MIB, "")
    site.write("web1", b"state 1")
    driver.snapshot_create(site.ref("web1"), "s1")
    site.write("web1", b"state 2")
    driver.snapshot_create(site.ref("web1"), "s2")
    site.write("web1", b"state 3")
    (site.directory / "image.raw").write_bytes(b"an image".ljust(MIB, b"\0"))


def _create(d, s):
    d.volume_create(s.ref("new"), MIB, "")


def _create_qcow2(d, s):
    d.volume_create(s.ref("new"), MIB, "qcow2")


def _import(d, s):
    if "new" not in {info.name for info in d.volume_list(s.pool)}:
        d.volume_import(s.ref("new"), str(s.directory / "image.raw"), "raw", lambda _: False)


def _copy(d, s):
    d.volume_clone(s.ref("web1"), "s1", s.ref("new"), full_copy=True)


def _clone(d, s):
    d.volume_clone(s.ref("web1"), "s1", s.ref("new"), full_copy=False)


def _clone_active(d, s):
    d.volume_clone(s.ref("web1"), "", s.ref("new"), full_copy=False)


def _delete(d, s):
    d.volume_delete(s.ref("web1"))


def _rename(d, s):
    d.volume_rename(s.ref("web1"), "web2")


def _resize(d, s):
    d.volume_resize(s.ref("web1"), 5 * MIB)


def _snapshot(d, s):
    d.snapshot_create(s.ref("web1"), "s3")


def _unsnapshot_first(d, s):
    d.snapshot_delete(s.ref("web1"), "s1")


def _unsnapshot_last(d, s):
    d.snapshot_delete(s.ref("web1"), "s2")


def _roll_back(d, s):
    d.snapshot_rollback(s.ref("web1"), "s1", lambda _: False)


def _attach(d, s):
    d.disk_attach(s.ref("web1"), VM, epoch=1, incoming=False)


CASES: dict[str, tuple[Callable, dict[str, bytes]]] = {
    "create": (_create, {"web1": b"state 3", "new": bytes(7)}),
    "create-qcow2": (_create_qcow2, {"web1": b"state 3", "new": bytes(7)}),
    "import": (_import, {"web1": b"state 3", "new": b"an imag"}),
    "copy": (_copy, {"web1": b"state 3", "new": b"state 1"}),
    "clone": (_clone, {"web1": b"state 3", "new": b"state 1"}),
    "clone-active": (_clone_active, {"web1": b"state 3", "new": b"state 3"}),
    "delete": (_delete, {}),
    "rename": (_rename, {"web2": b"state 3"}),
    "resize": (_resize, {"web1": b"state 3"}),
    "snapshot": (_snapshot, {"web1": b"state 3"}),
    "delete-first-snapshot": (_unsnapshot_first, {"web1": b"state 3"}),
    "delete-last-snapshot": (_unsnapshot_last, {"web1": b"state 3"}),
    "roll-back": (_roll_back, {"web1": b"state 1"}),
    "attach": (_attach, {"web1": b"state 3"}),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_a_killed_call_is_finished_by_the_next(tmp_path, case, make_site):
    call, expected = CASES[case]
    for count in range(200):
        directory = tmp_path / str(count)
        directory.mkdir()
        site = make_site(directory)
        _prepare(site)
        survived = _survives(lambda site=site: call(site.driver("node1"), site), count)
        second = "node1" if case == "attach" else "node2"
        call(site.driver(second), site)
        _check(site, expected)
        if survived:
            assert count > 3, "the call changed next to nothing: is the audit hook blind?"
            return
    pytest.fail("the call never ends")


def _check(site, expected: dict[str, bytes]) -> None:
    driver = site.driver("node3")
    driver.pool_ensure(site.pool)
    assert {info.name for info in driver.volume_list(site.pool)} == set(expected)
    for name, contents in expected.items():
        assert site.head(name, 7) == contents
        if not site.state(name).holders:
            # The next change clears away what the killed one left.
            driver.snapshot_create(site.ref(name), "later")
    assert site.leftovers() == []
    clones = [name for name in expected if site.state(name).parent is not None]
    for name in [*clones, *(n for n in expected if n not in clones)]:
        driver.disk_detach(site.ref(name), VM)
        site.driver("node1").disk_detach(site.ref(name), VM)
        driver.volume_delete(site.ref(name))
    assert site.files() == set()
    driver.pool_delete(site.pool)
    assert list(site.root.iterdir()) == []
