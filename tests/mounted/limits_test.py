#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""At the limits: few descriptors for the daemon and many files for its clients, thousands of requests at once, clients that are
killed in the middle of whatever they do. Afterwards fsck finds nothing and nobody holds anything."""
import os
import random
import resource
import signal
import subprocess
import sys
import time

from lanefs_test import FSCK, MOUNT, Image, case, equal, main, note, run, wait_for

FILES, THREADS = 20000, 2000
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


if __name__ == '__main__':
    main()
