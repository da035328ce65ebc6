"""A domain that ends while it is looked at."""

import libvirt
import pytest

from pvc_core.hypervisor import kvmprobe
from pvc_core.hypervisor.api import ExitReason, HypervisorError
from pvc_core.hypervisor.exits import Exits
from pvc_core.hypervisor.libvirt_calls import DomainGone, Handle


def _error(code):
    error = libvirt.libvirtError("no such domain")
    error.err = (code, libvirt.VIR_FROM_QEMU, "Domain not found", libvirt.VIR_ERR_ERROR, "", None, None, 0, 0)
    return error


class _Domain:
    """Listed by libvirt, ended before it was asked about."""

    def __init__(self, code):
        self._code = code

    def ID(self):
        return -1

    def isPersistent(self):
        raise _error(self._code)

    def XMLDesc(self, flags):
        raise _error(self._code)


class _Connection:
    def isAlive(self):
        return 1


def test_one_that_ended_since_it_was_listed_is_not_there():
    assert not Handle(_Connection(), _Domain(libvirt.VIR_ERR_NO_DOMAIN)).exists()


def test_other_errors_are_not_taken_for_its_end():
    with pytest.raises(Exception, match="Domain not found") as caught:
        Handle(_Connection(), _Domain(libvirt.VIR_ERR_OPERATION_FAILED)).exists()
    assert not isinstance(caught.value, DomainGone)


def test_asking_for_more_of_it_says_that_it_is_gone():
    with pytest.raises(DomainGone):
        Handle(_Connection(), _Domain(libvirt.VIR_ERR_NO_DOMAIN)).xml()


class _Probed:
    """A connection with the KVM probe's guest, which nothing more can be learnt of; it is there for so many looks."""

    vm, run = "7b0e3a44-2f6c-4a2e-9d53-0c1f6d0a9b11", 1

    def __init__(self, exits, looks):
        self._exits = exits
        self._looks = looks
        self.destroyed = False

    def create(self, _xml, *, autodestroy):
        return self

    def find(self, _vm):
        self._looks -= 1
        if self._looks >= 0:
            return self
        self._exits.ended(self.vm, ExitReason.SHUTDOWN)
        return None

    def phase(self):
        raise HypervisorError("it ends")

    def destroy(self):
        self.destroyed = True


CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
<guest><arch name='x86_64'><domain type='kvm'/></arch></guest></capabilities>"""


@pytest.mark.parametrize(("looks", "problem"), [(1, ""), (10**9, "did not come to its end within 0.1 s")])
def test_the_probes_guest_is_awaited_for_a_bounded_time_when_libvirt_cannot_say_what_it_does(
    tmp_path, monkeypatch, looks, problem
):
    monkeypatch.setattr(kvmprobe, "_DEADLINE_S", 0.1)
    exits = Exits()
    guest = _Probed(exits, looks)
    found = kvmprobe.KvmProbe(tmp_path, "auto", exits).problem(guest, CAPABILITIES, "1")
    assert found == (f"a test guest {problem}" if problem else "")
    assert guest.destroyed == bool(problem)
