#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What on_removal=wait costs: the same work on two emulated NVMe drives with a write cache, one mounted with it, one without,
interleaved: bench/on_removal.py [-r ROUNDS] [-b BUILD] [-d DIR]. Prints the median of the rounds and the ratio. Under wait
the drive's cache is off, so every write reaches the medium before it completes, and fsync has nothing left to flush."""
import argparse
import os
import statistics
import subprocess
import tempfile
import time

SIZE_MIB = 128


def rate(count, operation):
    begin = time.perf_counter()
    for i in range(count):
        operation(i)
    return count / (time.perf_counter() - begin)


def direct_writes(directory, count):
    """4 KiB O_DIRECT overwrites, nothing synced."""
    import mmap
    buffer = mmap.mmap(-1, 4096)
    fd = os.open(f'{directory}/data', os.O_WRONLY | os.O_DIRECT)
    try:
        return rate(count, lambda i: os.pwritev(fd, [buffer], (i * 7919 % (SIZE_MIB << 8)) * 4096))
    finally:
        os.close(fd)


def synced_overwrites(directory, count):
    fd = os.open(f'{directory}/data', os.O_WRONLY)

    def one(i):
        os.pwrite(fd, b'x' * 4096, (i * 104729 % (SIZE_MIB << 8)) * 4096)
        os.fdatasync(fd)
    try:
        return rate(count, one)
    finally:
        os.close(fd)


def synced_files(directory, count):
    def one(i):
        fd = os.open(f'{directory}/file', os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, b'x' * 3000)
        os.fsync(fd)
        os.close(fd)
        os.unlink(f'{directory}/file')
    return rate(count, one)


def files(directory, count):
    def one(i):
        with open(f'{directory}/f{i % 100}', 'wb') as file:
            file.write(b'x' * 3000)
    return rate(count, one)


WORK = {
    '4 KiB direct overwrite': (direct_writes, 3000),
    '4 KiB overwrite and fdatasync': (synced_overwrites, 1000),
    'create, write 3000 bytes, fsync, unlink': (synced_files, 500),
    'create or replace 3000 bytes, not synced': (files, 3000),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('-r', type=int, default=5, help='rounds (5)')
    parser.add_argument('-b', default='build', help='build folder (build)')
    parser.add_argument('-d', default='/dev/shm', help='where the media lie (/dev/shm)')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.d) as work:
        mounts = {}
        try:
            for policy in ('unmount', 'wait'):
                target, directory = f'emu:{work}/{policy}.img,cache=64M', f'{work}/{policy}'
                os.mkdir(directory)
                subprocess.run([f'{options.b}/mkfs/mkfs.lanefs', '-q', target, '1G'], check=True)
                subprocess.run([f'{options.b}/fs/daemon/mount.lanefs', target, directory, '-o', f'on_removal={policy}'], check=True)
                mounts[policy] = directory
                with open(f'{directory}/data', 'wb') as file:
                    file.write(bytes(SIZE_MIB << 20))
                    os.fsync(file.fileno())
            rates = {(name, policy): [] for name in WORK for policy in mounts}
            for _ in range(options.r):
                for name, (function, count) in WORK.items():
                    for policy, directory in mounts.items():
                        rates[name, policy].append(function(directory, count))
            print(f'{"per second":42} {"unmount":>10} {"wait":>10}  ratio')
            for name in WORK:
                one, two = (statistics.median(rates[name, policy]) for policy in ('unmount', 'wait'))
                print(f'{name:42} {one:10,.0f} {two:10,.0f}  {two / one:.2f}')
        finally:
            for directory in mounts.values():
                subprocess.run([f'{options.b}/fs/daemon/umount.lanefs', directory], check=False)


if __name__ == '__main__':
    main()
