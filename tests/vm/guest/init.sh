#!/bin/busybox sh
# SPDX-License-Identifier: BSD-3-Clause
# The first process of a test VM. It loads the modules, puts a tmpfs over the host's root (read-only, by 9p), mounts the
# writable share at /vm, runs guest/main.py in there, and ends the machine through the isa-debug-exit device. What the
# host believes is the file /vm/exit; without it the guest did not get to its end.
/bin/busybox --install -s /bin
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
devices=/dev

finish() {
	sync
	printf '\000' | dd of="$devices/port" bs=1 seek=244 2>/dev/null # port 0xf4
	poweroff -f
}
give_up() {
	echo "lanefs-vm: $1 failed"
	finish
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do
	insmod "/modules/$module.ko" || echo "lanefs-vm: module $module did not load"
done

ninep=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$ninep,cache=loose,ro" host /host || give_up "mounting the host's root"
mount -t tmpfs -o size=75% tmpfs /overlay
mkdir /overlay/upper /overlay/work
mount -t overlay -o lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work overlay /root || give_up "mounting the overlay"
mkdir -p /root/vm
mount -t 9p -o "$ninep,cache=none" share /root/vm || give_up "mounting the share"
for directory in proc sys dev; do mount --move "/$directory" "/root/$directory"; done
devices=/root/dev
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
hostname lanefs-vm

echo '{"type": "ready"}' >/root/dev/ttyS1
chroot /root /usr/bin/python3 "$(cat /root/vm/main)" >/root/vm/guest.log 2>&1
echo $? >/root/vm/exit
finish
