"""A domain that ends while it is looked at."""

import libvirt
import pytest

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
