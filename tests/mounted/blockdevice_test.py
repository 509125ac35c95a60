#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A kernel block device as the device: a loop device over an image. It is formatted, mounted, used, checked, mounted again;
it is refused while it is in use; and the file module's own test runs on it."""
import os

from lanefs_test import MKFS, MOUNT, Image, case, equal, loop_device, main, run

BUILD = os.environ.get('LANEFS_BUILD', 'build')


@case('a loop device is formatted, mounted, used, checked and mounted again')
def used():
    with loop_device('loop', '512M') as image:
        run(MKFS, image.path)
        top = image.mount('discard')
        run('cp', '-a', '/usr/include/linux', top)
        run('diff', '-r', '/usr/include/linux', f'{top}/linux')
        with open(f'{top}/synced', 'wb') as file:
            file.write(b'durable' * 1000)
            file.flush()
            os.fsync(file.fileno())
        busy = run(MKFS, '-f', image.path, check=False)
        equal(busy.returncode, 1, 'mkfs.lanefs of a mounted device')
        equal(len(busy.stderr.strip().splitlines()), 1, busy.stderr)
        second = run(MOUNT, image.path, image.directory, check=False)
        equal(second.returncode != 0, True, 'a second mount')
        run('rm', '-rf', f'{top}/linux/netfilter')
        image.umount()
        image.fsck()
        image.mount()
        with open(f'{image.directory}/synced', 'rb') as file:
            equal(file.read(), b'durable' * 1000, 'content')
        image.kill()
        image.fsck()
        image.mount()
        equal(os.path.exists(f'{image.directory}/linux/netfilter'), False, 'what was removed')
        image.umount()
        image.fsck()


@case('the file module works on a loop device')
def module():
    with loop_device('module', '64M') as image:
        done = run(f'{BUILD}/tests/unit/bdev_file_test', check=False, env={**os.environ, 'LANEFS_TEST_BLOCK_DEVICE': image.path})
        equal(done.returncode, 0, done.stdout + done.stderr)
        equal('SKIPPED' in done.stdout + done.stderr, False, 'skipped tests')


main()
