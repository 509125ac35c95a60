# SPDX-License-Identifier: BSD-3-Clause
"""What the programs of the scenarios share, inside the guest: devices, and requests to the host.

A program defines functions with @case and ends with main(), as the tests on a real mount do; their helpers are used here
too. device('nvme1') is a controller of the machine; its address is found through its root port, whatever driver has it.
"""
import fcntl
import glob
import itertools
import json
import os
import select
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f'{os.path.dirname(os.path.dirname(HERE))}/mounted')
# noqa comments: the programs take these from here.
from lanefs_test import BUILD, MIB, SOURCE, Skip, equal, explain, note, run, wait_for  # noqa: E402,F401

PCI = '/sys/bus/pci'
SHARE = '/vm'
SLOT_CONTROL = 'CAP_EXP+18.w'
with open(f'{SHARE}/plan.json') as _file:
    PLAN = json.load(_file)


# ---- cases ----------------------------------------------------------------------------------------------------------
_cases = []


def case(name):
    """Registers a function as a case."""
    return lambda function: _cases.append((name, function))


def main():
    """Runs the cases in their order, whatever became of those before, and exits."""
    failed = 0
    for number, (name, function) in enumerate(_cases, 1):
        begin = time.monotonic()
        try:
            function()
            print(f'ok {number} - {name}', flush=True)
        except Skip as reason:
            print(f'ok {number} - {name} # SKIP {reason}', flush=True)
        except Exception as error:  # whatever it is, the other cases still run
            failed += 1
            print(f'not ok {number} - {name}', flush=True)
            explain(error)
        note(f'{time.monotonic() - begin:.1f} s')
    sys.exit(1 if failed else 0)


# ---- the host -------------------------------------------------------------------------------------------------------
_control = os.open('/dev/ttyS1', os.O_RDWR | os.O_NOCTTY)
_lock = threading.Lock()
_numbers = itertools.count(1)


def request(do, **arguments):
    """Asks the host's runner (machine.py lists what it understands); returns its answer or raises RuntimeError."""
    with _lock:
        number = next(_numbers)
        message = {'type': 'request', 'id': number, 'do': do, **arguments}
        os.write(_control, json.dumps(message).encode() + b'\n')
        line = b''
        while not line.endswith(b'\n'):
            if not select.select([_control], [], [], 60)[0]:
                raise RuntimeError(f'the host did not answer {message}')
            line += os.read(_control, 4096)
    answer = json.loads(line)
    equal(answer['id'], number, 'number of the answer')
    if 'error' in answer:
        raise RuntimeError(f'{do}: {answer["error"]}')
    return answer['result']


# ---- devices --------------------------------------------------------------------------------------------------------
def write(path, text):
    with open(path, 'w') as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read().strip()


class PciDevice:
    """A controller of the machine. @port: address of the root port that it is in."""

    def __init__(self, name, port, block):
        self.name, self.port, self.block = name, port, block

    # ---- what sysfs says ----
    def path(self):
        found = glob.glob(f'{PCI}/devices/{self.port}/????:??:??.?')
        return found[0] if found else None

    def there(self):
        return self.path() is not None

    def address(self):
        path = self.path()
        if path is None:
            raise AssertionError(f'{self.name} is not in its port {self.port}')
        return os.path.basename(path)

    def driver(self):
        link = f'{self.path()}/driver'
        return os.path.basename(os.readlink(link)) if os.path.islink(link) else None

    def group(self):
        return int(os.path.basename(os.readlink(f'{self.path()}/iommu_group')))

    def block_device(self):
        """/dev/nvmeXn1, while the kernel's driver has it; else None."""
        found = glob.glob(f'{self.path()}/nvme/nvme*/nvme*n1')
        return f'/dev/{os.path.basename(found[0])}' if found and os.path.exists(f'/dev/{os.path.basename(found[0])}') else None

    # ---- drivers, by hand ----
    def bind(self, driver):
        """Moves it to @driver; for nvme also waits for the block device."""
        path, address = self.path(), self.address()
        if self.driver() != driver:
            write(f'{path}/driver_override', driver)
            if self.driver():
                write(f'{path}/driver/unbind', address)
            write(f'{PCI}/drivers_probe', address)
            wait_for(lambda: self.driver() == driver, f'bound to {driver}: {address}')
        if driver == 'nvme':
            wait_for(self.block_device, f'a block device: {address}')
        return address

    # ---- leaving and coming ----
    def unplug(self):
        """Orderly, by the host (device_del). Returns at once."""
        request('remove', device=self.name)

    def plug(self):
        """By the host; returns when the device is there."""
        if PLAN['native']:
            # Until the kernel has switched the empty slot off (a second after the driver let go), QEMU would take a new
            # device for the old one, and unplug it when that happens.
            wait_for(self.slot_is_off, f'switched off: the slot of {self.name}', 30)
        request('insert', device=self.name)
        wait_for(self.there, f'there: {self.name}')

    def deleted(self):
        """True when QEMU has let go of it."""
        return not request('present', device=self.name)

    def sysfs_remove(self):
        """Orderly, by the guest's administrator. Blocks until the driver has let go: call it in a thread."""
        write(f'{self.path()}/remove', '1')

    def sysfs_rescan(self):
        write(f'{PCI}/devices/{self.port}/rescan', '1')
        wait_for(self.there, f'there: {self.name}')

    def slot_power_off(self):
        """Orderly, by the slot's switch in sysfs; the slot is dark afterwards. Blocks as sysfs_remove does."""
        address = self.address().rsplit('.', 1)[0]
        slot = next(path for path in glob.glob(f'{PCI}/slots/*') if read(f'{path}/address') == address)
        write(f'{slot}/power', '0')

    def decode_off(self):
        """Surprise: it no longer answers at its addresses, and no event tells. The device itself stays."""
        run('setpci', '-s', self.address(), 'COMMAND=0:2')

    def slot_is_off(self):
        control = int(run('setpci', '-s', self.port, SLOT_CONTROL).stdout, 16)
        return control & 0x700 == 0x700

    def power_off(self):
        """Surprise: the slot's power goes, with its interrupts masked, so that the kernel hears of it only afterwards.
        PCI Express Base, Slot Control: bits 3-5 interrupts, 8-9 power indicator (3: off), 10 power controller (1: off)."""
        slot = SLOT_CONTROL
        run('setpci', '-s', self.port, f'{slot}=0000:0038', f'{slot}=0700:0700')
        wait_for(self.deleted, f'gone from QEMU: {self.name}')
        run('setpci', '-s', self.port, f'{slot}=0100:0700', f'{slot}=0038:0038')


devices = {entry['name']: PciDevice(entry['name'], entry['port'], entry['block']) for entry in PLAN['devices']}


def device(name):
    return devices[name]


# ---- data -----------------------------------------------------------------------------------------------------------
def write_pattern(path, offset, size, seed):
    """Fills a range of a file or block device with what only @seed and the place decide, and makes it durable."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, pattern(offset, size, seed), offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pattern(offset, size, seed):
    """Every 8 bytes hold their own place and the seed."""
    return b''.join((place ^ seed << 40).to_bytes(8, 'little') for place in range(offset, offset + size, 8))


def read_direct(path, offset, size):
    """Past the page cache: what is on the device now."""
    with open(path, 'rb', buffering=0) as file:
        fcntl.ioctl(file, 0x1261)  # BLKFLSBUF
        return os.pread(file.fileno(), size, offset)
