#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A mount changes hands while it is used: no program notices, whatever it has open; and when the hand-over fails at any
step, the daemon of before goes on as if nothing had been.

handover_test.py [--times N] [case words]: N hand-overs in a row in each case, 20 and 5 unless said.
"""
import errno
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

from lanefs_test import (BUILD, FSCK, LANEFS, MOUNT, SOURCE, UMOUNT, Image, Skip, alive, case, enable_io_uring, equal, fails, main, note, run,
                         wait_for, work_dir)
from promises import await_promises, end_writers, judge, start_writers
from user_common import User

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
            bad = 'differ' in text.lower() or 'verify:' in text or 'err=' in text.replace('err= 0', '')
            equal(bad, False, f'{name}: {text[-2000:]}')
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
    note(f'{len(pauses)} hand-overs, ms of pause: {pauses}')
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


# ---- failures ---------------------------------------------------------------------------------------------------------
def false_successor(pid, directory, step, device=None):
    """In a process of its own (the daemon makes sure that it ends): speaks as a successor does, up to a step, and fails there."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f'/run/lanefs/{pid}.sock')
    file = connection.makefile('r')

    def say(**message):
        connection.sendall(json.dumps(message).encode() + b'\n')

    say(jsonrpc='2.0', id=1, method='handover', params={'version': 1})
    facts = json.loads(file.readline())['result']
    equal((facts['directory'], facts['version']), (directory, 1))
    if step == 'facts':
        return
    say(begin=True)
    if step == 'begin':
        return
    _, fds, _, _ = socket.recv_fds(connection, 4096, 2)
    equal(len(fds), 2, 'descriptors')
    if step == 'left':
        return
    if step == 'error':
        say(error='it is only a test')
    elif step == 'garbage':
        connection.sendall(b'{{{{\n')
    elif step == 'other':
        say(steady=True)
    elif step == 'ready':
        connection.shutdown(socket.SHUT_RD)  # is dead by the time of the answer
        say(ready=True)
        connection.close()
        file.close()
        return
    elif step == 'late':
        time.sleep(600)
    elif step == 'thief':  # somebody else takes the device
        script = ('import fcntl, os, struct, sys, time\nfd = os.open(sys.argv[1], os.O_RDWR)\n'
                  'fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))\nprint("held", flush=True)\n'
                  'time.sleep(5)')
        thief = subprocess.Popen([sys.executable, '-c', script, device or f'{directory}.img'], stdout=subprocess.PIPE, text=True)
        equal(thief.stdout.readline(), 'held\n')
    connection.close()
    file.close()
    time.sleep(0.3)  # ends a moment later than it lets go


class Held:
    """What must outlive every failure."""
    def __init__(self, image):
        self.fd = os.open(f'{image.directory}/held', os.O_CREAT | os.O_RDWR)
        os.unlink(f'{image.directory}/held')
        self.image, self.number = image, 0

    def check(self):
        self.number += 1
        data = str(self.number).encode()
        os.pwrite(self.fd, data, 0)
        os.fsync(self.fd)
        equal(os.pread(self.fd, 20, 0), data)
        with open(f'{self.image.directory}/file{self.number}', 'wb') as file:
            file.write(data)

    def end(self):
        os.close(self.fd)
        wait_for(lambda: self.image.status()['filesystem']['used_inodes'] == self.number + 1, 'freed: the unlinked file')


def ends_badly(image, step, held):
    begin = time.monotonic()
    run(sys.executable, os.path.abspath(__file__), '--successor', str(image.pid), image.directory, step, check=step != 'late')
    held.check()
    took = time.monotonic() - begin
    equal(image.process.poll(), None, 'the daemon goes on')
    equal(image.status()['state'], 'mounted')
    return round(took * 1000)


