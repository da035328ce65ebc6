"""Records of outgoing migrations: what libvirt forgets as soon as one has failed."""

import threading

from pvc_core.hypervisor.api import HypervisorError, JobState, MigrationJob


class Outgoing:
    """One migration away from here.  Changed only under the lock of its ``OutgoingJobs``."""

    def __init__(self, *, watched: bool) -> None:
        self.watched = watched
        """A thread of ours waits for its end; otherwise it must be looked at."""
        self.stop = False
        """It was asked to stop."""
        self.failed = False
        self.error = ""
        self.progress = 0.0
        self.ended = threading.Event()


class OutgoingJobs:
    """The migrations of one host.  May be used from any thread."""

    def __init__(self) -> None:
        self._jobs: dict[str, Outgoing] = {}
        self._lock = threading.Lock()

    def begin(self, vm: str) -> Outgoing:
        """Record a new one in place of a failed one; raise HypervisorError while one is active."""
        with self._lock:
            old = self._jobs.get(vm)
            if old is not None and not old.failed:
                raise HypervisorError(f"VM {vm} is being migrated already")
            job = self._jobs[vm] = Outgoing(watched=True)
            return job

    def adopt(self, vm: str) -> None:
        """Record one that an earlier connection, or somebody else, has begun."""
        with self._lock:
            old = self._jobs.get(vm)
            if old is None or old.failed:
                self._jobs[vm] = Outgoing(watched=False)

    def get(self, vm: str) -> Outgoing | None:
        """Return the record, None when there is none."""
        with self._lock:
            return self._jobs.get(vm)

    def unwatch(self, job: Outgoing) -> None:
        """Note that how it ends will not be told: the connection that waited for it broke."""
        with self._lock:
            job.watched = False

    def fail(self, vm: str, job: Outgoing, error: str) -> None:
        """Note that it ended without success."""
        with self._lock:
            if self._jobs.get(vm) is job:
                job.failed, job.error = True, error
        job.ended.set()

    def succeed(self, vm: str, job: Outgoing) -> None:
        """Drop a record: the guest is gone from here."""
        with self._lock:
            if self._jobs.get(vm) is job:
                del self._jobs[vm]
        job.ended.set()

    def forget(self, vm: str) -> None:
        """Drop the record of a failed one."""
        with self._lock:
            if vm in self._jobs and self._jobs[vm].failed:
                del self._jobs[vm]

    def gone(self, vm: str) -> None:
        """Drop the record of a domain that ended, unless the thread that waits for its end will."""
        with self._lock:
            job = self._jobs.get(vm)
            if job is not None and (job.failed or not job.watched):
                del self._jobs[vm]

    def view(self, vm: str) -> MigrationJob | None:
        """Return what there is to say of it."""
        with self._lock:
            job = self._jobs.get(vm)
            if job is None:
                return None
            state = JobState.FAILED if job.failed else JobState.ACTIVE
            return MigrationJob(state=state, progress=job.progress, error=job.error)

    def vms(self) -> list[str]:
        """Return the VMs that there are records of."""
        with self._lock:
            return list(self._jobs)
