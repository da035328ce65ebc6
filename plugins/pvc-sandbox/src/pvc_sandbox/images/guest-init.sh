#!/bin/busybox sh
# First process of the tiny Linux guest. Kernel command line:
#   ip=A/LEN     address of eth0          gw=G         default route
#   dhcp=1       every NIC asks for an address, also one that is plugged in later; "GUEST-LEASE DEVICE ADDRESS" when it has one
#   disk=1       every second, count into the first sector of /dev/vda
#   dirty=MIB    keep rewriting that much memory
#   files=DISKS  count into a file on each of these disks (vda,vdb: ext4), on one after the other; "counted N" now and then
#   agent=1      run QEMU's guest agent, where the image has it
#   crash=S      panic S seconds after the start       poweroff=S   power off S seconds after the start
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
for module in $(cat /modules/order); do insmod "/modules/$module"; done
argument() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
uptime_s() { cut -d' ' -f1 /proc/uptime; }
# What the hypervisor calls a shutdown is a press of the power button.
mkdir -p /etc/acpi/PWRF /var/run /var/log
printf '#!/bin/sh\necho GUEST-DOWN >/dev/ttyS0\nsync\npoweroff -f\n' >/etc/acpi/PWRF/00000080
chmod +x /etc/acpi/PWRF/00000080
acpid
exec >/dev/ttyS0 2>&1 </dev/ttyS0
ip link set lo up
address=$(argument ip)
if [ -n "$address" ]; then
    ip addr add "$address" dev eth0; ip link set eth0 up
    gateway=$(argument gw); [ -z "$gateway" ] || ip route add default via "$gateway"
fi
if [ "$(argument dhcp)" = 1 ]; then
    # The default route is of the NIC that came first; names are asked for where the last answer said.
    cat >/etc/on-lease <<'END'
#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
[ -z "$router" ] || ip route add default via ${router%% *} 2>/dev/null
: >/etc/resolv.conf
[ -z "$domain" ] || echo "search $domain" >>/etc/resolv.conf
for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
[ "$1" = renew ] || echo "GUEST-LEASE $interface $ip" >/dev/ttyS0
END
    chmod +x /etc/on-lease
    while :; do
        for nic in /sys/class/net/*; do
            name=${nic##*/}
            [ -e "$nic/device" ] && [ ! -e "/var/run/asking-$name" ] || continue
            : >"/var/run/asking-$name"
            ip link set "$name" up
            ( udhcpc -i "$name" -s /etc/on-lease -f -t 3 -T 1 -A 1 -O mtu -O domain; rm "/var/run/asking-$name" ) >/dev/null 2>&1 &
        done
        sleep 1
    done &
fi
echo "GUEST-UP $(uptime_s)"
after=$(argument poweroff); [ -z "$after" ] || { sleep "$after"; poweroff -f; } &
after=$(argument crash); [ -z "$after" ] || { sleep "$after"; echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; } &
dirty=$(argument dirty)
if [ -n "$dirty" ]; then
    mount -t tmpfs -o "size=$((dirty + 4))m" tmpfs /tmp
    while :; do dd if=/dev/urandom of=/tmp/dirty bs=64k count=$((dirty * 16)) conv=notrunc 2>/dev/null; done &
fi
disks=$(argument files | tr , ' ')
for name in $disks; do
    mkdir -p "/mnt/$name"; mount -t ext4 "/dev/$name" "/mnt/$name" || echo "MOUNT-ERROR $name"
done
count() {
    n=0
    while :; do
        n=$((n + 1)); echo "$n" >/number
        # Each is on its disk before the next one is written.
        for name in $disks; do dd if=/number of="/mnt/$name/count" conv=notrunc,fsync 2>/dev/null || echo "DISK-ERROR $name"; done
        [ $((n % 10)) != 0 ] || echo "counted $n"
        sleep 0.02
    done
}
[ -z "$disks" ] || count &
if [ "$(argument agent)" = 1 ]; then
    # Without udev there are no names below /dev/virtio-ports.
    for port in /sys/class/virtio-ports/*; do
        if [ "$(cat "$port/name")" = org.qemu.guest_agent.0 ]; then
            qemu-ga -m virtio-serial -p "/dev/${port##*/}" -t /var/run -f /var/run/qemu-ga.pid &
        fi
    done
fi
disk=$(argument disk)
tick() {
    n=0
    # Goes on counting where an earlier life of this guest stopped.
    if [ "$disk" = 1 ]; then n=$(dd if=/dev/vda bs=512 count=1 2>/dev/null | sed -n 's/^tick \([0-9]*\).*/\1/p'); fi
    while :; do
        n=$((n + 1))
        # First on the disk: what was told once is not told again after a power cut.
        if [ "$disk" = 1 ]; then
            printf '%-511s\n' "tick $n" >/sector
            dd if=/sector of=/dev/vda bs=512 count=1 oflag=direct conv=notrunc 2>/dev/null || echo "DISK-ERROR"
        fi
        echo "tick $n $(uptime_s)"
        sleep 1
    done
}
tick &
while :; do setsid cttyhack sh; done
