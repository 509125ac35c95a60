# SPDX-License-Identifier: BSD-3-Clause
"""A mount of a real controller changes hands while it is used: the old daemon shuts the controller down and closes its group
in /dev/vfio, the new one opens it. When the new one dies with the group in its hands, or somebody else takes it, the old one
goes on or says why not. A drive that is pulled afterwards is the new daemon's to wait for.

TIMES is how many there are in a row.
"""
import errno
import glob
import os
import signal
import subprocess
import time

from vmguest import case, device, equal, main, note, wait_for

from handover_test import Held, adopt, false_successor, pause_ms, successor
from lanefs_test import BUILD, fails, work_dir
from workload import Volume, Writer

TIMES = 2
WAIT_S = 100
OPTIONS = f'on_removal=wait={WAIT_S},auto_bind,cache=4M'
volume = Volume(device('nvme0'))


class Load:
    """The exerciser, which knows what every file must hold, and files that are durable one after the other. (Without mappings:
    Linux before 6.16 lets SEEK_DATA overtake the pages that closing a mapping writes.)"""

    def __init__(self):
        self.output = f'{work_dir()}/exerciser'
        os.mkdir(f'{volume.top()}/data')
        with open(self.output, 'w') as output:
            self.exerciser = subprocess.Popen(
                [f'{BUILD}/tests/mounted/random/data_exerciser', '--workers', '1', '--files', '2', '--direct-align', '1',
                 '--no-mmap', '--seconds', '600', f'{volume.top()}/data'], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=work_dir())
        self.writer = Writer(f'{volume.top()}/writer')
        self.writer.start()

    def said(self):
        with open(self.output) as file:
            return file.read()[:1500]

    def goes_on(self):
        """Since this was called something more has become durable, and nobody has seen an error."""
        count = self.writer.count
        wait_for(lambda: self.writer.count > count + 1 or self.writer.error, 'writing', 60)
        equal(self.exerciser.poll(), None, self.said())

    def end(self):
        self.goes_on()
        self.exerciser.kill()
        self.exerciser.wait(60)
        equal('DIFFERENCE' in self.said(), False, self.said())
        self.writer.judge()
        note(f'{self.writer.count} files')


@case('a filesystem on the device')
def prepare():
    volume.use('vfio-pci').mkfs('-j', '4M')
    volume.mount(OPTIONS)


@case(f'{TIMES} hand-overs in a row under load: nobody notices')
def in_a_row():
    load = Load()
    for _ in range(TIMES):
        load.goes_on()
        adopt(volume, successor(volume), 60)
    load.end()
    note(f'ms of pause: {pause_ms(volume)}')


def has_group(process):
    group = f'/dev/vfio/{volume.device.group()}'
    try:
        return any(os.readlink(path) == group for path in glob.glob(f'/proc/{process.pid}/fd/*'))
    except OSError:
        return False


@case('a successor that is killed with the device in its hands: the old one goes on')
def taken_back():
    held = Held(volume)
    new = successor(volume)
    wait_for(lambda: has_group(new) or new.poll() is not None, 'open: the device', 60)
    new.kill()
    equal(new.wait(30), -signal.SIGKILL)
    begin = time.monotonic()
    held.check()
    note(f'{time.monotonic() - begin:.1f} s until the next operation is answered')
    equal(volume.status()['pid'], volume.pid, 'who serves')
    os.close(held.fd)


@case('the drive is pulled after a hand-over, and comes back to the new daemon')
def pulled():
    writer = Writer(f'{volume.top()}/pulled')
    writer.start()
    volume.device.unplug()
    wait_for(lambda: volume.status()['state'] == 'waiting', 'waiting for the device', 60)
    wait_for(lambda: not volume.device.there(), 'gone in the guest', WAIT_S)
    wait_for(volume.device.deleted, 'gone in QEMU', 60)
    written = writer.count
    volume.device.plug()
    wait_for(lambda: volume.status()['state'] == 'mounted', 'going on', WAIT_S)
    wait_for(lambda: writer.count > written + 3, 'writing again', 60)
    writer.judge()


def can_open(path):
    try:
        os.close(os.open(path, os.O_RDWR))
        return True
    except OSError:
        return False


@case('when somebody else takes the device meanwhile, one line says so, and nothing that was synced is lost')
def nobody():
    held = Held(volume)
    held.check()
    group = f'/dev/vfio/{volume.device.group()}'
    child = os.fork()
    if child == 0:
        false_successor(volume.pid, volume.directory, 'thief', group)
        os._exit(0)
    equal(volume.process.wait(60), 65, 'status of the daemon')
    fails(errno.ENOTCONN, os.fsync, held.fd)
    os.close(held.fd)
    with open(volume.log) as log:
        said = [line for line in log if 'cannot go on' in line]
    note(said[0])
    equal((len(said), 'in use' in said[0]), (1, True), said)
    equal(os.waitpid(child, 0)[1], 0, 'what the successor ended with')
    volume.process = None
    wait_for(lambda: can_open(group), 'free: the group')
    volume.mount(OPTIONS)
    with open(f'{volume.directory}/file1') as file:
        equal(file.read(), '1', 'what was written before')
    volume.umount()
    volume.fsck()
    volume.device.bind('nvme')


main()
