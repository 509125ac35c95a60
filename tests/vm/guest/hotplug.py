# SPDX-License-Identifier: BSD-3-Clause
"""Devices leave and come back under the kernel's driver, in every way that the other scenarios use."""
import threading

from vmguest import MIB, PLAN, case, device, equal, main, note, pattern, read_direct, run, wait_for, write_pattern

one = device('nvme1')
NATIVE = PLAN['native']


def usable():
    wait_for(lambda: one.there() and one.driver() == 'nvme' and one.block_device(), 'usable again')
    equal(read_direct(one.block_device(), MIB, MIB) == pattern(MIB, MIB, 3), True, 'the data is still there')


@case('device_del takes a controller away, device_add brings it back')
def orderly():
    one.bind('nvme')
    write_pattern(one.block_device(), MIB, MIB, 3)
    one.unplug()
    wait_for(lambda: not one.there(), 'gone in the guest')
    wait_for(one.deleted, 'gone in QEMU')
    one.plug()
    usable()


@case('sysfs remove and rescan')
def sysfs():
    thread = threading.Thread(target=one.sysfs_remove)
    thread.start()
    thread.join(30)
    equal(one.there(), False, 'there')
    one.sysfs_rescan()
    usable()


def surprise():
    one.power_off()
    wait_for(lambda: not one.there(), 'gone in the guest')
    one.plug()
    usable()


def slot_switch():
    one.slot_power_off()
    wait_for(lambda: not one.there(), 'gone in the guest')
    wait_for(one.deleted, 'gone in QEMU')
    one.plug()
    usable()


@case('memory decode off under vfio-pci; remove and rescan mend it')
def decode():
    one.bind('vfio-pci')
    one.decode_off()
    equal(int(run('setpci', '-s', one.address(), 'COMMAND').stdout, 16) & 2, 0, 'memory decode')
    one.sysfs_remove()
    one.sysfs_rescan()
    one.bind('nvme')
    usable()


if NATIVE:
    case('the switch of the slot')(slot_switch)
    case('the slot loses its power while the kernel does not look; the device comes back')(surprise)
else:
    note('ACPI hotplug has no slot power to switch off')
main()
