"""Runs in a user-mode Linux: a Ceph cluster of one host, and the tasks on OSDs in layout ``lvm``.  Prints what it saw, as JSON.

Not a test itself: ``test_ceph_lvm_uml.py`` looks at the report.
"""

import json
import logging
import os
import subprocess
import sys
import time
import traceback
import uuid
from pathlib import Path

from pvc_ceph.config import CephConfig
from pvc_ceph.osd.service import OsdService
from pvc_ceph.protocol import Open
from pvc_ceph.workers import Workers
from pvc_core.model.errors import PvcError
from pvc_core.model.task import Task
from pvc_core.plugin import Cancelled, Context, NodeInfo, run
from pvc_core.testkit.doomed import Died
from pvc_core.testkit.waiting import eventually

NODE = "uml"
STEP_S = 150.0
CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:3300/0]
ms bind msgr1 = false
public network = 127.0.0.0/8
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail warn = 1
mon data avail crit = 1
auth allow insecure global id reclaim = false
mgr initial modules =
mgr module path = {modules}
mgr tick period = 1
mgr stats period = 1
osd heartbeat interval = 1
osd mon report interval = 1
osd mon shutdown timeout = 1
osd max pg log entries = 500
bluestore fsck on mkfs = false
bluestore cache autotune = false
bluestore cache size = 33554432
bdev aio poll ms = 20
log file =
debug rocksdb = 1/5
[client]
log file =
"""
MODULES = [
    "mgr_module.py",
    "mgr_util.py",
    "balancer",
    "crash",
    "devicehealth",
    "orchestrator",
    "pg_autoscaler",
    "progress",
    "rbd_support",
    "status",
    "telemetry",
    "volumes",
]
SYSTEMCTL = """\
#!/bin/sh
# What of systemctl(1) the programs under test use, for OSDs alone.
verb=$1; shift
while [ "${1#--}" != "$1" ]; do shift; done
unit=${1%.service}; id=${unit#*@}; pid=/run/$unit.pid
alive() { [ -e $pid ] && kill -0 $(cat $pid) 2>/dev/null; }
case $verb in
enable) mkdir -p /run/enabled; touch "/run/enabled/$unit" ;;
disable) rm -f "/run/enabled/$unit" ;;
start) alive || { ceph-osd -f --id $id >>/run/$unit.log 2>&1 & echo $! >$pid; } ;;
stop) alive && { kill $(cat $pid); while alive; do sleep 0.05; done; }; rm -f $pid ;;
is-active) alive || { echo inactive; exit 3; } ;;
*) echo "systemctl: $verb is not known here" >&2; exit 1 ;;
esac
exit 0
"""


def sh(*argv, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr}")
    return done


def make_cluster():
    """A monitor and a manager."""
    # Nothing of this machine's own cluster may be seen.
    for path in ("/etc/ceph", "/var/lib/ceph"):
        sh("mount", "-t", "tmpfs", "none", path)
    for name in ("mon", "mgr", "osd", "bootstrap-osd", "crash", "tmp"):
        Path("/var/lib/ceph", name).mkdir()
    Path("/run/ceph").mkdir(exist_ok=True)
    modules = Path("/run/mgr-modules")
    modules.mkdir()
    for name in MODULES:
        (modules / name).symlink_to(Path("/usr/share/ceph/mgr", name))
    fsid = str(uuid.uuid4())
    Path("/etc/ceph/ceph.conf").write_text(CONF.format(fsid=fsid, modules=modules))
    keyring = "/etc/ceph/ceph.client.admin.keyring"
    caps = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
    sh("ceph-authtool", keyring, "--create-keyring", "--gen-key", "-n", "client.admin", *caps)
    initial = "/run/initial.keyring"
    sh("ceph-authtool", initial, "--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    Path("/var/lib/ceph/mgr/ceph-x").mkdir()
    mgr = "/var/lib/ceph/mgr/ceph-x/keyring"
    caps = ("--cap", "mon", "allow profile mgr", "--cap", "osd", "allow *")
    sh("ceph-authtool", mgr, "--create-keyring", "--gen-key", "-n", "mgr.x", *caps)
    for other in (keyring, mgr):
        sh("ceph-authtool", initial, "--import-keyring", other)
    sh("monmaptool", "--create", "--fsid", fsid, "--addv", "a", "[v2:127.0.0.1:3300]", "/run/monmap")
    sh("ceph-mon", "--mkfs", "-i", "a", "--monmap", "/run/monmap", "--keyring", initial)
    for name, argv in (("mon", ["ceph-mon", "-f", "-i", "a"]), ("mgr", ["ceph-mgr", "-f", "-i", "x"])):
        with Path(f"/run/{name}.log").open("wb") as log:
            subprocess.Popen(argv, stdout=log, stderr=log)
    return fsid


class Report:
    """What was done, with how long it took."""

    def __init__(self):
        self.steps = {}

    def step(self, name, do):
        begun = time.monotonic()
        try:
            found = {"result": do()}
        except PvcError as error:
            found = {"error": str(error)}
        except Cancelled:
            found = {"error": f"it took longer than {STEP_S:g} s"}
        except Exception:
            found = {"defect": traceback.format_exc()}
        self.steps[name] = {**found, "seconds": round(time.monotonic() - begun, 1)}
        sys.stderr.write(f"{time.monotonic():.0f} {name} {self.steps[name]}\n")
        sys.stderr.flush()
        return found


class Dying:
    """Runs programs, and dies with the daemon before the one that has a word among its own."""

    def __init__(self):
        self.before = ""
        self._dead = False

    def __call__(self, argv, *, deadline_s, stdin=b""):
        if self._dead or (self.before and self.before in argv):
            self._dead = True
            raise Died
        return run(argv, deadline_s=deadline_s, stdin=stdin)

    def revive(self):
        self.before, self._dead = "", False


class Until:
    """A task's progress that says to stop from a time on; what the task says goes to the log."""

    def __init__(self, end):
        self._end = end

    def __call__(self, _done):
        return time.monotonic() > self._end

    def say(self, message):
        logging.getLogger("task").info("said %r", message)


