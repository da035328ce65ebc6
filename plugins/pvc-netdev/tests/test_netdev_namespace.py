"""Named network namespaces: also half-made ones, missing ones, and from several threads."""

import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pvc_core.plugin import DriverError
from pvc_netdev import namespace
from pvc_netdev.links import Links

pytestmark = pytest.mark.real


def current():
    return Path("/proc/thread-self/ns/net").stat().st_ino


@pytest.fixture
def prefix():
    found = f"nd{uuid.uuid4().hex[:8]}-"
    yield found
    for name in namespace.names(found):
        namespace.remove(name)


def test_namespace_is_made_kept_listed_and_removed(prefix):
    name, before = f"{prefix}a", current()
    assert not namespace.exists(name)
    namespace.create(name)
    assert namespace.exists(name)
    with Links(name) as links:
        links.add_bridge("kept")
    namespace.create(name)
    with Links(name) as links:
        assert links.get("kept")
    namespace.create(f"{prefix}b")
    assert namespace.names(prefix) == [name, f"{prefix}b"]
    assert current() == before
    for _ in range(2):
        namespace.remove(name)
    assert namespace.names(prefix) == [f"{prefix}b"]


def test_other_programs_know_the_namespace(prefix):
    namespace.create(f"{prefix}a")
    assert f"{prefix}a" in subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
    subprocess.run(["ip", "netns", "exec", f"{prefix}a", "true"], check=True)
    subprocess.run(["ip", "netns", "delete", f"{prefix}a"], check=True)
    assert not namespace.exists(f"{prefix}a")


def test_half_of_a_namespace_is_none_and_is_finished(prefix):
    name = f"{prefix}a"
    namespace.create(f"{prefix}other")  # the directory is there
    (namespace.NAMED / name).touch()
    assert not namespace.exists(name)
    assert name in namespace.names(prefix)
    with pytest.raises(DriverError, match=f"there is no network namespace {name}"), namespace.entered(name):
        pass
    namespace.create(name)
    assert namespace.exists(name)


def test_half_of_a_namespace_is_removed(prefix):
    namespace.create(f"{prefix}other")
    (namespace.NAMED / f"{prefix}a").touch()
    namespace.remove(f"{prefix}a")
    assert namespace.names(prefix) == [f"{prefix}other"]


def test_thread_enters_and_comes_back_alone(prefix):
    name, before = f"{prefix}a", current()
    namespace.create(name)
    elsewhere = []
    with namespace.entered(name):
        assert current() != before
        child = subprocess.run(["readlink", "/proc/self/ns/net"], check=True, capture_output=True, text=True).stdout
        assert str(current()) in child
        thread = threading.Thread(target=lambda: elsewhere.append(namespace.exists(name)))
        thread.start()
        thread.join()
    assert elsewhere == [True]
    assert current() == before
    with pytest.raises(ZeroDivisionError), namespace.entered(name):
        raise ZeroDivisionError
    assert current() == before


def test_namespaces_are_entered_within_each_other(prefix):
    before = current()
    for name in "ab":
        namespace.create(prefix + name)
    with namespace.entered(f"{prefix}a"):
        outer = current()
        with namespace.entered(f"{prefix}b"):
            assert current() not in (before, outer)
        assert current() == outer
    assert current() == before


def test_missing_namespace_is_not_entered(prefix):
    with (
        pytest.raises(DriverError, match=f"there is no network namespace {prefix}none"),
        namespace.entered(f"{prefix}none"),
    ):
        pytest.fail("it was entered")
    with pytest.raises(DriverError, match="no network namespace"):
        namespace.opened(f"{prefix}none")


def test_many_are_made_at_the_same_time(prefix):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: namespace.create(f"{prefix}{number}"), range(16)))
    assert len(namespace.names(prefix)) == 16
    inodes = set()
    for name in namespace.names(prefix):
        with namespace.entered(name):
            inodes.add(current())
    assert len(inodes) == 16


def test_name_that_cannot_be_is_told(prefix):
    with pytest.raises(DriverError, match=r"looking for network namespace .*: File name too long"):
        namespace.create(f"{prefix}{'x' * 300}")
