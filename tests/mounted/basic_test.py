#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What programs expect of a POSIX filesystem, call by call, on a real mount.

Each case works in a directory of its own; all of them run under several mount options, then the image is unmounted,
checked, mounted again, and what the cases left behind is compared with what it was.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

from lanefs_test import Image, Skip, add_case, equal, fails, main, note, run

libc = ctypes.CDLL(None, use_errno=True)
CASES = []


def basic(function):
    CASES.append(function)
    return function


def write(path, data, flags=os.O_CREAT | os.O_WRONLY | os.O_TRUNC, offset=None):
    fd = os.open(path, flags, 0o644)
    try:
        if offset is None:
            equal(os.write(fd, data), len(data), 'bytes written')
        else:
            equal(os.pwrite(fd, data, offset), len(data), 'bytes written')
    finally:
        os.close(fd)


def read(path):
    with open(path, 'rb') as file:
        return file.read()


def pattern(length, seed):
    return random.Random(seed).randbytes(length)


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
    equal(os.lseek(fd, 1 << 20, os.SEEK_HOLE), 1 << 20, 'hole')
    data = os.lseek(fd, 1 << 20, os.SEEK_DATA)
    equal((1 << 30) - 4096 <= data <= (1 << 30) - 3, True, f'data after the hole at {data}')
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


# ---- names ------------------------------------------------------------------------------------------------------------
@basic
def directories(top):
    os.mkdir(f'{top}/d', 0o750)
    equal(stat.S_IMODE(os.stat(f'{top}/d').st_mode), 0o750)
    equal(os.stat(f'{top}/d').st_nlink, 2, 'links of an empty directory')
    os.mkdir(f'{top}/d/e')
    equal(os.stat(f'{top}/d').st_nlink, 3, 'links with one subdirectory')
    fails(errno.ENOTEMPTY, os.rmdir, f'{top}/d')
    fails(errno.EEXIST, os.mkdir, f'{top}/d')
    fails(errno.ENOTDIR, os.rmdir, __file__)
    os.rmdir(f'{top}/d/e')
    equal(os.stat(f'{top}/d').st_nlink, 2)
    equal(os.path.samestat(os.stat(f'{top}/d/..'), os.stat(top)), True, '..')
    os.rmdir(f'{top}/d')
    fails(errno.ENOENT, os.stat, f'{top}/d')


@basic
def deep_directories(top):
    path = top
    for i in range(100):
        path += f'/d{i}'
        os.mkdir(path)
    write(f'{path}/bottom', b'deep')
    equal(read(f'{path}/bottom'), b'deep')


@basic
def hard_links(top):
    write(f'{top}/a', b'one')
    os.link(f'{top}/a', f'{top}/b')
    equal(os.stat(f'{top}/a').st_nlink, 2)
    equal(os.stat(f'{top}/a').st_ino, os.stat(f'{top}/b').st_ino)
    write(f'{top}/b', b'two')
    equal(read(f'{top}/a'), b'two')
    os.unlink(f'{top}/a')
    equal(os.stat(f'{top}/b').st_nlink, 1, 'links after one unlink')
    fails(errno.EPERM, os.link, top, f'{top}/dirlink')


@basic
def symlinks(top):
    for length in (1, 50, 150, 1000, 4000):
        target = 'x' * length
        os.symlink(target, f'{top}/s{length}')
        equal(os.readlink(f'{top}/s{length}'), target)
        equal(os.lstat(f'{top}/s{length}').st_size, length)
    write(f'{top}/real', b'content')
    os.symlink('real', f'{top}/link')
    equal(read(f'{top}/link'), b'content')


