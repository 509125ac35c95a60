# SPDX-License-Identifier: BSD-3-Clause
"""The device leaves while a lanefs on it is busy, ten times, and comes back each time.

Each round: a writer puts files in and notes outside of the mount what fsync has acknowledged; the device goes, in one of
the ways below; the daemon ends with its status for a removed device, the mount is gone, the writer got an error and does
not hang. Then the device returns; the filesystem is whole, and everything acknowledged in all rounds is there. After an
orderly removal it is also marked clean before anything has mounted it again.

Run as "removal.py writer DIRECTORY LEDGER" this is the writer.
"""
import errno
import hashlib
import os
import random
import subprocess
import sys
import threading
import time

ROUNDS = 10
EXIT_REMOVED = 66
DEADLINE_S = 20
EXPECTED_ERRORS = {errno.EIO, errno.ENOTCONN, errno.ENODEV, errno.ECONNABORTED, errno.ENOENT}


# ---- the writer -----------------------------------------------------------------------------------------------------
def writer(directory, ledger):
    """Until an error: its number is the last line. A file counts once it and its name are durable."""
    randomness = random.Random(os.path.basename(directory))
    with open(ledger, 'w', buffering=1) as acknowledged:
        try:
            os.mkdir(directory)
            for number in range(1000000):
                path = f'{directory}/file-{number}'
                data = randomness.randbytes(randomness.choice((100, 5000, 70000)))
                with open(path, 'wb', buffering=0) as file:
                    file.write(data)
                    os.fsync(file.fileno())
                for folder in (directory, os.path.dirname(directory)):
                    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                    try:
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
                acknowledged.write(f'{path} {hashlib.sha256(data).hexdigest()}\n')
        except OSError as error:
            acknowledged.write(f'error {error.errno}\n')


if sys.argv[1:2] == ['writer']:
    writer(*sys.argv[2:])
    sys.exit(0)

from vmguest import PLAN, case, device, equal, main, note, run, wait_for  # noqa: E402

from lanefs_test import FSCK, sha256, work_dir  # noqa: E402
from workload import Volume  # noqa: E402

SURPRISE = os.environ['VM_SCENARIO'] == 'surprise'
volume = Volume(device('nvme0' if SURPRISE else 'nvme1'))
ledgers = []


def lines(path):
    with open(path) as file:
        return [line.split() for line in file.read().split('\n') if line]


def check_ledgers():
    """Whatever was acknowledged in any round is there."""
    for path in ledgers:
        for name, digest in lines(path):
            if name != 'error':
                equal(sha256(name), digest, name)


# ---- ways to leave --------------------------------------------------------------------------------------------------
def sysfs_remove():
    threading.Thread(target=volume.device.sysfs_remove, daemon=True).start()


def slot_power_off():
    threading.Thread(target=volume.device.slot_power_off, daemon=True).start()


def back_by_plug():
    # A kernel that notices too late tries for over a minute to reset what is not there.
    wait_for(lambda: not volume.device.there(), 'gone in the guest', 120)
    wait_for(volume.device.deleted, 'gone in QEMU', 30)
    volume.device.plug()


def back_by_rescan():
    if volume.device.there():
        sysfs_remove()
    wait_for(lambda: not volume.device.there(), 'gone in the guest', 30)
    volume.device.sysfs_rescan()


WAYS = {
    'slot power lost': (volume.device.power_off, back_by_plug),
    'memory decode switched off': (volume.device.decode_off, back_by_rescan),
    'device_del': (volume.device.unplug, back_by_plug),
    'sysfs remove': (sysfs_remove, back_by_rescan),
    'sysfs slot power': (slot_power_off, back_by_plug),
}
if SURPRISE:
    MINE = ['slot power lost', 'memory decode switched off']
elif PLAN['native']:
    MINE = ['device_del', 'sysfs remove', 'sysfs slot power', 'sysfs remove']
else:
    MINE = ['device_del', 'sysfs remove']


# ---- a round --------------------------------------------------------------------------------------------------------
def start_writer(number):
    ledger = f'{work_dir()}/ledger-{number}'
    process = subprocess.Popen([sys.executable, os.path.abspath(__file__), 'writer', f'{volume.top()}/round-{number}', ledger])
    wait_for(lambda: os.path.exists(ledger) and len(lines(ledger)) >= 5, 'busy: the writer', 60)
    ledgers.append(ledger)
    return process, ledger


def round_of(number, way):
    leave, come_back = WAYS[way]
    volume.use('vfio-pci').mount()
    check_ledgers()
    process, ledger = start_writer(number)
    time.sleep(random.Random(number).random() / 2)
    begin = time.monotonic()
    leave()
    try:
        status = volume.process.wait(DEADLINE_S)
        note(f'{way}: the daemon ended {time.monotonic() - begin:.2f} s after the device began to leave')
        equal(status, EXIT_REMOVED, 'exit status of the daemon')
        wait_for(lambda: not volume.mounted(), 'gone: the mount', 5)
        process.wait(10)
        last = lines(ledger)[-1]
        equal(last[0], 'error', 'what the writer ended with')
        equal(int(last[1]) in EXPECTED_ERRORS, True, f'errno {last[1]} is one of a removed device')
    finally:  # whatever it was, the next round begins with a device and without a daemon
        process.kill()
        if volume.process and volume.process.poll() is None:
            volume.kill()
        volume.process, volume.pid = None, 0
        come_back()
    volume.use('vfio-pci')
    said = run(FSCK, '-n', volume.path).stdout
    if not SURPRISE:
        equal('not unmounted cleanly' in said, False, f'left uncleanly ({said.strip()[-300:]})')


@case('a filesystem on the device')
def prepare():
    volume.use('vfio-pci').mkfs('-j', '4M')


for _number in range(ROUNDS):
    _way = MINE[_number % len(MINE)]
    case(f'round {_number + 1}, {_way}')(lambda number=_number, way=_way: round_of(number, way))


@case('everything acknowledged in any round is there')
def final():
    volume.use('vfio-pci').mount()
    check_ledgers()
    note(f'{sum(len(lines(path)) - 1 for path in ledgers)} files')
    volume.umount()
    volume.fsck()
    volume.use('nvme')


main()
