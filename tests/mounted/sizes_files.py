# SPDX-License-Identifier: BSD-3-Clause
"""Large files, with holes, and with very many extents."""
import ctypes
import errno
import os

from lanefs_test import MIB, Image, equal, fails, note
from posix_common import libc
from sizes_common import FULL, sized

TIB = 1 << 40
BLOCK = 4096
SIZE_MAX = 2 ** 63 - 1 - BLOCK  # as doc/format.md says
EXTENTS = 100000
KEEP_SIZE, PUNCH_HOLE = 1, 2


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), 'fallocate')


def data_ranges(fd):
    """[(start, end)] by SEEK_DATA and SEEK_HOLE."""
    ranges, at = [], 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            equal(error.errno, errno.ENXIO, 'SEEK_DATA behind the last data')
            return ranges
        at = os.lseek(fd, start, os.SEEK_HOLE)
        ranges.append((start, at))


@sized
def tebibyte_with_holes(image, top):
    path = f'{top}/sparse'
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    places = [0, 5, BLOCK - 3, 7 * MIB + 1, 4096 * MIB - 2, 300 * 1024 * MIB + 77, TIB // 2 - 1, TIB - 6]
    for i, place in enumerate(places):
        equal(os.pwrite(fd, b'ABCDEF%d' % i if i < 7 else b'ABCDEF', place), 7 if i < 7 else 6, 'bytes written')
    equal(os.fstat(fd).st_size, TIB, 'size')
    os.close(fd)
    image.umount()
    image.fsck()
    image.mount()
    fd = os.open(path, os.O_RDWR)
    blocks = {block for place in places for block in (place // BLOCK, (place + 6) // BLOCK) if block * BLOCK < TIB}
    blocks.discard((TIB - 6 + 6) // BLOCK)
    ranges = data_ranges(fd)
    equal({block for start, end in ranges for block in range(start // BLOCK, -(-end // BLOCK))}, blocks, 'blocks of data')
    used = os.fstat(fd).st_blocks * 512 // BLOCK
    equal(len(blocks) <= used <= len(blocks) + 1, True, f'{used} blocks for {len(blocks)} of data')
    equal(os.pread(fd, 7, 300 * 1024 * MIB + 77), b'ABCDEF5', 'data')
    equal(os.pread(fd, 20, TIB - 10), bytes(4) + b'ABCDEF', 'the end')
    equal(os.pread(fd, MIB, TIB // 4), bytes(MIB), 'a hole')
    equal(os.pread(fd, 1, TIB), b'', 'behind the end')
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, MIB, TIB // 2 - MIB)
    equal(data_ranges(fd)[1][0], TIB // 2 // BLOCK * BLOCK, 'data behind the hole')
    equal(os.pread(fd, 7, TIB // 2 - 1), bytes(1) + b'BCDEF6', 'the edge of the hole')
    os.ftruncate(fd, TIB // 2 + 2)
    os.ftruncate(fd, 2 * TIB)
    equal(os.pread(fd, 10, TIB // 2 - 1), bytes(1) + b'BC' + bytes(7), 'cut off and grown again')
    os.ftruncate(fd, 0)
    equal(os.fstat(fd).st_blocks, 0, 'blocks')
    os.close(fd)


@sized
def largest_size(image, top):
    path = f'{top}/large'
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, SIZE_MAX)
    equal(os.fstat(fd).st_size, SIZE_MAX, 'size')
    fails(errno.EFBIG, os.ftruncate, fd, SIZE_MAX + 1)
    fails(errno.EFBIG, os.pwrite, fd, b'x', SIZE_MAX)
    fails(errno.EFBIG, fallocate, fd, 0, SIZE_MAX - 1, 2)
    equal(os.pwrite(fd, b'xy', SIZE_MAX - 1), 1, 'bytes written at the end')
    equal(os.pread(fd, 10, SIZE_MAX - 2), b'\0x', 'the last bytes')
    equal(os.lseek(fd, 0, os.SEEK_DATA), SIZE_MAX // BLOCK * BLOCK, 'data')
    os.close(fd)
    image.remount()
    equal(os.stat(path).st_size, SIZE_MAX, 'size, mounted again')
    os.truncate(path, 1)


@sized
def many_extents(image, top):
    """Every other block is a hole; some of the others are written, the rest is allocated."""
    path = f'{top}/scattered'
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    free = os.statvfs(top).f_bfree
    fallocate(fd, 0, 0, 2 * EXTENTS * BLOCK)
    for i in range(EXTENTS):
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, (2 * i + 1) * BLOCK, BLOCK)
    equal(EXTENTS <= os.fstat(fd).st_blocks // 8 <= 1.02 * EXTENTS, True, 'blocks')
    for i in range(0, EXTENTS, 50):
        os.pwrite(fd, b'%08d' % i * (BLOCK // 8), 2 * i * BLOCK)
    os.close(fd)
    image.umount()
    image.fsck()
    image.mount()
    fd = os.open(path, os.O_RDWR)
    equal(data_ranges(fd), [(2 * i * BLOCK, (2 * i + 1) * BLOCK) for i in range(0, EXTENTS, 50)], 'data')
    for at in range(0, EXTENTS, 250):
        data = os.pread(fd, 500 * BLOCK, 2 * at * BLOCK)
        for i in range(at, at + 250, 50):
            data_at = 2 * (i - at) * BLOCK
            equal(data[data_at:data_at + BLOCK], b'%08d' % i * (BLOCK // 8), f'block {2 * i}')
            equal(data[data_at + BLOCK:data_at + 100 * BLOCK].count(0), 99 * BLOCK, f'blocks behind {2 * i}')
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, EXTENTS // 2 * BLOCK, EXTENTS * BLOCK)
    equal(EXTENTS // 2 <= os.fstat(fd).st_blocks // 8 <= 0.52 * EXTENTS, True, 'blocks after punching half of it')
    os.ftruncate(fd, EXTENTS // 4 * BLOCK)
    equal(EXTENTS // 8 <= os.fstat(fd).st_blocks // 8 <= 0.13 * EXTENTS, True, 'blocks after cutting off the rest')
    os.close(fd)
    os.unlink(path)
    image.remount()
    left = free - os.statvfs(top).f_bfree
    note(f'{left} blocks fewer are free')
    equal(left < 16, True, 'space came back')


def one_large_file():
    """Several GiB over several allocation groups, for real."""
    image = Image('one-large-file', '4G')
    image.mount()
    path = f'{image.directory}/large'
    with open(path, 'wb') as file:
        for i in range(3 * 1024 if FULL else 256):
            file.write(b'%08d' % i * (MIB // 8))
    image.umount()
    image.fsck()
    image.mount()
    with open(path, 'rb') as file:
        for i in range(3 * 1024 if FULL else 256):
            equal(file.read(MIB) == b'%08d' % i * (MIB // 8), True, f'MiB {i}')
    os.unlink(path)
    image.umount()
    image.fsck()
    image.remove()