@case('a successor that ends, errs or talks nonsense at each step: the daemon goes on, with everything that is open')
def failing_steps():
    for options in ('', 'reactors=2'):
        image = Image(f'steps{len(options)}', '128M')
        image.mount(options)
        held = Held(image)
        took = {step: ends_badly(image, step, held) for step in ('facts', 'begin', 'left', 'error', 'garbage', 'other', 'ready')}
        note(f'ms until the next operation is answered: {took}')
        log = open(image.log).read()
        equal(log.count('taken back') + log.count('goes on as before'), 2 * 6, log)
        adopt(image, successor(image))  # and after all of it one that works
        held.check()
        held.end()
        image.umount()
        image.fsck()


@case('a successor that never answers is killed, and the daemon goes on')
def late():
    if not os.environ.get('LANEFS_TEST_FULL'):
        raise Skip('takes 35 s: LANEFS_TEST_FULL=1')
    image = Image('late', '128M')
    image.mount()
    held = Held(image)
    waiting = []

    def wait_and_die():
        time.sleep(5)
        reader = subprocess.Popen(['dd', f'of={image.directory}/new', 'if=/dev/zero', 'count=1'], stderr=subprocess.DEVNULL)
        time.sleep(1)
        waiting.append(reader.poll())
        reader.kill()
        waiting.append(reader.wait(3))

    thread = threading.Thread(target=wait_and_die)
    thread.start()
    note(f'{ends_badly(image, "late", held)} ms')
    thread.join()
    equal(waiting, [None, -signal.SIGKILL], 'who waits meanwhile can be killed')
    held.end()
    image.umount()
    image.fsck()


@case('when it cannot be taken back either, programs see ENOTCONN, and nothing that was synced is lost')
def nobody():
    image = Image('nobody', '128M')
    image.mount()
    held = Held(image)
    held.check()
    run(sys.executable, os.path.abspath(__file__), '--successor', str(image.pid), image.directory, 'thief')
    equal(image.process.wait(30), 65, 'status of the daemon')
    fails(errno.ENOTCONN, os.fsync, held.fd)
    equal(image.mounted(), True, 'the dead mount stays')
    os.close(held.fd)
    wait_for(lambda: run(FSCK, '-n', image.target, check=False).returncode == 0, 'free and in order: the image', 30)
    image.mount()
    with open(f'{image.directory}/file1') as file:
        equal(file.read(), '1')
    equal(image.status()['filesystem']['used_inodes'], 2, 'inodes: the unlinked file is gone')
    image.umount()
    image.fsck()