def main():
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    os.environ["DM_DISABLE_UDEV"] = "1"  # nobody makes device nodes but LVM itself
    Path("/run/bin").mkdir()
    Path("/run/bin/systemctl").write_text(SYSTEMCTL)
    Path("/run/bin/systemctl").chmod(0o755)
    os.environ["PATH"] = f"/run/bin:{os.environ['PATH']}"
    sh("hostname", NODE)
    report = Report()
    report.step("cluster", make_cluster)
    info = NodeInfo(name=NODE, role="coordinator", state_directory="/run/pvc-state", run_directory="/run/pvc")
    programs = Dying()
    context = Context(node=info, log=logging.getLogger("pvc_ceph"), run=programs, wake=lambda *_: None)
    workers = Workers(Open(conf="/etc/ceph/ceph.conf", user="admin", node=NODE), context.log)
    service = OsdService(context, CephConfig(osd_layout="lvm"), workers)
    runners, queries = service.task_runners(), service.queries()

    def osds():
        return queries["ceph.osd-list"]({})["osds"]

    def task(kind, **arguments):
        made = Task(id="t", kind=f"ceph.osd.{kind}", node=NODE, arguments=arguments)

        def do():
            end = time.monotonic() + STEP_S
            return runners[made.kind](made, Until(end))

        return do

    def answering():
        try:
            return not osds()
        except PvcError:
            return False

    report.step("ready", lambda: eventually(answering, "a manager answers", within_s=120))
    report.step("devices-empty", lambda: queries["ceph.devices"]({}))
    report.step("create-db-vg", task("create-db-vg", device="/dev/ubdd"))
    report.step("create-db-vg-again", task("create-db-vg", device="/dev/ubdd"))
    report.step("add-too-much-db", task("add", device="/dev/ubdb", db_bytes=2 << 30))
    report.step(
        "add-two", task("add", device="/dev/ubdb", count=2, db_bytes=256 << 20, device_class="ssd", weight="0.5")
    )
    report.step("list", osds)
    report.step("found", lambda: json.loads(sh("ceph-volume", "lvm", "list", "--format", "json").stdout))
    report.step("devices", lambda: queries["ceph.devices"]({}))
    report.step("add-again", task("add", device="/dev/ubdb"))

    def forget():
        """As after an installation of the node anew: nothing runs, no directory is left, volumes are inactive."""
        for osd in osds():
            sh("systemctl", "stop", f"ceph-osd@{osd['id']}")
            sh("ceph", "osd", "down", str(osd["id"]))
            sh("umount", f"/var/lib/ceph/osd/ceph-{osd['id']}")
            Path(f"/var/lib/ceph/osd/ceph-{osd['id']}").rmdir()
        sh("rm", "-rf", "/run/enabled")
        sh("vgchange", "--activate", "n")
        Path("/var/lib/ceph/bootstrap-osd/ceph.keyring").unlink()
        return [osd["up"] for osd in osds()]

    report.step("forget", forget)
    report.step("activate-groups", lambda: sh("vgchange", "--activate", "y").returncode)
    report.step("refresh", task("refresh"))
    report.step("list-refreshed", osds)
    report.step("enabled", lambda: sorted(path.name for path in Path("/run/enabled").iterdir()))
    report.step("replace", task("replace", osd=0, device="/dev/ubdc", db_percent="10"))
    report.step("list-replaced", osds)
    report.step("remove", task("remove", osd=1))
    report.step("list-removed", osds)
    report.step("devices-removed", lambda: queries["ceph.devices"]({}))
    report.step("add-whole", task("add", device="/dev/ubdb"))
    report.step("remove-forced", task("remove", osd=1, force=True))

    def dies_before(word):
        programs.before = word
        try:
            return task("add", device="/dev/ubdb", db_bytes=256 << 20)()
        except Died:
            left = [
                volume["lv_name"]
                for volume in json.loads(sh("lvs", "--reportformat", "json").stdout)["report"][0]["lv"]
            ]
            return {"died": word, "left": sum(name.startswith("osd-") for name in left)}
        finally:
            programs.revive()

    for word in ("lvcreate", "prepare", "activate"):
        report.step(f"dies-before-{word}", lambda word=word: dies_before(word))
        report.step(f"cleared-after-{word}", task("refresh"))
        report.step(f"devices-after-{word}", lambda: queries["ceph.devices"]({}))
        report.step(f"list-after-{word}", osds)
    report.step("volumes", lambda: json.loads(sh("lvs", "--reportformat", "json").stdout)["report"][0]["lv"])
    report.step("groups", lambda: json.loads(sh("vgs", "--reportformat", "json").stdout)["report"][0]["vg"])
    workers.close()
    json.dump(report.steps, sys.stdout)


main()
