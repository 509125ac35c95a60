# SPDX-License-Identifier: BSD-3-Clause
"""A program that has everything open that can be open on a mount, uses all of it in turn, and ends with a trace at the first
thing that is not as it must be: an error, another byte, a lost lock.

handover_witness.py DIR STOP: works in DIR until the file STOP exists; the last line says how long the slowest step took.
"""
import ctypes
import fcntl
import mmap
import os
import random
import shutil
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.opendir.argtypes = [ctypes.c_char_p]
libc.readdir.argtypes = libc.telldir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
ENTRIES, BYTES = 700, 1 << 20
IN_CREATE, AT_FDCWD, AT_SYMLINK_FOLLOW = 0x100, -100, 0x400


def same(actual, wanted, what):
    if actual != wanted:
        raise AssertionError(f'{what}: got {actual!r:.200}, wanted {wanted!r:.200}')


class Unlinked:
    """A file without a name: what was written through one descriptor is read through the other."""
    def __init__(self):
        self.fd = os.open('unlinked', os.O_CREAT | os.O_RDWR, 0o600)
        self.other = os.open('unlinked', os.O_RDONLY)
        os.unlink('unlinked')
        self.bytes = bytearray(BYTES)
        os.pwrite(self.fd, self.bytes, 0)

    def step(self, randomness):
        at, data = randomness.randrange(BYTES - 5000), randomness.randbytes(randomness.randrange(1, 5000))
        same(os.pwrite(self.fd, data, at), len(data), 'bytes written to the unlinked file')
        self.bytes[at:at + len(data)] = data
        if randomness.random() < 0.1:
            os.fsync(self.fd)
        same(os.fstat(self.fd).st_nlink, 0, 'links of the unlinked file')
        same(os.pread(self.other, BYTES, 0), bytes(self.bytes), 'content of the unlinked file')


class Nameless:
    """O_TMPFILE: gets its name later, and is whole then."""
    def __init__(self):
        self.number, self.fd = 0, None

    def step(self, randomness):
        if self.fd is None:
            self.fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
            self.data = randomness.randbytes(30000)
            os.write(self.fd, self.data)
        elif randomness.random() < 0.3:
            self.number += 1
            same(libc.linkat(AT_FDCWD, f'/proc/self/fd/{self.fd}'.encode(), AT_FDCWD, f'named{self.number}'.encode(),
                             AT_SYMLINK_FOLLOW), 0, 'linkat')
            os.close(self.fd)
            self.fd = None
            with open(f'named{self.number}', 'rb') as file:
                same(file.read(), self.data, 'content of a file that got its name late')
            os.unlink(f'named{self.number}')


class Listing:
    """An open directory: positions stay what they were."""
    def __init__(self):
        os.mkdir('listed')
        for i in range(ENTRIES):
            os.mknod(f'listed/entry{i}')
        self.directory = libc.opendir(b'listed')
        self.positions = {}

    def next(self):
        entry = libc.readdir(self.directory)
        return ctypes.string_at(entry + 19) if entry else None

    def step(self, randomness):
        if self.positions and randomness.random() < 0.5:
            position = randomness.choice(list(self.positions))
            libc.seekdir(self.directory, position)
            same(self.next(), self.positions[position], 'the entry at a position of before')
        for _ in range(randomness.randrange(60)):
            position = libc.telldir(self.directory)
            name = self.next()
            if name is None:
                libc.rewinddir(self.directory)
                names = {self.next() for _ in range(ENTRIES + 2)}
                same(len(names), ENTRIES + 2, 'entries of a listing')
                libc.rewinddir(self.directory)
                return
            same(self.positions.setdefault(position, name), name, 'the entry at the same position')


class Mapped:
    """A shared mapping, and the same bytes through read."""
    def __init__(self):
        self.fd = os.open('mapped', os.O_CREAT | os.O_RDWR)
        os.ftruncate(self.fd, BYTES)
        self.memory = mmap.mmap(self.fd, BYTES)
        self.bytes = bytearray(BYTES)

    def step(self, randomness):
        at = randomness.randrange(BYTES - 100)
        data = randomness.randbytes(100)
        self.memory[at:at + 100] = self.bytes[at:at + 100] = data
        if randomness.random() < 0.3:
            self.memory.flush()
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        same(self.memory[:], bytes(self.bytes), 'the mapping')
        same(os.pread(self.fd, BYTES, 0), bytes(self.bytes), 'the mapped file')


