#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""At the limits: few descriptors for the daemon and many files for its clients, thousands of requests at once, no memory, clients
that are killed in the middle of whatever they do. Afterwards fsck finds nothing and nobody holds anything."""
import os
import random
import resource
import signal
import subprocess
import sys
import time

from lanefs_test import FSCK, MIB, MOUNT, Image, Skip, case, equal, main, note, run, sanitized, wait_for, work_dir
from promises import await_promises, end_writers, judge, start_writers

FILES, THREADS = 20000, 2000
NEED_MIB = 48  # of a daemon with one reactor and cache=4M
ROUNDS = int(os.environ.get('LANEFS_KILL_ROUNDS', '60'))

READER = '''
import os, sys, threading
path, count = sys.argv[1], int(sys.argv[2])
threading.stack_size(65536)
def work(number):
    fd = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_SYNC)
    import mmap
    page = mmap.mmap(-1, 4096)
    while True:
        os.pwritev(fd, [page], number * 4096)
        os.preadv(fd, [page], number * 4096)
threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
for thread in threads:
    thread.start()
print('started', flush=True)
threads[0].join()
'''

MEDDLER = '''
import mmap, os, random, sys
top, seed = sys.argv[1], int(sys.argv[2])
choice = random.Random(seed)
os.chdir(top)
while True:
    a, b = (f'd{choice.randrange(3)}/f{choice.randrange(12)}' for _ in range(2))
    try:
        what = choice.randrange(7)
        if what == 0:
            os.makedirs(os.path.dirname(a), exist_ok=True)
        elif what == 1:
            with open(a, 'wb') as file:
                file.write(os.urandom(choice.randrange(300000)))
        elif what == 2:
            os.rename(a, b)
        elif what == 3:
            os.unlink(a)
        elif what == 4:
            fd = os.open(a, os.O_RDWR | os.O_CREAT)
            os.ftruncate(fd, 1 << 20)
            memory = mmap.mmap(fd, 1 << 20)
            memory[:4096] = memory[8192:12288] = b'x' * 4096
            os.unlink(a)
            memory.flush()
            os.close(fd)
        elif what == 5:
            os.link(a, b)
        else:
            os.setxattr(a, 'user.x', os.urandom(choice.randrange(3000)))
    except OSError:
        pass
'''


@case(f'a daemon that may open 64 files serves clients that have {FILES} open')
def few_descriptors():
    image = Image('few', '256M')
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        image.mount()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES + 500), hard))
    count = min(hard, FILES + 500) - 500
    files = [os.open(f'{image.directory}/f{i}', os.O_RDWR | os.O_CREAT) for i in range(count)]
    for i in range(0, count, 997):
        os.write(files[i], str(i).encode())
    for i in range(0, count, 997):
        equal(os.pread(files[i], 10, 0), str(i).encode())
    note(f'{count} files open, the daemon has {len(os.listdir(f"/proc/{image.pid}/fd"))}')
    equal(image.status()['fuse']['open_files'] >= count, True, 'open files')
    for fd in files:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    image.umount()
    image.fsck()
    image.remove()


@case('a daemon that may not open enough files to start says so in one line')
def no_descriptors():
    image = Image('none', '128M')
    for limit in (6, 10, 11, 12, 16, 24):
        result = subprocess.run([MOUNT, image.path, image.directory], capture_output=True, text=True, timeout=60,
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
        if result.returncode == 0:
            image.pid = image.status()['pid']
            image.umount()
            note(f'{limit} are enough')
            break
        equal((result.returncode in (1, 2, 32), result.stderr.count('\n')), (True, 1), f'limit {limit}: {result.stderr}')
        equal(image.mounted(), False, f'limit {limit}: mounted')
    image.fsck()
    image.remove()


@case(f'{THREADS} threads with a request each, and max_background=4: killed, they are gone at once')
def many_requests():
    image = Image('many', '256M')
    image.mount('max_background=4')
    path = f'{image.directory}/f'
    with open(path, 'wb') as file:
        file.truncate(THREADS * 4096)
    for _ in range(3):
        client = subprocess.Popen([sys.executable, '-c', READER, path, str(THREADS)], stdout=subprocess.PIPE)
        equal(client.stdout.readline(), b'started\n')
        time.sleep(0.5)
        client.send_signal(signal.SIGKILL)
        begin = time.monotonic()
        client.wait(30)
        note(f'gone after {time.monotonic() - begin:.2f} s')
        with open(path, 'rb') as file:
            equal(len(file.read(4096)), 4096, 'the mount goes on')
    wait_for(lambda: image.status()['fuse']['running'] <= 1, 'no request under way')
    image.umount()
    image.fsck()
    image.remove()


@case(f'clients killed {ROUNDS} times in the middle of everything: nothing leaks')
def killed_clients():
    image = Image('killed', '256M')
    image.mount('reactors=2')
    choice = random.Random(7)
    for number in range(ROUNDS):
        clients = [subprocess.Popen([sys.executable, '-c', MEDDLER, image.directory, str(number * 4 + i)]) for i in range(2)]
        time.sleep(0.1 + choice.random() * 0.1)
        for client in clients:
            client.kill()
            client.wait(30)
    run('sh', '-c', f'rm -rf {image.directory}/*')
    wait_for(lambda: image.status()['filesystem']['orphans'] == 0, 'without orphans')
    wait_for(lambda: image.status()['filesystem']['used_inodes'] == 1, 'without inodes')
    image.umount()
    result = run(FSCK, '-n', image.target)
    equal(' 0 findings' in result.stdout + result.stderr, True, result.stdout)
    image.remove()


# ---- memory -----------------------------------------------------------------------------------------------------------
class MemoryGroup:
    """A control group of its own with a limit of memory (version 2, or 1 where that has the memory controller)."""
    NEW, OLD = '/sys/fs/cgroup', '/sys/fs/cgroup/memory'

    def __init__(self):
        with open('/proc/self/cgroup') as file:
            groups = dict(line.rstrip('\n').split(':', 2)[1:] for line in file)
        old = os.path.exists(f'{self.OLD}/memory.limit_in_bytes')
        self.home = f'{self.OLD}{groups.get("memory", "")}' if old else f'{self.NEW}{groups.get("", "/")}'
        self.path = f'{self.OLD if old else self.NEW}/lanefs-test-{os.getpid()}'
        self.files = (('memory.limit_in_bytes', 'memory.max_usage_in_bytes', 'memory.usage_in_bytes') if old else
                      ('memory.max', 'memory.peak', 'memory.current'))
        try:
            os.mkdir(self.path)
        except OSError as error:
            raise Skip(f'no control group can be made here: {error.strerror}') from error
        if not os.path.exists(f'{self.path}/{self.files[0]}'):
            os.rmdir(self.path)
            raise Skip('control groups without memory')

    def limit(self, size):
        with open(f'{self.path}/{self.files[0]}', 'w') as file:
            file.write(str(size))

    def used(self):
        with open(f'{self.path}/{self.files[2]}') as file:
            return int(file.read())

    def peak(self):
        with open(f'{self.path}/{self.files[1]}') as file:
            return int(file.read())

    @staticmethod
    def enter(path):
        with open(f'{path}/cgroup.procs', 'w') as file:
            file.write(str(os.getpid()))

    def mount(self, image, options=''):
        """The daemon and its helper live in the group, and nothing else."""
        os.environ.pop('MALLOC_PERTURB_', None)  # meson sets it; with it all memory is touched as soon as it is allocated
        self.enter(self.path)
        try:
            image.mount(options)
        finally:
            self.enter(self.home)

    def remove(self):
        wait_for(lambda: not open(f'{self.path}/cgroup.procs').read(), 'ended: what ran in the group')
        os.rmdir(self.path)


WORKER = '''
import os, sys, threading
top = sys.argv[1]
def work(number):
    page = os.urandom(1 << 20)
    for round in range(3):
        fd = os.open(f'{top}/large{number}', os.O_RDWR | os.O_CREAT)
        for i in range(4):
            os.pwrite(fd, page, i << 20)
        os.fsync(fd)
        os.close(fd)
        for i in range(200):
            with open(f'{top}/{number}-{i}', 'wb') as file:
                file.write(page[:i * 37])
            os.setxattr(f'{top}/{number}-{i}', 'user.x', page[:i])
threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
for thread in threads:
    thread.start()
'''


@case(f'a daemon with {NEED_MIB} MiB of memory serves 16 threads with large and small files')
def enough_memory():
    if sanitized():
        raise Skip('built with sanitizers')
    group = MemoryGroup()
    group.limit(NEED_MIB * MIB)
    image = Image('enough', '400M')
    try:
        group.mount(image, 'cache=4M')
        run(sys.executable, '-c', WORKER, image.directory)
        note(f'{group.peak() / MIB:.1f} MiB were used')
        equal(image.process.poll(), None, 'the daemon')
        image.umount()
        image.fsck()
    finally:
        image.remove()
        group.remove()


@case('a daemon that is killed for want of memory: as after any crash, what was synced is there')
def killed_for_memory():
    group = MemoryGroup()
    image = Image('wanting', '400M')
    ledger = f'{work_dir()}/wanting.ledger'
    open(ledger, 'w').close()
    try:
        for number in range(2):
            group.limit(NEED_MIB * MIB * (8 if sanitized() else 1))
            group.mount(image, 'cache=4M')
            writers = start_writers(image.directory, ledger, number)
            await_promises(ledger, 20)
            group.limit(group.used() + MIB)
            worker = subprocess.Popen([sys.executable, '-c', WORKER, image.directory], stderr=subprocess.DEVNULL)
            equal(image.process.wait(60), -signal.SIGKILL, 'what the daemon ended with')
            worker.wait(60)
            end_writers(writers)
            image.process, image.pid = None, 0
            run(FSCK, '-n', image.target)
            image.mount()
            note(f'{judge(image.directory, ledger)} promises held')
            image.umount()
            image.fsck()
    finally:
        image.remove()
        group.remove()


HOLDER = '''
import errno, os, sys
top, count = sys.argv[1], int(sys.argv[2])
refused = 0
for i in range(count):
    try:
        os.close(os.open(f'{top}/d{i % 50}/{i}', os.O_CREAT | os.O_WRONLY))
        os.setxattr(f'{top}/d{i % 50}/{i}', 'user.x', bytes(100))
    except OSError as error:
        if error.errno != errno.ENOMEM:
            sys.exit(f'{i}: {error}')
        refused += 1
print(refused)
'''


@case('a daemon that gets no more memory (RLIMIT_DATA): callers get ENOMEM or what they want, and with more memory all goes on')
def no_more_memory():
    if sanitized():
        raise Skip('built with sanitizers, which end the program then')
    image = Image('narrow', '600M')
    image.mount('cache=1G,reactors=2')
    for i in range(50):
        os.mkdir(f'{image.directory}/d{i}')
    with open(f'/proc/{image.pid}/status') as file:
        size = next(int(line.split()[1]) << 10 for line in file if line.startswith('VmData:'))
    resource.prlimit(image.pid, resource.RLIMIT_DATA, (size, resource.RLIM_INFINITY))
    refused = int(run(sys.executable, '-c', HOLDER, image.directory, '10000').stdout)
    note(f'{refused} of 10000 files were refused for want of memory')
    equal(image.process.poll(), None, 'the daemon')
    equal(refused > 0, True, 'the limit was met')
    resource.prlimit(image.pid, resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    equal(run(sys.executable, '-c', HOLDER, image.directory, '1000').stdout, '0\n', 'refused with more memory')
    equal(image.status()['state'], 'mounted')
    image.umount()
    image.fsck()
    image.remove()


if __name__ == '__main__':
    main()
