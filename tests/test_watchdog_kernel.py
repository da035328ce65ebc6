"""The kernel's watchdog for real: Debian's kernel with softdog in an emulated machine, driven by the daemon's own code.

The machine's first file system holds this interpreter and the modules of Python that the code needs, nothing else.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pvc_sandbox.images import tiny_linux
from pvc_sandbox.images.cpio import Archive

pytestmark = pytest.mark.real

BOOT_S = 90

INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in watchdog softdog; do [ ! -e /$module.ko ] || insmod /$module.ko; done
exec >/dev/ttyS0 2>&1 </dev/null
PYTHONHOME=%(home)s PYTHONPATH=%(path)s %(python)s -S /inside.py
echo "INSIDE-FAILED $?"
poweroff -f
"""

INSIDE = """\
import fcntl, os, signal, struct, time
from pvc_core.node.watchdog_device import WDIOC_SETOPTIONS, WDIOS_DISABLECARD, open_device

def say(what):
    print(what, f"{time.monotonic():.2f}", flush=True)

device = open_device("/dev/watchdog", 2.0)
print("ABOUT", device.about, flush=True)
print("TIMEOUT", device.timeout_s, flush=True)
for _ in range(3):
    time.sleep(0.9)
    device.feed()
device.disarm()
time.sleep(2.5)
say("DISARMED")

# Another program stops it twice over: the kernel keeps the mark of the second time for whoever opens it next.
other = os.open("/dev/watchdog", os.O_WRONLY)
fcntl.ioctl(other, WDIOC_SETOPTIONS, struct.pack("=i", WDIOS_DISABLECARD))
os.write(other, b"V")
os.close(other)

child = os.fork()
if child == 0:
    open_device("/dev/watchdog0", 2.0)
    say("ARMED")
    signal.pause()
time.sleep(1.2)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
say("KILLED")
for _ in range(150):
    time.sleep(0.1)
    say("ALIVE")
"""


def python_files():
    """Return the files that the guest needs to run ``INSIDE``: interpreter, libraries, modules."""
    script = (
        "import sys, encodings.ascii, encodings.utf_8, signal, time, pvc_core.node.watchdog_device\n"
        "print(sys.base_prefix, *{m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)}, sep='\\n')"
    )
    listed = subprocess.run(
        [sys.executable, "-S", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    prefix, *modules = listed.stdout.splitlines()
    interpreter = Path(sys.executable).resolve()
    programs = [str(interpreter), *(module for module in modules if module.endswith(".so"))]
    linked = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    libraries = set(re.findall(r"(/\S+) \(0x", linked))
    landmark = Path(prefix, f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/os.py")
    return prefix, interpreter, {str(interpreter), str(landmark), *libraries, *modules}


SOURCE = Path(__file__).parents[1] / "pvc-core/src"
ENVIRONMENT = {"PYTHONPATH": str(SOURCE)}


def initial_file_system(modules):
    prefix, interpreter, files = python_files()
    archive, made = Archive(), set()

    def directory(path):
        if path not in made and path != Path():
            directory(path.parent)
            made.add(path)
            archive.directory(str(path))

    def add(path, content, *, executable=False):
        directory(Path(path.lstrip("/")).parent)
        archive.file(path.lstrip("/"), content, executable=executable)

    for name in ("bin", "dev", "proc", "sys"):
        directory(Path(name))
    for file in sorted(files):
        add(file, Path(file).read_bytes(), executable=True)
    for name in ("watchdog", "softdog"):
        for found in modules.rglob(f"{name}.ko"):
            add(found.name, found.read_bytes())
    add("bin/busybox", Path("/bin/busybox").read_bytes(), executable=True)
    init = INIT % {"home": prefix, "path": SOURCE, "python": interpreter}
    add("init", init.encode(), executable=True)
    add("inside.py", INSIDE.encode())
    return archive.finish()


def test_it_is_fed_disarmed_and_after_a_death_fed_once_more_by_the_kernel_and_never_again(tmp_path):
    linux = tiny_linux()
    (tmp_path / "initrd").write_bytes(initial_file_system(linux.kernel.parent / "modules"))
    machine = subprocess.run(
        [
            "qemu-system-x86_64",
            *("-accel", "tcg", "-machine", "q35", "-cpu", "max,-la57", "-m", "256"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(linux.kernel), "-initrd", str(tmp_path / "initrd")),
            *("-append", "console=ttyS0 quiet panic=-1 mitigations=off"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOOT_S,
        check=False,
    )
    said = machine.stdout
    print(said, machine.stderr)
    assert "ABOUT /dev/watchdog (Software Watchdog), which is software" in said
    assert "TIMEOUT 2.0" in said
    assert "DISARMED" in said, "fed for longer than its time-out, and then not fed for longer than that"
    armed, killed = (float(re.search(rf"{word} ([\d.]+)", said)[1]) for word in ("ARMED", "KILLED"))
    alive = [float(moment) for moment in re.findall(r"ALIVE ([\d.]+)", said)]
    assert alive[-1] > armed + 2.4, "the death counted as a feeding"
    assert len(alive) < 150, "and the last one: the machine was reset"
    assert alive[-1] < killed + 30.0