class Locked:
    """Locks of all three kinds keep others out."""
    def __init__(self):
        self.fds = [os.open(f'locked{i}', os.O_CREAT | os.O_RDWR) for i in range(2)]
        fcntl.flock(self.fds[0], fcntl.LOCK_EX)
        fcntl.lockf(self.fds[1], fcntl.LOCK_EX, 100, 50)

    def step(self, randomness):
        script = ('import fcntl, os, sys\n'
                  'for name, lock in (("locked0", lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),\n'
                  '                   ("locked1", lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 60))):\n'
                  '    try: lock(os.open(name, os.O_RDWR)); sys.exit(f"{name} is not locked")\n'
                  '    except BlockingIOError: pass\n')
        if randomness.random() < 0.05:
            subprocess.run([sys.executable, '-Sc', script], check=True)


class Watched:
    """inotify."""
    def __init__(self):
        os.mkdir('watched')
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        same(libc.inotify_add_watch(self.fd, b'watched', IN_CREATE) > 0, True, 'watch')

    def step(self, randomness):
        name = f'watched/{randomness.randrange(10**9)}'
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
        same(os.path.basename(name).encode() in os.read(self.fd, 4096), True, 'the event of a creation')
        os.unlink(name)


class Running:
    """A program of this mount runs: it cannot be written to, and can be started again."""
    def __init__(self):
        shutil.copy2(shutil.which('sleep'), 'program')
        self.process = subprocess.Popen(['./program', '600'])

    def step(self, randomness):
        if randomness.random() > 0.2:
            return
        same(self.process.poll(), None, 'the running program')
        try:
            os.open('program', os.O_WRONLY)
            raise AssertionError('a running program can be written to')
        except OSError as error:
            same(error.strerror, 'Text file busy', 'writing to a running program')
        subprocess.run(['./program', '0'], check=True)

    def end(self):
        self.process.kill()
        self.process.wait()


class Appended:
    """O_APPEND, O_DIRECT and O_SYNC descriptors stay what they are."""
    def __init__(self):
        self.append = os.open('appended', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.direct = os.open('direct', os.O_CREAT | os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
        self.page = mmap.mmap(-1, 4096)
        self.size = self.count = 0

    def step(self, randomness):
        self.size += os.write(self.append, randomness.randbytes(randomness.randrange(1, 3000)))
        same(os.stat('appended').st_size, self.size, 'size of the appended file')
        self.count += 1
        data = self.count.to_bytes(4, 'little') * 1024
        self.page[:] = data
        same(os.pwritev(self.direct, [self.page], 4096 * (self.count % 50)), 4096, 'bytes written directly')
        self.page[:] = bytes(4096)
        os.preadv(self.direct, [self.page], 4096 * (self.count % 50))
        same(self.page[:], data, 'what was written directly')


class Names:
    """The working directory is on the mount: names, attributes and extended attributes."""
    def __init__(self):
        self.home = os.getcwd()

    def step(self, randomness):
        same(os.getcwd(), self.home, 'the working directory')
        number = randomness.randrange(10**9)
        with open(f'name{number}', 'w') as file:
            file.write(str(number))
        os.setxattr(f'name{number}', 'user.number', str(number).encode())
        os.rename(f'name{number}', f'other{number}')
        same(os.getxattr(f'other{number}', 'user.number'), str(number).encode(), 'attribute')
        with open(f'other{number}') as file:
            same(file.read(), str(number), 'content behind a rename')
        os.unlink(f'other{number}')
        same(os.path.exists(f'other{number}'), False, 'what was removed')


def main():
    os.chdir(sys.argv[1])
    randomness = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else None)
    everything = [kind() for kind in (Unlinked, Nameless, Listing, Mapped, Locked, Watched, Running, Appended, Names)]
    slowest, steps = 0, 0
    print('ready', flush=True)
    try:
        while not os.path.exists(sys.argv[2]):
            for thing in everything:
                begin = time.monotonic()
                thing.step(randomness)
                slowest = max(slowest, time.monotonic() - begin)
                steps += 1
    finally:
        everything[6].end()
    print(f'{steps} steps, slowest {slowest * 1000:.0f} ms', flush=True)


main()
