#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""on_removal=wait: an emulated drive is pulled out under programs at work and plugged in again. They see a pause and no
error, nothing is lost although the drive's cache is dropped each time; and whoever does not want to wait can leave."""
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

from lanefs_test import FSCK, LANEFS, MKFS, MOUNT, UMOUNT, Image, case, equal, main, note, run, wait_for, work_dir

ROUNDS = int(os.environ.get('LANEFS_COMEBACKS', '10'))
REMOVED = 66
DRIVE = 'cache=16M,cut=all'


class Drive(Image):
    def __init__(self, name, size='512M'):
        super().__init__(name, size, format=False)
        self.target = f'emu:{self.path},{DRIVE}'
        run(MKFS, '-q', self.target)

    def pull(self):
        run(LANEFS, 'detach', '--surprise', self.directory)
        wait_for(lambda: self.state() == 'waiting', 'waiting for the drive')

    def plug(self, *target):
        return run(LANEFS, 'attach', self.directory, *target, check=not target)

    def state(self):
        return self.status()['state']

    def ended(self, status, within=20):
        equal(self.process.wait(within), status, 'exit status of the daemon')
        self.process, self.pid = None, 0
        wait_for(lambda: not self.mounted(), 'unmounted')

    def check_after(self):
        """The medium, as the drive left it."""
        run(FSCK, '-n', self.target)


