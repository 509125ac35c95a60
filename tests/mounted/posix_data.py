# SPDX-License-Identifier: BSD-3-Clause
"""Cases of basic_test.py: the contents of files, locks, and several programs at once."""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import struct
import threading

from lanefs_test import equal, fails
from posix_common import basic, libc, mounted, pattern, read, write


# ---- files and data ---------------------------------------------------------------------------------------------------
@basic
def create_write_read(top):
    for length in (0, 1, 100, 4095, 4096, 4097, 70000, 3 * 1024 * 1024 + 17):
        data = pattern(length, length)
        write(f'{top}/f{length}', data)
        equal(read(f'{top}/f{length}'), data, f'{length} bytes')
        equal(os.stat(f'{top}/f{length}').st_size, length, 'size')


@basic
def exclusive_create_and_errors(top):
    write(f'{top}/a', b'x')
    fails(errno.EEXIST, os.open, f'{top}/a', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fails(errno.ENOENT, os.open, f'{top}/none', os.O_RDONLY)
    fails(errno.ENOTDIR, os.open, f'{top}/a/b', os.O_RDONLY)
    fails(errno.EISDIR, os.open, top, os.O_WRONLY)
    fails(errno.ENAMETOOLONG, os.open, f'{top}/{"n" * 256}', os.O_CREAT | os.O_WRONLY)
    write(f'{top}/{"n" * 255}', b'long')
    equal(read(f'{top}/{"n" * 255}'), b'long')


@basic
def overwrites_in_the_middle(top):
    model = bytearray(pattern(300000, 1))
    write(f'{top}/f', bytes(model))
    randomness = random.Random(2)
    fd = os.open(f'{top}/f', os.O_RDWR)
    for _ in range(200):
        offset, data = randomness.randrange(0, 310000), randomness.randbytes(randomness.randrange(1, 9000))
        os.pwrite(fd, data, offset)
        if offset > len(model):
            model.extend(bytes(offset - len(model)))
        model[offset:offset + len(data)] = data
    os.close(fd)
    equal(read(f'{top}/f') == bytes(model), True, 'content after random overwrites')


@basic
def append_mode(top):
    fd = os.open(f'{top}/log', os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    other = os.open(f'{top}/log', os.O_WRONLY | os.O_APPEND)
    for i in range(100):
        os.write(fd if i % 2 else other, b'%07d\n' % i)
    os.close(fd)
    os.close(other)
    equal(read(f'{top}/log'), b''.join(b'%07d\n' % i for i in range(100)))


@basic
def truncate_and_holes(top):
    path = f'{top}/f'
    write(path, b'A' * 10000)
    os.truncate(path, 5000)
    os.truncate(path, 12000)
    equal(read(path), b'A' * 5000 + bytes(7000), 'zeroes after a truncate down and up')
    os.truncate(path, 1 << 30)
    equal(os.stat(path).st_blocks < 100, True, 'a long hole takes no space')
    write(path, b'end', os.O_WRONLY, (1 << 30) - 3)
    fd = os.open(path, os.O_RDONLY)
    # With the writeback cache only the kernel knows what it holds back: all is data up to the size.
    all_data = 'writeback' in mounted['options']
    equal(os.lseek(fd, 1 << 20, os.SEEK_HOLE), 1 << 30 if all_data else 1 << 20, 'hole')
    data = os.lseek(fd, 1 << 20, os.SEEK_DATA)
    equal(data == 1 << 20 if all_data else (1 << 30) - 4096 <= data <= (1 << 30) - 3, True, f'data at {data}')
    equal(os.pread(fd, 5, (1 << 30) - 5), b'\0\0end')
    fails(errno.ENXIO, os.lseek, fd, 1 << 31, os.SEEK_DATA)
    os.close(fd)
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.close(fd)
    equal(os.stat(path).st_size, 0, 'size after O_TRUNC')


@basic
def fallocate_modes(top):
    keep, punch, zero = 1, 2, 16
    path = f'{top}/f'
    write(path, b'B' * 65536)
    fd = os.open(path, os.O_RDWR)

    def fallocate(mode, offset, length):
        if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    fallocate(punch | keep, 4096, 8192)
    equal(read(path), b'B' * 4096 + bytes(8192) + b'B' * (65536 - 12288), 'punched')
    fallocate(punch | keep, 20001, 3)
    equal(os.pread(fd, 5, 20000), b'B\0\0\0B', 'punched inside a block')
    fallocate(zero, 30000, 10000)
    equal(os.pread(fd, 10002, 29999), b'B' + bytes(10000) + b'B', 'zero range')
    fallocate(0, 65536, 1 << 20)
    equal(os.stat(path).st_size, 65536 + (1 << 20), 'size after fallocate')
    equal(os.stat(path).st_blocks * 512 >= 1 << 20, True, 'blocks reserved')
    equal(os.pread(fd, 4096, 70000), bytes(4096), 'unwritten space reads as zero')
    fallocate(keep, 2 << 20, 1 << 20)
    equal(os.stat(path).st_size, 65536 + (1 << 20), 'size after KEEP_SIZE')
    os.close(fd)


@basic
def direct_io(top):
    path = f'{top}/f'
    buffer = mmap.mmap(-1, 1 << 20)
    buffer.write(pattern(1 << 20, 3))
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
    equal(os.write(fd, buffer), 1 << 20, 'direct write')
    back = mmap.mmap(-1, 1 << 20)
    os.lseek(fd, 0, 0)
    equal(os.readv(fd, [back]), 1 << 20, 'direct read')
    equal(back[:] == buffer[:], True, 'content')
    os.close(fd)
    equal(read(path) == buffer[:], True, 'content through the cache')
    write(path, b'Z' * 10, os.O_WRONLY, 4090)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    os.readv(fd, [back])
    equal(back[4090:4100], b'Z' * 10, 'a cached write seen by a direct read')
    os.close(fd)


@basic
def mmap_shared_and_private(top):
    path = f'{top}/f'
    write(path, bytes(3 * 4096))
    fd = os.open(path, os.O_RDWR)
    shared = mmap.mmap(fd, 0, mmap.MAP_SHARED)
    private = mmap.mmap(fd, 0, mmap.MAP_PRIVATE)
    shared[5000:5005] = b'hello'
    shared.flush()
    equal(os.pread(fd, 5, 5000), b'hello', 'read after msync')
    os.pwrite(fd, b'there', 8192)
    equal(shared[8192:8197], b'there', 'mapping after write')
    private[0:4] = b'mine'
    equal(os.pread(fd, 4, 0), bytes(4), 'private pages stay private')
    private.close()
    shared.close()
    os.close(fd)
    equal(read(path)[5000:5005], b'hello')


@basic
def sync_calls(top):
    fd = os.open(f'{top}/f', os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b'x' * 5000)
    os.fsync(fd)
    os.pwrite(fd, b'y', 0)
    os.fdatasync(fd)
    os.close(fd)
    directory = os.open(top, os.O_RDONLY)
    os.fsync(directory)
    equal(libc.syncfs(directory), 0, 'syncfs')
    os.close(directory)
    write(f'{top}/s', b'sync', os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    equal(read(f'{top}/s'), b'sync')


@basic
def copy_file_range(top):
    data = pattern(500000, 4)
    write(f'{top}/from', data)
    source, target = os.open(f'{top}/from', os.O_RDONLY), os.open(f'{top}/to', os.O_CREAT | os.O_RDWR, 0o644)
    done = 0
    while done < len(data):
        got = os.copy_file_range(source, target, len(data) - done, done, done)
        equal(got > 0, True, 'progress of copy_file_range')
        done += got
    os.close(source)
    os.close(target)
    equal(read(f'{top}/to') == data, True, 'copy')


# ---- locks ------------------------------------------------------------------------------------------------------------
@basic
def locks(top):
    path = f'{top}/f'
    write(path, b'x' * 100)
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    fcntl.flock(first, fcntl.LOCK_EX)
    fails(errno.EAGAIN, fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(first, fcntl.LOCK_UN)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    open_file_lock = struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 50, 0)
    fcntl.fcntl(first, fcntl.F_OFD_SETLK, open_file_lock)
    fails(errno.EAGAIN, fcntl.fcntl, second, fcntl.F_OFD_SETLK, open_file_lock)
    child = os.fork()
    if child == 0:
        fd = os.open(path, os.O_RDWR)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 50)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
        except OSError as error:
            os._exit(0 if error.errno in (errno.EAGAIN, errno.EACCES) else 2)
        os._exit(1)
    equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0, 'POSIX locks between processes')
    os.close(first)
    os.close(second)


# ---- several at once --------------------------------------------------------------------------------------------------
@basic
def concurrent_writers(top):
    problems = []

    def work(number):
        try:
            os.mkdir(f'{top}/w{number}')
            for i in range(150):
                write(f'{top}/w{number}/f{i}', pattern(3000 + i, number * 1000 + i))
                if i % 3 == 0:
                    os.rename(f'{top}/w{number}/f{i}', f'{top}/moved-{number}-{i}')
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(problems, [])
    for number in range(6):
        for i in range(150):
            path = f'{top}/moved-{number}-{i}' if i % 3 == 0 else f'{top}/w{number}/f{i}'
            equal(read(path) == pattern(3000 + i, number * 1000 + i), True, path)


@basic
def one_file_many_readers(top):
    data = pattern(4 << 20, 9)
    write(f'{top}/f', data)
    problems = []

    def work(seed):
        randomness = random.Random(seed)
        fd = os.open(f'{top}/f', os.O_RDONLY)
        for _ in range(200):
            offset, length = randomness.randrange(len(data)), randomness.randrange(1, 100000)
            if os.pread(fd, length, offset) != data[offset:offset + length]:
                problems.append(offset)
        os.close(fd)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(problems, [])
