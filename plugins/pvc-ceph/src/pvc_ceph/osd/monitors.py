"""What a node asks of Ceph's monitors and manager about OSDs, in worker processes.

Each call is done when it returns; an exception means that it may have been done or not.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from pvc_ceph.osd.values import OsdList, OsdRow, Safety
from pvc_ceph.workers import Workers
from pvc_core.plugin import ObjectMissing

_DEADLINE_S: Final = 18.0
"""Less than the 20 s of a query; a command to the monitors is given up after 8 s, and a listing has four."""


class Monitors(Protocol):
    """A Ceph cluster's word on its OSDs.  Raises DriverError and its kinds."""

    def osds(self) -> OsdList:
        """Return all OSDs."""

    def create(self, fsid: str, key: str, device_class: str, id_: int | None) -> int:
        """Register an OSD, under the id of a destroyed one if given; return its id.  Once more is success."""

    def place(self, id_: int, weight: float, host: str) -> None:
        """Give an OSD that was never up its weight."""

    def reweight(self, id_: int, weight: float) -> None:
        """Change an OSD's part of the data; 0: it gets none, and its host less."""

    def take_in(self, ids: Sequence[int]) -> None:
        """Let data be placed on OSDs."""

    def put_out(self, ids: Sequence[int]) -> None:
        """Let the data of OSDs move away."""

    def safety(self, id_: int) -> Safety:
        """Return whether an OSD's data can be destroyed without the loss of a copy."""

    def why_not_stop(self, id_: int) -> str:
        """Return why an OSD must not be stopped now, empty when it may be."""

    def mark_down(self, id_: int) -> None:
        """Take an OSD whose daemon has ended for down at once."""

    def destroy(self, id_: int, *, force: bool) -> None:
        """Let an OSD never come back, and keep its id."""

    def purge(self, id_: int, *, force: bool) -> None:
        """Forget an OSD that is down."""

    def purge_new(self, id_: int) -> None:
        """Forget an OSD that was never up; refused for any other."""

    def key(self, id_: int) -> str:
        """Return the key of an OSD's daemon."""

    def bootstrap_key(self) -> str:
        """Return the key with which ``ceph-volume`` registers OSDs."""

    def flag(self, name: str, wanted: bool, ids: Sequence[int]) -> None:
        """Set or unset a flag; no ids: of the whole cluster."""


class CephMonitors:
    """The real ones.  May be used from any thread."""

    def __init__(self, workers: Workers) -> None:
        self._workers: Final = workers

    def osds(self) -> OsdList:
        return self._workers.call(OsdList, "osd-list", _DEADLINE_S)

    def create(self, fsid: str, key: str, device_class: str, id_: int | None) -> int:
        arguments = {"fsid": fsid, "key": key, "device_class": device_class, "id": id_}
        return self._workers.call(int, "osd-create", _DEADLINE_S, **arguments)

    def place(self, id_: int, weight: float, host: str) -> None:
        self._do("osd-place", id=id_, weight=weight, host=host)

    def reweight(self, id_: int, weight: float) -> None:
        self._do("osd-reweight", id=id_, weight=weight)

    def take_in(self, ids: Sequence[int]) -> None:
        self._do("osd-in", ids=list(ids))

    def put_out(self, ids: Sequence[int]) -> None:
        self._do("osd-out", ids=list(ids))

    def safety(self, id_: int) -> Safety:
        return self._workers.call(Safety, "osd-safety", _DEADLINE_S, id=id_)

    def why_not_stop(self, id_: int) -> str:
        return self._workers.call(str, "osd-stoppable", _DEADLINE_S, id=id_)

    def mark_down(self, id_: int) -> None:
        self._do("osd-mark-down", id=id_)

    def destroy(self, id_: int, *, force: bool) -> None:
        self._do("osd-destroy", id=id_, force=force)

    def purge(self, id_: int, *, force: bool) -> None:
        self._do("osd-purge", id=id_, force=force)

    def purge_new(self, id_: int) -> None:
        self._do("osd-purge-new", id=id_)

    def key(self, id_: int) -> str:
        return self._workers.call(str, "osd-key", _DEADLINE_S, id=id_)

    def bootstrap_key(self) -> str:
        return self._workers.call(str, "osd-bootstrap-key", _DEADLINE_S)

    def flag(self, name: str, wanted: bool, ids: Sequence[int]) -> None:
        self._do("osd-flag", name=name, wanted=wanted, ids=list(ids))

    def _do(self, call: str, **arguments: Any) -> None:
        self._workers.call(None, call, _DEADLINE_S, **arguments)


def known(listing: OsdList, id_: int) -> OsdRow:
    """Return an OSD; raise ObjectMissing when the monitors do not know it."""
    found = listing.of(id_)
    if found is None:
        there = ", ".join(str(osd.id) for osd in listing.osds) or "none"
        raise ObjectMissing(f"Ceph has no OSD {id_}; it has: {there}")
    return found