@basic
def special_files(top):
    os.mkfifo(f'{top}/fifo', 0o600)
    equal(stat.S_ISFIFO(os.stat(f'{top}/fifo').st_mode), True)
    os.mknod(f'{top}/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))
    equal(os.stat(f'{top}/null').st_rdev, os.makedev(1, 3))
    with open(f'{top}/null', 'rb+', buffering=0) as device:
        device.write(b'gone')
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(top)  # socket paths are short
    try:
        server.bind('socket')
    finally:
        os.chdir(here)
        server.close()
    equal(stat.S_ISSOCK(os.stat(f'{top}/socket').st_mode), True)


@basic
def renames(top):
    write(f'{top}/a', b'a')
    write(f'{top}/b', b'b')
    os.rename(f'{top}/a', f'{top}/b')
    equal(read(f'{top}/b'), b'a', 'rename replaces')
    fails(errno.ENOENT, os.stat, f'{top}/a')
    os.mkdir(f'{top}/d')
    os.mkdir(f'{top}/e')
    os.rename(f'{top}/b', f'{top}/d/c')
    os.rename(f'{top}/d', f'{top}/e/d')
    equal(read(f'{top}/e/d/c'), b'a', 'a moved directory')
    equal(os.stat(f'{top}/e').st_nlink, 3)
    fails(errno.EINVAL, os.rename, f'{top}/e', f'{top}/e/d/inside')
    os.mkdir(f'{top}/empty')
    os.rename(f'{top}/e/d', f'{top}/empty')
    equal(read(f'{top}/empty/c'), b'a', 'over an empty directory')
    os.mkdir(f'{top}/full')
    write(f'{top}/full/x', b'')
    fails(errno.ENOTEMPTY, os.rename, f'{top}/empty', f'{top}/full')
    fails(errno.EISDIR, os.rename, f'{top}/full/x', f'{top}/empty')
    fails(errno.ENOTDIR, os.rename, f'{top}/empty', f'{top}/full/x')


@basic
def rename_flags(top):
    noreplace, exchange = 1, 2

    def renameat2(old, new, flags):
        if libc.renameat2(-100, old.encode(), -100, new.encode(), flags):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    write(f'{top}/a', b'a')
    os.mkdir(f'{top}/d')
    write(f'{top}/d/b', b'b')
    fails(errno.EEXIST, renameat2, f'{top}/a', f'{top}/d/b', noreplace)
    renameat2(f'{top}/a', f'{top}/d/b', exchange)
    equal((read(f'{top}/a'), read(f'{top}/d/b')), (b'b', b'a'), 'exchanged')
    renameat2(f'{top}/a', f'{top}/d', exchange)
    equal(read(f'{top}/d'), b'b', 'a file exchanged with a directory')
    equal(read(f'{top}/a/b'), b'a')


@basic
def unlinked_open_files(top):
    fd = os.open(f'{top}/f', os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b'still here')
    os.unlink(f'{top}/f')
    fails(errno.ENOENT, os.stat, f'{top}/f')
    equal(os.fstat(fd).st_nlink, 0)
    equal(os.pread(fd, 100, 0), b'still here')
    os.write(fd, b'x' * 100000)
    equal(os.fstat(fd).st_size, 100010)
    os.close(fd)


@basic
def tmpfile(top):
    try:
        fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Skip('this kernel passes no O_TMPFILE to FUSE')
        raise
    os.write(fd, b'no name yet')
    at_fdcwd, follow = -100, 0x400  # os.link never follows
    equal(libc.linkat(at_fdcwd, f'/proc/self/fd/{fd}'.encode(), at_fdcwd, f'{top}/named'.encode(), follow), 0,
          f'linkat: {os.strerror(ctypes.get_errno())}')
    os.close(fd)
    equal(read(f'{top}/named'), b'no name yet')


@basic
def many_entries(top):
    names = [f'{"entry" if i % 3 else "a-much-longer-name-of-an-entry"}-{i:06d}' for i in range(5000)]
    for name in names:
        os.close(os.open(f'{top}/{name}', os.O_CREAT | os.O_WRONLY, 0o644))
    equal(sorted(os.listdir(top)), sorted(names), 'listing')
    for name in names[::2]:
        os.unlink(f'{top}/{name}')
    equal(sorted(os.listdir(top)), sorted(names[1::2]), 'listing after removing half')
    equal(sum(entry.is_file(follow_symlinks=False) for entry in os.scandir(top)), len(names) // 2, 'types')


@basic
def readdir_while_removing(top):
    for i in range(3000):
        write(f'{top}/f{i}', b'')
    removed = 0
    with os.scandir(top) as entries:
        for entry in entries:
            os.unlink(entry.path)
            removed += 1
    equal(removed, 3000, 'every entry seen once while entries go')
    equal(os.listdir(top), [])


# ---- attributes -------------------------------------------------------------------------------------------------------
@basic
def modes_owners_times(top):
    path = f'{top}/f'
    write(path, b'x')
    os.chmod(path, 0o4711)
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o4711)
    os.chown(path, 1234, 4321)
    result = os.stat(path)
    equal((result.st_uid, result.st_gid), (1234, 4321))
    os.utime(path, ns=(1234567890123456789, 987654321987654321))
    result = os.stat(path)
    equal((result.st_atime_ns, result.st_mtime_ns), (1234567890123456789, 987654321987654321))
    os.utime(path, ns=(-1_000_000_000, 1 << 33))
    before = os.stat(path).st_ctime_ns
    time.sleep(0.01)
    os.chmod(path, 0o600)
    equal(os.stat(path).st_ctime_ns > before, True, 'ctime moves')
    before = os.stat(top).st_mtime_ns
    time.sleep(0.01)
    write(f'{top}/g', b'')
    equal(os.stat(top).st_mtime_ns > before, True, 'mtime of the directory moves')
    os.umask(0o022)


@basic
def write_clears_suid(top):
    path = f'{top}/f'
    write(path, b'x')
    os.chown(path, 1234, 1234)
    os.chmod(path, 0o6777)
    # As another user: root's writes keep the bits.
    run(sys.executable, '-c', f'import os; os.setgid(4321); os.setuid(4321); f = open({path!r}, "r+b"); f.write(b"y")')
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o777, 'suid and sgid are gone')


