"""The task runner that breaks locks on the disks of a VM that runs nowhere."""

from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.task import Task
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile import resources
from pvc_core.ops.vm_locks import FLUSH_LOCKS
from pvc_core.plugin.specs.lifecycle import TaskRunner
from pvc_core.plugin.specs.storage import Progress
from pvc_core.store import keys
from pvc_core.store.documents import read

Result = dict[str, str | int | float | bool | None]


def lock_runners(context: NodeContext) -> dict[str, TaskRunner]:
    """Return the runner by its kind."""

    def run(task: Task, progress: Progress) -> Result:
        id_, epoch = task.arguments.get("vm"), task.arguments.get("epoch")
        if not isinstance(id_, str) or not isinstance(epoch, int):
            raise InvalidRequest(f"task {task.id} does not name a VM and the epoch of its claim")
        vm = read(context.store, keys.vm_spec(id_))
        if vm is None:
            raise NotFound(f"the VM of this task ({id_}) was removed")
        volumes = resources.find(context.store, vm.value).volumes
        broken: list[str] = []
        for number, volume in enumerate(volumes):
            # Whoever takes the claim meanwhile attaches with a higher epoch, and the driver then breaks nothing.
            broken += context.drivers.storage(volume.pool.driver).disk_flush_locks(volume, id_, epoch)
            progress((number + 1) / len(volumes))
        return {"broken": len(broken), "what": "; ".join(broken)}

    return {FLUSH_LOCKS: run}
