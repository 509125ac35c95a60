# SPDX-License-Identifier: BSD-3-Clause
"""The PCI transports by themselves: transport_probe drives a controller by hand, as root and as somebody, with and
without hugepages; it is refused with the right line; it loses its device in the ways that the kernel notices."""
import os
import re
import signal

from probe import NOBODY, Held, hugepages, probe, refused
from vmguest import MIB, case, device, equal, main, note, run, wait_for

MEMORY_TEST = f'{os.environ["LANEFS_BUILD"]}/tests/unit/memory_eal_test'
MASTER = 4  # bit of the command register
one, other, quiet = device('nvme0'), device('nvme1'), device('nvme2')


def command_register(one_device):
    return int(run('setpci', '-s', one_device.address(), 'COMMAND').stdout, 16)


# ---- memory ---------------------------------------------------------------------------------------------------------
@case('DMA memory in hugepages, with virtual and physical addresses')
def memory():
    hugepages(128)
    for arguments in ([], ['physical']):
        result = run(MEMORY_TEST, *arguments, check=False)
        note(result.stdout + result.stderr)
        equal(result.returncode, 0, 'status')
        # Only what needs a machine without hugepages may be skipped.
        lines = re.sub(r'.*(in_vain|from_the_start).*\n', '', result.stdout + result.stderr)
        equal('SKIPPED' in lines.split('PASSED')[0], False, 'skipped')
    hugepages(0)


# ---- vfio -----------------------------------------------------------------------------------------------------------
@case('vfio-pci: registers, DMA, interrupts, release, and once more')
def vfio():
    address = one.bind('vfio-pci')
    equal('interrupts' in probe('vfio', address), True, 'interrupts')


@case('vfio-pci in hugepages: memory taken and given back while the device is open')
def vfio_memory():
    hugepages(128)
    address = one.bind('vfio-pci')
    probe('vfio', address)
    probe('vfio', address, 'memory')
    hugepages(0)


@case('vfio-pci for an ordinary user who may open the group')
def vfio_user():
    address = one.bind('vfio-pci')
    group = f'/dev/vfio/{one.group()}'
    refused('vfio', address, 13, f'chown {NOBODY} {group}', user=NOBODY, memlock=256 * MIB)
    os.chown(group, NOBODY, -1)
    refused('vfio', address, 12, 'the memlock limit of 8192 KiB', user=NOBODY, memlock=8 * MIB)
    probe('vfio', address, user=NOBODY, memlock=256 * MIB)
    hugepages(128)
    probe('vfio', address, 'memory', user=NOBODY, memlock=512 * MIB)
    hugepages(0)


@case('vfio-pci: what cannot be used is refused with a line that helps')
def vfio_refused():
    address = one.bind('vfio-pci')
    refused('vfio', other.bind('nvme'), 19, 'driver nvme has it, not vfio-pci: lanefs bind')
    refused('vfio', '0000:00:1f.0', 19, 'not an NVMe controller')
    refused('vfio', '0000:77:00.0', 19, 'no such PCI device')
    held = Held('vfio', address)
    refused('vfio', address, 16, f'in use (process {held.process.pid} (transport_probe))')
    held.kill()
    probe('vfio', address)


@case('vfio-pci: two devices in two processes; one lets go, the other goes on')
def vfio_two():
    first, second = Held('vfio', one.bind('vfio-pci')), Held('vfio', other.bind('vfio-pci'))
    first.tell()
    first.ends('told, alive')
    second.tell()
    second.ends('told, alive')


@case('vfio-pci, orderly removal: the device is asked for while it works, and is let go')
def vfio_orderly():
    held = Held('vfio', one.bind('vfio-pci'))
    one.unplug()
    held.ends('wanted, alive')
    wait_for(one.deleted, 'gone in QEMU')
    one.plug()
    one.bind('nvme')


@case('vfio-pci, surprise removal')
def vfio_surprise():
    held = Held('vfio', one.bind('vfio-pci'))
    one.power_off()
    held.ends('wanted, gone', timeout=150)
    wait_for(lambda: not one.there(), 'gone in the guest')
    one.plug()
    one.bind('nvme')


# ---- uio ------------------------------------------------------------------------------------------------------------
@case('uio_pci_generic: registers, DMA by physical addresses, release, and once more')
def uio():
    hugepages(128)
    address = quiet.bind('uio_pci_generic')
    equal(' 0 interrupts' in probe('uio', address), True, 'polled')
    probe('uio', address, 'memory')
    hugepages(0)


@case('uio_pci_generic: what cannot be used is refused with a line that helps')
def uio_refused():
    address = quiet.bind('uio_pci_generic')
    refused('uio', address, None, 'there are no free hugepages: set some aside: lanefs hugepages 96M')
    hugepages(128)
    refused('uio', address, None, 'physical addresses are for root alone', user=NOBODY)
    refused('vfio', address, 19, f'driver uio_pci_generic has it, not vfio-pci: lanefs bind {address}')
    refused('uio', other.bind('nvme'), 19, '--driver uio_pci_generic')
    held = Held('uio', address)
    refused('uio', address, 16, f'in use (process {held.process.pid} (transport_probe))')
    held.tell()
    held.ends('told, alive')
    hugepages(0)


@case('uio_pci_generic: a process that dies leaves no DMA behind')
def uio_killed():
    hugepages(128)
    held = Held('uio', quiet.bind('uio_pci_generic'))
    equal(command_register(quiet) & MASTER, MASTER, 'bus mastering')
    held.process.send_signal(signal.SIGKILL)
    held.kill()
    equal(command_register(quiet) & MASTER, 0, 'bus mastering')
    probe('uio', quiet.address())
    hugepages(0)


@case('uio_pci_generic: orderly removal, for which the kernel waits for nobody')
def uio_removed():
    hugepages(128)
    held = Held('uio', quiet.bind('uio_pci_generic'))
    quiet.unplug()
    wait_for(quiet.deleted, 'gone in QEMU')
    wait_for(lambda: not quiet.there(), 'gone in the guest')
    held.tell()
    held.ends('told, gone')
    quiet.plug()
    quiet.bind('nvme')
    hugepages(0)


@case('all are usable by the kernel again')
def usable():
    for each in (one, other, quiet):
        each.bind('nvme')


main()
