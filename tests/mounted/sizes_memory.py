# SPDX-License-Identifier: BSD-3-Clause
"""What the daemon keeps in memory while very many files are walked: no more than the cache limit and some bytes for
each inode that the kernel remembers."""
import os
import time

from lanefs_test import Image, MIB, Skip, add_case, note, run, sanitized
from sizes_common import FULL

FILES = 1000000 if FULL else 40000
DIRECTORIES = 100
BYTES_PER_INODE = 64   # for each that the kernel remembers: a 16-byte entry in a table that is doubled when 3/4 full
BESIDES = 48 * MIB     # structs of inodes in use lately, operations, buffers, code


def resident(pid):
    with open(f'/proc/{pid}/status') as file:
        return int(next(line for line in file if line.startswith('VmRSS')).split()[1]) * 1024


def allowed(known, cache):
    return 1.5 * cache + known * BYTES_PER_INODE + BESIDES


def check(image, what, cache):
    status = image.status()
    known, rss = status['filesystem']['inodes_referenced'], resident(image.pid)
    note(f'{what}: {rss / MIB:.1f} MiB resident, {known} inodes known to the kernel, '
         f'metadata cache {status["cache"]["bytes"] / MIB:.1f} MiB')
    if status['cache']['bytes'] > 1.5 * cache:
        raise AssertionError(f'{what}: {status["cache"]["bytes"]} bytes in the cache, {cache} is the limit')
    if rss > allowed(known, cache):
        raise AssertionError(f'{what}: {rss} bytes resident, allowed are {allowed(known, cache):.0f}')
    return known, rss


def make_files(directory):
    for d in range(DIRECTORIES):
        os.mkdir(f'{directory}/{d}')
        for i in range(FILES // DIRECTORIES):
            os.close(os.open(f'{directory}/{d}/file-{i}', os.O_CREAT | os.O_WRONLY))


def forgotten(image):
    """The kernel drops what nobody uses; the daemon's table of it shrinks."""
    with open('/proc/sys/vm/drop_caches', 'w') as file:
        file.write('2')
    for _ in range(200):
        known = image.status()['filesystem']['inodes_referenced']
        if known < 1000:
            return known
        time.sleep(0.1)
    raise AssertionError(f'{known} inodes are still known to the kernel after it dropped its caches')


def walk_with_a_limit():
    if sanitized():
        raise Skip('built with sanitizers')
    os.environ.pop('MALLOC_PERTURB_', None)  # meson sets it; with it all memory is touched as soon as it is allocated
    image = Image('memory', '16G' if FULL else '2G')
    cache = 16 * MIB
    image.mount(f'cache={cache}')
    make_files(image.directory)
    check(image, f'{FILES} files made', cache)
    image.remount(f'cache={cache}')
    check(image, 'mounted again', cache)
    most = 0
    for what, command in (('find', ('find', image.directory)), ('find -size', ('find', image.directory, '-size', '+1k')),
                          ('du', ('du', '-s', image.directory)), ('ls -lR', ('ls', '-lR', image.directory))):
        run(*command)
        most = max(most, check(image, what, cache)[0])
    if most < FILES * 0.9:
        note(f'the kernel remembered {most} of {FILES} files only: something drops its caches')
    forgotten(image)
    check(image, 'forgotten by the kernel', cache)
    image.umount()
    image.fsck()
    image.remove()


add_case('resident memory while many files are walked', walk_with_a_limit)
