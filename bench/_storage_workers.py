"""The processes of the driver that talk to Ceph, on the nodes."""

import time
from statistics import median

from _cluster import ProcessFigures, process_figures
from _storage_site import Site
from _storage_site import tell as tell_figure

_MODULE = "pvc_ceph.worker"


class Workers:
    """All workers of the nodes' daemons, from now on."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._cpu_s = sum(each.cpu_s for each in self._all())
        self._begun = time.monotonic()

    def tell(self, volumes: int) -> None:
        """Print what they are, and what they used since; that of workers that ended meanwhile is not counted."""
        by_node = {node: process_figures(self._site.sandbox, node, _MODULE) for node in self._site.sandbox.nodes()}
        found = [each for workers in by_node.values() for each in workers]
        spent_s, cpu_s = time.monotonic() - self._begun, sum(each.cpu_s for each in found) - self._cpu_s
        counts = {node: len(workers) for node, workers in by_node.items()}
        tell_figure("workers", len(found), unit="processes", by_node=counts)
        sizes = [each.rss_mib for each in found]
        tell_figure("worker_rss_mib", median(sizes), unit="MiB", most=round(max(sizes), 1))
        tell_figure("worker_threads", median(each.threads for each in found), unit="threads")
        tell_figure("workers_cpu_s", cpu_s, unit="s", in_s=round(spent_s, 1), volumes=volumes)

    def _all(self) -> list[ProcessFigures]:
        sandbox = self._site.sandbox
        return [each for node in sandbox.nodes() for each in process_figures(sandbox, node, _MODULE)]
