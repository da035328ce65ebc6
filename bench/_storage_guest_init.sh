#!/bin/busybox sh
# First process of the guest that writes. Reads "DISK DEPTH SECONDS" from its console, and does that, one after the other.
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module"; done
exec >/dev/ttyS0 2>&1 </dev/ttyS0
# The kernel looks for SCSI disks in the background.
until [ -b /dev/vda ] && [ -b /dev/sda ]; do sleep 0.1; done
echo GUEST-READY
while read -r disk depth seconds; do random-write "/dev/$disk" "$depth" "$seconds"; done