@basic
def sticky_and_setgid(top):
    os.mkdir(f'{top}/shared')
    os.chown(f'{top}/shared', 0, 77)
    os.chmod(f'{top}/shared', 0o2777)
    os.mkdir(f'{top}/shared/sub')
    write(f'{top}/shared/f', b'')
    equal(os.stat(f'{top}/shared/sub').st_gid, 77)
    equal(os.stat(f'{top}/shared/sub').st_mode & stat.S_ISGID != 0, True, 'setgid is inherited by directories')
    equal(os.stat(f'{top}/shared/f').st_gid, 77)


@basic
def permissions_are_checked(top):
    os.mkdir(f'{top}/private', 0o700)
    write(f'{top}/private/f', b'secret')
    result = subprocess.run([sys.executable, '-c',
                             f'import os; os.setgid(99); os.setuid(99); open({top!r} + "/private/f")'],
                            capture_output=True, text=True)
    equal('PermissionError' in result.stderr, True, f'another user: {result.stderr[-200:]}')


@basic
def xattrs(top):
    path = f'{top}/f'
    write(path, b'x')
    values = {f'user.a{i}': pattern(size, i) for i, size in enumerate((0, 1, 10, 200, 1000, 4000, 20000))}
    for name, value in values.items():
        os.setxattr(path, name, value)
    equal(sorted(os.listxattr(path)), sorted(values))
    for name, value in values.items():
        equal(os.getxattr(path, name), value, name)
    fails(errno.EEXIST, os.setxattr, path, 'user.a1', b'', os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, path, 'user.none', b'', os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, path, 'user.none')
    os.setxattr(path, 'user.a5', b'short now')
    os.removexattr(path, 'user.a6')
    equal(os.getxattr(path, 'user.a5'), b'short now')
    fails(errno.ENODATA, os.removexattr, path, 'user.a6')
    os.setxattr(path, 'trusted.t', b'root only')
    equal(os.getxattr(path, 'trusted.t'), b'root only')
    equal(read(path), b'x', 'content is untouched')


@basic
def statfs_moves(top):
    before = os.statvfs(top)
    equal(before.f_bsize, 4096, 'block size')
    equal(before.f_namemax, 255, 'name length')
    write(f'{top}/f', bytes(8 << 20))
    fd = os.open(f'{top}/f', os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    used = before.f_bfree - os.statvfs(top).f_bfree
    equal(2048 <= used <= 2100, True, f'8 MiB take {used} blocks')


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


# ---- running them -----------------------------------------------------------------------------------------------------
def fingerprint(directory):
    """All that a walk can see, except times of access."""
    lines = []
    for folder, directories_, files in os.walk(directory):
        directories_.sort()
        for name in sorted(directories_ + files):
            path = os.path.join(folder, name)
            result = os.lstat(path)
            line = [os.path.relpath(path, directory), result.st_mode, result.st_nlink, result.st_uid, result.st_gid,
                    result.st_mtime_ns, result.st_ino, result.st_rdev]
            if stat.S_ISREG(result.st_mode):
                line += [result.st_size, result.st_blocks, hash(read(path)) if result.st_size < 64 << 20 else 0,
                         sorted((name, os.getxattr(path, name)) for name in os.listxattr(path))]
            if stat.S_ISLNK(result.st_mode):
                line.append(os.readlink(path))
            lines.append(line)
    return lines


def add_group(title, options, size='2G'):
    image = Image(title.replace(' ', '-'), size)
    os.umask(0o022)

    def start():
        image.mount(options)

    def finish():
        before = fingerprint(image.directory)
        note(f'{title}: {len(before)} files and directories left')
        image.umount()
        image.fsck()
        image.mount(options)
        after = fingerprint(image.directory)
        for old, new in zip(before, after):
            equal(new, old, 'after unmounting and mounting')
        equal(len(after), len(before))
        image.umount()
        image.fsck()

    def one(function):
        def wrapped():
            top = f'{image.directory}/{function.__name__}'
            os.mkdir(top)
            function(top)
        return wrapped

    add_case(f'{title}: mount', start)
    for function in CASES:
        add_case(f'{title}: {function.__name__.replace("_", " ")}', one(function))
    add_case(f'{title}: unmount, fsck, mount again, compare', finish)


if __name__ == '__main__':
    if os.geteuid() == 0 and os.path.exists('/dev/fuse'):
        add_group('plain', '')
        add_group('two reactors', 'reactors=2')
        add_group('writeback noopen', 'writeback,noopen')
    main()
