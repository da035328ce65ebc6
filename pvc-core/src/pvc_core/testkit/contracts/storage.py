"""The contract of a storage driver: subclass it, and your driver is tested as core's own are.

::

    class TestMyDriver(StorageContract):
        __test__ = True

        def make_backend(self, tmp_path):
            return MyBackend(tmp_path)      # see StorageBackend

Every rule is tested in both directions: what the capabilities promise must work, what they do not promise
must raise ``Unsupported``.
"""

from pvc_core.testkit.contracts.storage_backend import StorageBackend, Workbench
from pvc_core.testkit.contracts.storage_disks import DiskRules
from pvc_core.testkit.contracts.storage_images import ImageRules
from pvc_core.testkit.contracts.storage_snapshots import SnapshotRules
from pvc_core.testkit.contracts.storage_volumes import VolumeRules

__all__ = ["StorageBackend", "StorageContract", "Workbench"]


class StorageContract(VolumeRules, SnapshotRules, ImageRules, DiskRules):
    """All rules for a storage driver."""

    __test__ = False
