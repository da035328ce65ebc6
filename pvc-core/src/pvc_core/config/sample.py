"""The sample ``pvcnoded.yml``: ``# `` begins an explanation, ``#key`` a setting at its default."""

from typing import Final

SAMPLE: Final = """\
# Configuration of a PVC node, read by pvcnoded and, on a node, by pvc.
#
# It holds facts of this node and how to reach the cluster.  What holds for the whole cluster (networks,
# pools, VMs, migration limits) is in the cluster's own state, changed with pvc.
# A setting that begins with '#' is shown with its default.  Durations are in seconds, sizes in MiB.
# Check this file with: pvc config check

cluster:
  #name: pvc
  # The coordinators run ZooKeeper and can become primary: 1, 3 or 5 of them, the same list on every node.
  coordinators:
    - {name: node1, address: 10.0.0.1}
    - {name: node2, address: 10.0.0.2}
    - {name: node3, address: 10.0.0.3}
  zookeeper:
    # Client port on the coordinators; the secure one when tls is set.
    #port: 2181
    # Login to ZooKeeper; every part of the state tree is then closed to others.  Mode of the file: 0600.
    #auth:
      #username: pvc
      #password_file: /etc/pvc/zookeeper.secret
    # Encrypt the connections to ZooKeeper.
    #tls:
      #ca: /etc/pvc/tls/ca.pem
      #certificate: /etc/pvc/tls/node.pem
      #key: /etc/pvc/tls/node.key

node:
  # Without a name: the host name up to its first dot.
  name: node1
  # In the cluster network: migrations and consoles use it.
  address: 10.0.0.1
  # Only where the kernel reports the host's memory wrongly.
  #memory_mib: null
  # Kept for the host itself: never given to VMs.
  #reserved_memory_mib: 1024
  # kvm, tcg (emulation: for tests), or auto: kvm where a guest really starts with it.
  #accelerator: auto
  #state_directory: /var/lib/pvc
  #run_directory: /run/pvc
  #console_directory: /var/log/pvc/console
  # As large as the images that are uploaded at the same time.
  #upload_directory: /var/lib/pvc/upload

hypervisor:
  #uri: qemu:///system
  # How another node's libvirt is reached for a live migration; {address} is that node's.
  #migration_uri: qemu+tcp://{address}/system

# Consoles and logs are read from the node they are on, and images are uploaded, through this service.
service:
  #port: 7372
  # The token is the same on all nodes; without a file the service is off.  Mode: 0600.
  #token_file: ""

# The defaults suit most clusters.
timing:
  # A node that is silent for this long has lost its lease; grace later it may be fenced.
  #lease: 10.0
  #grace: 5.0
  # After a power cut of the whole site, hosts that start more slowly than this one have so long to come.
  #cold_start: 300.0
  # Pause after all ways to fence a node have failed, doubled up to the longest; how often each device is tried out.
  #fence_retry: 5.0
  #fence_retry_max: 60.0
  #fence_check: 60.0
  # How often the node reports its facts and usage.
  #publish: 10.0
  # Everything is looked at again this often, without any event.
  #resync: 60.0
  # Time a guest has for an orderly shutdown, unless the VM says otherwise.
  #shutdown: 180.0
  # A crashed guest is started again after a pause that doubles, until it has crashed too often in a row;
  # one that ran for as long as stable says starts counting anew.
  #restart_backoff: 2.0
  #restart_backoff_max: 300.0
  #restart_give_up: 6
  #stable: 60.0
  # A live migration that takes longer is aborted; prepare is the target's time to get ready.
  #migration: 600.0
  #prepare: 60.0
  # A guest that has not let go of a disk for so long is said to keep it; it is asked on.
  #unplug: 30.0
  # libvirt connections are given up after 5 unanswered probes at this interval.
  #keepalive: 2.0

# Resets this node when the cluster no longer confirms its lease, so that its VMs may be started elsewhere although
# nobody can reach its power.  Read the section "Watchdog" of docs/operate.md first.
watchdog:
  # /dev/watchdog, used by nothing else.
  #device: ""
  # It resets the node when it is not fed for so long.
  #timeout: 8.0

logging:
  # debug, info, warning or error
  #level: info
  # text (one line per event, key=value) or json
  #format: text

# Plugins to load, in the order they are called; one that is not listed is not even imported.  Each has its
# own settings: see pvc plugin show NAME.  A plugin that fails is off, the node goes on without it, and
# pvc plugin list says why.
plugins:
  dir:
  bridge:
"""