@case('a request that does not end in time calls it off, and is answered in the end')
def slow_request():
    if not os.environ.get('LANEFS_TEST_FULL'):
        raise Skip('takes 15 s: LANEFS_TEST_FULL=1')
    image = Image('slow', '128M', format=False)
    image.target = f'emu:{image.path}'
    run(f'{BUILD}/mkfs/mkfs.lanefs', image.target)
    image.mount()
    with open(f'{image.directory}/file', 'w') as file:
        file.write('content' * 10000)
        file.flush()
        os.fsync(file.fileno())
    run(LANEFS, 'emu', image.directory, 'rule', 'read:delay=14s:count=1')
    reader = subprocess.Popen(['dd', f'if={image.directory}/file', 'iflag=direct', 'bs=4096'], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    refused('some requests do not end', MOUNT, '--take-over', image.directory, status=None)
    os.listdir(image.directory)
    equal(reader.communicate(timeout=30)[0], b'content' * 10000)
    equal(image.process.poll(), None, 'the daemon goes on')
    adopt(image, successor(image))
    image.umount()
    image.fsck()


def refused(line, *command, status=32, **keywords):
    result = run(*command, check=False, **keywords)
    equal((result.returncode if status else 0, result.stderr.count('\n')), (status or 0, 1), f'{command}: {result.stderr}')
    equal(line in result.stderr, True, f'{line!r} in {result.stderr!r}')


@case('what cannot be handed over is refused in one line, before anything is touched')
def refusals():
    image = Image('refusals', '128M')
    image.mount()
    held = Held(image)
    take_over = (MOUNT, '--take-over', image.directory)
    refused('no daemon of yours', 'setpriv', '--reuid=65534', '--clear-groups', *take_over, env={'PATH': os.environ['PATH']})
    refused('no daemon of yours', MOUNT, '--take-over', work_dir())
    refused('No such file or directory: name the program', LANEFS, 'upgrade', image.directory, '--program',
            f'{work_dir()}/nothing', status=1)
    refused('no daemon of yours', LANEFS, 'upgrade', work_dir(), status=3)
    refused('usage', MOUNT, '--take-over', image.directory, '-o', 'noatime', status=1)
    with socket.socket(socket.AF_UNIX) as first:  # somebody else is about to
        first.connect(f'/run/lanefs/{image.pid}.sock')
        first.sendall(b'{"jsonrpc":"2.0","id":1,"method":"handover","params":{"version":1}}\n')
        first.recv(10000)
        refused('another process is about to', *take_over)
        held.check()
    equal('pause' in open(image.log).read(), False, 'nothing was stopped')
    run(LANEFS, 'upgrade', image.directory, '--program', MOUNT)
    equal(image.process.wait(30), 0)
    image.process, image.pid = None, image.status()['pid']
    held.check()
    held.end()
    image.umount()
    image.fsck()
    memory = Image('memory', '1M', format=False)
    if enable_io_uring():
        uring = Image('uring', '128M')
        uring.mount('io_uring')
        refused('io_uring', MOUNT, '--take-over', uring.directory)
        uring.umount()
    memory.remove()


# ---- kill -9 of either, at any moment -------------------------------------------------------------------------------------
def service_again(image):
    """After a death: whoever still serves, or a new mount over the dead one."""
    try:
        os.statvfs(image.directory)
        return True
    except OSError as error:
        equal(error.errno in (errno.ENOTCONN, errno.ECONNABORTED), True, error)
    if image.process:
        image.process.wait(60)
    run(FSCK, '-n', image.target)
    image.mount()
    return False


def killed(name, victim, times):
    image = Image(name, '256M')
    ledger = f'{work_dir()}/{name}.ledger'
    open(ledger, 'w').close()
    image.mount()
    randomness = random.Random()
    served = taken = 0
    for number in range(times):
        old, old_pid = image.process, image.pid
        writers = start_writers(image.directory, ledger, number)
        await_promises(ledger, 10)
        new = successor(image)
        time.sleep(randomness.uniform(0.01, 0.13))
        (new if victim == 'successor' else old).kill()
        for process in (new, old):
            try:
                process.wait(1.5 if process.poll() is None else 0)
            except subprocess.TimeoutExpired:  # it serves
                image.process, image.pid = process, process.pid
                taken += process is new
        served += service_again(image)
        for writer in writers:
            writer.kill()
        end_writers(writers)
        judge(image.directory, ledger)
    image.pid = image.status()['pid']
    promised = judge(image.directory, ledger)
    note(f'{times} times: {served} without a gap, {taken} taken over all the same; {promised} promises held')
    equal(promised > 5 * times, True, 'enough was promised to make the test matter')
    image.umount()
    image.fsck()


@case('kill -9 of the successor at any moment: nothing that was synced is lost')
def kill_successor():
    killed('dying', 'successor', TIMES or 5)


@case('kill -9 of the daemon of before at any moment: nothing that was synced is lost')
def kill_old():
    killed('leaving', 'old', TIMES or 5)


# ---- others who want something at the same time ---------------------------------------------------------------------------
def both_end(image, new):
    for process in (image.process, new):
        process.wait(30)
    image.process, image.pid = None, 0


@case('umount.lanefs while the mount changes hands: it returns when the image is clean, whoever has served last')
def unmounting():
    image = Image('unmounting', '128M')
    randomness = random.Random()
    last = []
    for _ in range(TIMES or 6):
        image.mount()
        with open(f'{image.directory}/file', 'w') as file:
            file.write('x' * 100000)
        new = successor(image)
        time.sleep(randomness.uniform(0, 0.3))
        run(UMOUNT, image.directory)
        image.fsck()
        both_end(image, new)
        last.append('new' if 'taken over' in open(image.log).read() else 'old')
    note(f'unmounted by: {last}')


@case('SIGTERM for the daemon that is leaving is an order to unmount, for whoever serves then')
def stopping():
    image = Image('stopping', '128M')
    randomness = random.Random()
    last = []
    for _ in range(TIMES or 6):
        image.mount()
        old = image.process
        new = successor(image)
        time.sleep(randomness.uniform(0, 0.12))
        late = 'handed over' in open(image.log).read()
        old.send_signal(signal.SIGTERM)
        if late:  # passed on, if the daemon was still on its way out; else nobody was there to get it
            old.wait(10)
            time.sleep(0.5)
            ended = new.poll() is not None
            equal(ended and 'signal 15 from' not in open(image.log).read(), False, 'the successor ended without being told')
            run(UMOUNT, image.directory, check=False)  # it may be ending
        both_end(image, new)
        equal(image.mounted(), False)
        image.fsck()
        last.append('late' if late else 'new' if 'taken over' in open(image.log).read() else 'old')
    note(f'ended by: {last}')


class Curious(threading.Thread):
    """Asks a daemon how it is, one question after the other, until it ends."""

    def __init__(self, pid, method):
        super().__init__(daemon=True)
        self.question = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': method}).encode() + b'\n'
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(f'/run/lanefs/{pid}.sock')
        self.answers = 0
        self.start()

    def run(self):
        try:
            while True:
                self.connection.sendall(self.question)
                answer = self.connection.recv(1 << 20)
                if not answer:
                    break
                self.answers += answer.count(b'\n')
        except OSError:
            pass
        self.connection.close()


@case('a daemon that is asked for its state all the time answers until the end, also while it leaves')
def asked():
    image = Image('asked', '128M')
    image.mount()
    answers = 0
    for _ in range(TIMES or 8):
        curious = [Curious(image.pid, method) for method in ('status', 'stats', 'scrub_status', 'status')]
        adopt(image, successor(image))
        for thread in curious:
            thread.join(30)
            answers += thread.answers
    note(f'{answers} answers')
    equal(answers > 0, True, 'answers')
    image.umount()
    image.fsck()


@case('read-only mounts, also of an image whose journal is replayed in memory')
def read_only():
    image = Image('readonly', '128M')
    image.mount()
    with open(f'{image.directory}/file', 'w') as file:
        file.write('content')
        file.flush()
        os.fsync(file.fileno())
        image.kill()
    with open(image.path, 'rb') as file:
        before = hash(file.read())
    image.mount('ro')
    held = os.open(f'{image.directory}/file', os.O_RDONLY)
    for _ in range(2):
        adopt(image, successor(image))
        os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
        equal(os.pread(held, 100, 0), b'content')
    os.close(held)
    image.umount()
    with open(image.path, 'rb') as file:
        equal(hash(file.read()), before, 'every byte of the image')


@case('an ordinary user upgrades their own mount')
def user():
    somebody = User()
    somebody.mount()
    try:
        old = somebody.pid
        script = (f'cd {somebody.directory} && exec 5>file 6<file && rm file && echo one >&5 && '
                  f'{somebody.programs}/lanefs upgrade . --program {somebody.programs}/mount.lanefs && echo two >&5 && cat <&6')
        equal(somebody.run('sh', '-c', script).stdout, 'one\ntwo\n', 'a file of the shell that upgraded')
        somebody.pid = somebody.status()['pid']
        equal(somebody.pid != old, True, 'another process')
        wait_for(lambda: not alive(old), 'ended: the daemon of before')
    finally:
        somebody.run('umount.lanefs', somebody.directory)
    somebody.gone()


if __name__ == '__main__':
    if len(sys.argv) > 1 and sys.argv[1] == '--successor':
        false_successor(int(sys.argv[2]), sys.argv[3], sys.argv[4])
    else:
        main()
