# SPDX-License-Identifier: BSD-3-Clause
"""The PCI transports by themselves: transport_probe drives a controller by hand, as root and as somebody, with and without
hugepages; it is refused with the right line; it loses its device in every way."""
import os
import pwd
import re
import resource
import signal
import subprocess
import time

from vmguest import MIB, case, device, equal, main, note, run, wait_for, write

PROBE = f'{os.environ["LANEFS_BUILD"]}/tests/vm/transport_probe'
MEMORY_TEST = f'{os.environ["LANEFS_BUILD"]}/tests/unit/memory_eal_test'
NOBODY = pwd.getpwnam('nobody').pw_uid
MASTER = 4  # bit of the command register
SLOT = 'CAP_EXP+18.w'
one, other, quiet = device('nvme0'), device('nvme1'), device('nvme2')


def hugepages(count):
    write('/proc/sys/vm/nr_hugepages', str(count))


def start_as(user, memlock):
    """What the child does before it becomes the probe: its memlock limit, then its user."""
    def prepare():
        if memlock:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
        if user is not None:
            os.setgroups([])
            os.setuid(user)
    return prepare


def probe(driver, address, what='exchange', user=None, memlock=None):
    """Runs it; every claim must hold. Returns its output."""
    result = run(PROBE, driver, address, what, check=False, timeout=60, preexec_fn=start_as(user, memlock))
    note(f'{driver} {what}: {result.returncode}')
    note(result.stdout + result.stderr)
    if result.returncode:
        raise AssertionError(f'transport_probe {driver} {what}:\n{result.stdout}{result.stderr}')
    return result.stdout


def refused(driver, address, error, text, user=None, memlock=None):
    """It says one line: @error (None: from before the device was looked at) and @text."""
    result = run(PROBE, driver, address, 'exchange', check=False, timeout=60, preexec_fn=start_as(user, memlock))
    lines = [line for line in (result.stdout + result.stderr).split('\n') if line and not line.startswith('#')]
    note('\n'.join(lines))
    equal(result.returncode, 1, 'status')
    equal(len(lines), 1, 'lines')
    if text not in lines[0] or error and not lines[0].startswith(f'refused {error} {address}: '):
        raise AssertionError(f'not said: {error} {text}')


class Held:
    """A probe that holds its device until it is wanted, told or killed."""

    def __init__(self, driver, address):
        self.process = subprocess.Popen([PROBE, driver, address, 'hold'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        self.read_until('holding')

    def read_until(self, wanted):
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip())
            note(lines[-1])
            if re.search(wanted, line):
                return
        raise AssertionError('\n'.join(lines))

    def tell(self):
        self.process.stdin.write('\n')
        self.process.stdin.flush()

    def ends(self, state, timeout=60):
        """It says @state, and all its claims hold."""
        self.process.wait(timeout)
        output = self.process.stdout.read()
        note(output)
        equal(re.search(r'^(wanted|told|timeout), (alive|gone)$', output, re.M).group(0), state, 'state')
        equal(self.process.returncode, 0, 'status')

    def kill(self):
        self.process.kill()
        self.process.communicate()


def command_register(one):
    return int(run('setpci', '-s', one.address(), 'COMMAND').stdout, 16)


# ---- memory ---------------------------------------------------------------------------------------------------------
@case('DMA memory in hugepages, with virtual and physical addresses')
def memory():
    hugepages(128)
    for arguments in ([], ['physical']):
        result = run(MEMORY_TEST, *arguments, check=False)
        note(result.stdout + result.stderr)
        equal(result.returncode, 0, 'status')
        equal('SKIPPED' in re.sub(r'.*in_vain.*\n', '', result.stdout + result.stderr).split('PASSED')[0], False, 'skipped')
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


@case('vfio-pci, surprise removal that the kernel does not notice: the release takes long, and nobody waits for it')
def vfio_unnoticed():
    hugepages(128)
    held = Held('vfio', one.bind('vfio-pci'))
    run('setpci', '-s', one.port, f'{SLOT}=0000:0038', f'{SLOT}=0700:0700')
    wait_for(one.deleted, 'gone from QEMU')
    held.tell()
    begin = time.monotonic()
    held.ends('told, gone', timeout=150)
    note(f'{time.monotonic() - begin:.1f} s until it was released')
    hugepages(0)
    # The reset has swallowed the slot's event: the kernel still believes in the device.
    one.sysfs_remove()
    run('setpci', '-s', one.port, f'{SLOT}=0100:0700', f'{SLOT}=0038:0038')
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
    refused('uio', address, None, 'there are no free hugepages: set some aside: sysctl -w vm.nr_hugepages=128')
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