class SqliteWriter(threading.Thread):
    """Commits numbers one by one; stops at the first error, which it keeps."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.last, self.error, self.stopping = path, 0, None, False

    def run(self):
        try:
            database = sqlite3.connect(self.path, timeout=120)
            database.execute('pragma synchronous=full')
            database.execute('create table if not exists t(n integer primary key, filler text)')
            while not self.stopping:
                database.execute('insert into t values(?, ?)', (self.last + 1, 'x' * 500))
                database.commit()
                self.last += 1
            database.close()
        except Exception as error:  # what it was is what the test asks for
            self.error = error

    def judge(self):
        self.stopping = True
        self.join(60)
        equal(self.is_alive(), False, 'sqlite is stuck')
        equal(self.error, None, 'sqlite saw an error')
        database = sqlite3.connect(self.path)
        equal(database.execute('pragma integrity_check').fetchone()[0], 'ok', 'integrity_check')
        equal(database.execute('select count(*), max(n) from t').fetchone(), (self.last, self.last), 'rows of sqlite')
        database.close()


@case(f'fio --verify and sqlite go on while the drive leaves and returns {ROUNDS} times')
def work_goes_on():
    drive = Drive('work')
    drive.mount('on_removal=wait')
    fio = subprocess.Popen(
        ['fio', '--name=v', f'--directory={drive.directory}', '--size=32M', '--rw=randwrite', '--bs=4k', '--direct=1',
         '--iodepth=8', '--ioengine=io_uring', '--verify=crc32c', '--verify_backlog=256', '--loops=1000', '--time_based',
         f'--runtime={ROUNDS * 3}', '--do_verify=1'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=work_dir())
    writer = SqliteWriter(f'{drive.directory}/db')
    writer.start()
    away = 0.0
    for round_number in range(ROUNDS):
        time.sleep(0.5 + 0.13 * (round_number % 7))
        before = writer.last
        begin = time.monotonic()
        drive.pull()
        time.sleep(0.2 + 0.2 * (round_number % 4))
        drive.plug()
        wait_for(lambda: drive.state() == 'mounted', 'mounted again')
        away += time.monotonic() - begin
        wait_for(lambda: writer.last > before + 1 or writer.error, 'sqlite goes on')
    output, _ = fio.communicate(timeout=120)
    equal(fio.returncode, 0, f'fio: {output[-1500:]}')
    writer.judge()
    note(f'{writer.last} commits, {ROUNDS} times away, {away:.1f} s in all')
    drive.umount()
    drive.check_after()
    drive.mount()
    SqliteWriter.judge(writer)
    drive.umount()


@case('another drive in its place is refused by its uuid, and the right one is still taken')
def stranger():
    drive, other = Drive('mine'), Drive('other')
    drive.mount('on_removal=wait')
    with open(f'{drive.directory}/file', 'w') as file:
        file.write('here')
        file.flush()
        os.fsync(file.fileno())
    drive.pull()
    refused = drive.plug(other.target)
    equal(refused.returncode != 0, True, 'the stranger is refused')
    equal(len(refused.stderr.strip().split('\n')), 1, f'one line: {refused.stderr}')
    equal('uuid' in refused.stderr, True, f'it says why: {refused.stderr}')
    equal(drive.state(), 'waiting', 'state')
    drive.plug()
    equal(open(f'{drive.directory}/file').read(), 'here', 'content')
    drive.umount()


@case('an older copy of the same filesystem is refused: its journal is not where the mount was')
def stale_copy():
    drive = Drive('fresh')
    copy = f'{work_dir()}/copy.img'
    run('cp', '--sparse=always', drive.path, copy)
    drive.mount('on_removal=wait')
    with open(f'{drive.directory}/file', 'w') as file:
        file.write('newer')
        file.flush()
        os.fsync(file.fileno())
    drive.pull()
    refused = drive.plug(f'emu:{copy},{DRIVE}')
    equal(refused.returncode != 0, True, 'the copy is refused')
    drive.plug()
    equal(open(f'{drive.directory}/file').read(), 'newer', 'content')
    drive.umount()
    os.unlink(copy)


def parked_writer(drive):
    """A process that sits in a write which cannot be answered."""
    program = ('import os,sys\nfd=os.open(sys.argv[1], os.O_CREAT|os.O_WRONLY|os.O_DSYNC)\nprint("ready", flush=True)\n'
               'sys.stdin.readline()\nfor i in range(100000):\n os.pwrite(fd, bytes(4096), i*4096)\n')
    process = subprocess.Popen([sys.executable, '-c', program, f'{drive.directory}/parked'], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    process.stdout.readline()
    drive.pull()
    process.stdin.write('go\n')
    process.stdin.flush()
    time.sleep(1)
    equal(process.poll(), None, 'the writer waits')
    return process


@case('a parked process can be killed')
def killed():
    drive = Drive('killed')
    drive.mount('on_removal=wait')
    process = parked_writer(drive)
    process.send_signal(signal.SIGKILL)
    begin = time.monotonic()
    process.wait(10)
    note(f'dead after {time.monotonic() - begin:.2f} s')
    drive.plug()
    with open(f'{drive.directory}/after', 'w') as file:
        file.write('x')
    drive.umount()
    drive.check_after()


@case('when the deadline passes: as unmount, with the status that says so')
def deadline():
    drive = Drive('late')
    drive.mount('on_removal=wait=3')
    process = parked_writer(drive)
    begin = time.monotonic()
    drive.ended(REMOVED)
    took = time.monotonic() - begin
    equal(took < 15, True, f'ended after {took:.1f} s')
    process.wait(10)
    equal(process.returncode != 0, True, 'the writer got an error')
    drive.check_after()
    drive.mount()
    drive.umount()


def ends_the_wait(name, end):
    drive = Drive(name)
    drive.mount('on_removal=wait')
    process = parked_writer(drive)
    begin = time.monotonic()
    end(drive)
    drive.ended(REMOVED)
    process.wait(10)
    note(f'ended after {time.monotonic() - begin:.1f} s')
    equal(process.returncode != 0, True, 'the writer got an error')
    drive.check_after()


@case('SIGTERM ends the wait')
def sigterm():
    ends_the_wait('sigterm', lambda drive: os.kill(drive.pid, signal.SIGTERM))


@case('umount.lanefs ends the wait')
def unmounted():
    ends_the_wait('umount', lambda drive: run(UMOUNT, drive.directory, check=False, timeout=60))


@case('lanefs detach ends the wait')
def detached():
    ends_the_wait('detach', lambda drive: run(LANEFS, 'detach', drive.directory, check=False, timeout=60))


@case('a second mount on another drive does not notice')
def bystander():
    drive, other = Drive('leaves'), Drive('stays')
    drive.mount('on_removal=wait')
    other.mount()
    writer = SqliteWriter(f'{other.directory}/db')
    writer.start()
    drive.pull()
    before = writer.last
    wait_for(lambda: writer.last > before + 10 or writer.error, 'the other mount goes on')
    drive.plug()
    writer.judge()
    other.umount()
    drive.umount()


@case('read-only and back between the comebacks of a drive; no remount while it is away')
def remounts():
    drive = Drive('remounts', '128M')
    drive.mount('on_removal=wait=60')
    path = f'{drive.directory}/f'

    def remount(options, status=0):
        result = run(MOUNT, drive.target, drive.directory, '-o', f'remount,{options}', check=False)
        equal(result.returncode, status, result.stderr)
        return result.stderr

    def away_and_back():
        drive.pull()
        for options in ('ro', 'rw'):
            equal('its device is away' in remount(options, 32), True, options)
        drive.plug()
        wait_for(lambda: drive.state() == 'mounted', 'going on')
    for i in range(3):
        with open(path, 'w') as file:
            file.write(str(i))
            file.flush()
            os.fsync(file.fileno())
        remount('ro')
        away_and_back()
        with open(path) as file:
            equal(file.read(), str(i))
        try:
            os.mkdir(f'{drive.directory}/d')
            raise AssertionError('a read-only mount has changed')
        except OSError as error:
            equal(error.errno, errno.EROFS)
        remount('rw')
        away_and_back()  # nothing has been written since
    with open(path, 'w') as file:
        file.write('last')
    away_and_back()
    drive.umount()
    drive.check_after()
    drive.mount('ro')
    equal(drive.status()['filesystem']['read_only'], True)
    with open(path) as file:
        equal(file.read(), 'last')
    drive.umount()


if __name__ == '__main__':
    main()
