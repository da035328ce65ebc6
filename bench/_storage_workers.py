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
        self._before = self._all()
        self._begun = time.monotonic()

    def tell_cpu(self, during: str, **more: object) -> None:
        """Print what those that are there now have used since."""
        spent_s, now = time.monotonic() - self._begun, self._all()
        used_s = sum(one.cpu_s - (self._before[key].cpu_s if key in self._before else 0.0) for key, one in now.items())
        percent = 100 * used_s / spent_s
        tell_figure("workers_cpu_percent", percent, unit="% of one CPU", during=during, workers=len(now), **more)

    def tell(self) -> None:
        """Print what there is."""
        now = self._all()
        by_node = {node: sum(key[0] == node for key in now) for node in self._site.sandbox.nodes()}
        tell_figure("workers", len(now), unit="processes", by_node=by_node)
        sizes = [one.rss_mib for one in now.values()]
        tell_figure("worker_rss_mib", median(sizes), unit="MiB", least=round(min(sizes), 1), most=round(max(sizes), 1))
        tell_figure("worker_threads", median(one.threads for one in now.values()), unit="threads")

    def _all(self) -> dict[tuple[str, int], ProcessFigures]:
        sandbox = self._site.sandbox
        return {(node, one.pid): one for node in sandbox.nodes() for one in process_figures(sandbox, node, _MODULE)}
