#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A mount changes hands while it is used: no program notices, whatever it has open; and when the hand-over fails at any
step, the daemon of before goes on as if nothing had been.

handover_test.py [--times N] [case words]: N hand-overs in a row in each case, 20 and 5 unless said.
"""
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

from lanefs_test import BUILD, FSCK, LANEFS, MOUNT, SOURCE, Image, alive, case, equal, main, need, note, run, wait_for, work_dir

TIMES = None
if '--times' in sys.argv:
    TIMES = int(sys.argv.pop(sys.argv.index('--times') + 1))
    sys.argv.remove('--times')


# ---- handing over ---------------------------------------------------------------------------------------------------
def successor(image, program=MOUNT, **keywords):
    """Starts one in the foreground; its log goes on in the image's."""
    log = open(image.log, 'a')
    process = subprocess.Popen([program, '--take-over', image.directory, '-f'], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                               **keywords)
    log.close()
    return process


def adopt(image, process, seconds=30):
    """The successor serves, and the daemon of before has ended by itself with status 0."""
    old, pid = image.process, image.pid
    said = f'taken over from process {pid}'
    wait_for(lambda: process.poll() is not None or said in open(image.log).read(), 'taken over', seconds)
    equal(process.poll(), None, 'exit status of the successor')
    equal(old.wait(30), 0, 'exit status of the daemon of before')
    image.process, image.pid = process, process.pid


def pause_ms(image):
    words = [line.split() for line in open(image.log) if 'handed over to process' in line]
    return [int(line[-2]) for line in words]


# ---- load -------------------------------------------------------------------------------------------------------------
class Load:
    """Programs that work on the mount until they are told to stop, and fail at the first error."""

    def __init__(self, image, options=''):
        self.image, self.stop_file = image, f'{image.path}.stop'
        self.processes = {}
        if os.path.exists(self.stop_file):
            os.unlink(self.stop_file)
        for name in ('witness', 'data', 'names', 'fio'):
            os.makedirs(f'{image.directory}/{name}', exist_ok=True)
        exercisers = f'{BUILD}/tests/mounted/random'
        writeback = ['--writeback'] if 'writeback' in options else []
        self.start('witness', sys.executable, f'{SOURCE}/tests/mounted/handover_witness.py', f'{image.directory}/witness',
                   self.stop_file)
        self.start('data', f'{exercisers}/data_exerciser', '--workers', 1, '--files', 4, '--direct-align', 1, '--seconds', 600,
                   *writeback, f'{image.directory}/data')
        self.start('names', f'{exercisers}/name_exerciser', '--workers', 1, '--seconds', 600, f'{image.directory}/names')
        if shutil.which('fio'):
            self.start('fio', 'fio', '--name=load', f'--directory={image.directory}/fio', '--rw=randrw', '--bs=4k', '--size=16m',
                       '--ioengine=libaio', '--iodepth=4', '--direct=1', '--verify=crc32c', '--verify_fatal=1', '--time_based',
                       '--runtime=600', '--rate_iops=300', '--verify_backlog=64')
        self.database = sqlite3.connect(f'{image.directory}/base', check_same_thread=False, timeout=60)
        self.database.execute('create table if not exists t (k integer primary key, v text)')
        self.rows, self.error = 0, None
        self.thread = threading.Thread(target=self.transactions)
        self.thread.start()
        wait_for(lambda: 'ready' in open(self.output('witness')).read() or self.processes['witness'].poll() is not None,
                 'ready: the witness')

    def output(self, name):
        return f'{self.image.path}.{name}'

    def start(self, name, *command):
        with open(self.output(name), 'w') as output:
            self.processes[name] = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output,
                                                    stderr=subprocess.STDOUT, cwd=work_dir())

    def transactions(self):
        try:
            while not os.path.exists(self.stop_file):
                with self.database:
                    self.database.execute('insert into t values (?, ?)', (self.rows, 'x' * 2000))
                    self.database.execute('update t set v = ? where k = ?', ('y' * 1000, self.rows // 2))
                self.rows += 1
        except Exception as error:  # told by check
            self.error = error

    def check(self):
        """All of them still work."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise AssertionError(f'{name} ended with {process.returncode}: {open(self.output(name)).read()[-2000:]}')
        if self.error:
            raise self.error

    def stop(self):
        """They end without an error."""
        self.check()
        open(self.stop_file, 'w').close()
        self.thread.join(60)
        equal(self.database.execute('pragma integrity_check').fetchall(), [('ok',)], 'the database')
        equal(self.database.execute('select count(*) from t').fetchall(), [(self.rows,)], 'rows')
        self.database.close()
        equal(self.processes['witness'].wait(60), 0, open(self.output('witness')).read()[-2000:])
        for name in ('data', 'names', 'fio'):
            if name not in self.processes:
                continue
            self.processes[name].send_signal(signal.SIGINT if name == 'fio' else signal.SIGTERM)
            self.processes[name].wait(60)
            text = open(self.output(name)).read()
            equal('differ' in text.lower() or 'verify:' in text or 'err=' in text.replace('err= 0', ''), False, f'{name}: {text[-2000:]}')
        note(f'witness: {open(self.output("witness")).read().split(chr(10))[1]}; {self.rows} transactions')

    def kill(self):
        open(self.stop_file, 'w').close()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        self.thread.join(60)
        self.database.close()


def under_load(name, times, options='', drive=None):
    image = Image(name, '600M', mkfs=('-j', '8M'), format=drive is None)
    if drive is not None:
        image.target = f'emu:{image.path}' + (f',{drive}' if drive else '')
        run(f'{BUILD}/mkfs/mkfs.lanefs', '-j', '8M', image.target)
    image.mount(options)
    load = Load(image, options)
    try:
        for _ in range(TIMES or times):
            time.sleep(0.25)
            adopt(image, successor(image))
            load.check()
        time.sleep(0.25)
        load.stop()
    finally:
        load.kill()
    status = image.status()
    wait_for(lambda: image.status()['filesystem']['orphans'] == 0, 'freed: files without a name')
    equal((status['errors']['corrupt_blocks'], status['fuse']['malformed'], status['fuse']['refused_answers']), (0, 0, 0))
    pauses = pause_ms(image)
    note(f'{len(pauses)} hand-overs, ms from begin to go: {pauses}')
    equal(len(pauses), TIMES or times, 'hand-overs')
    image.umount()
    image.fsck()


@case('an image, 20 times in a row: programs with everything open, fio, a database, the exercisers')
def image_20():
    under_load('image', 20)


@case('the same on 2 reactors')
def reactors():
    under_load('reactors', 5, 'reactors=2')


@case('the same under writeback and noopen')
def writeback():
    under_load('writeback', 5, 'reactors=2,writeback,noopen')


@case('the same on an emulated drive with a volatile cache')
def drive():
    under_load('drive', 5, 'reactors=2,on_removal=wait', 'cache=16M')


if __name__ == '__main__':
    main()
