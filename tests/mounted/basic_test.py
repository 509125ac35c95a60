#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What programs expect of a POSIX filesystem, call by call, on a real mount.

Each case works in a directory of its own; all of them run under several mount options, then the image is unmounted,
checked, mounted again, and what the cases left behind is compared with what it was.
"""
import os
import stat

import posix_data  # noqa: F401 (registers its cases)
import posix_names  # noqa: F401
from lanefs_test import Image, add_case, equal, main, note
from posix_common import CASES, libc, mounted, read


MTIME = 5  # place in a line of fingerprint()


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
    images = []

    def start():
        os.umask(0o022)
        images.append(Image(title.replace(' ', '-'), size))
        images[0].mount(options)
        mounted['options'] = options

    def finish():
        image = images[0]
        directory = os.open(image.directory, os.O_RDONLY)
        libc.syncfs(directory)  # with writeback the kernel knows things before the daemon does
        os.close(directory)
        before = fingerprint(image.directory)
        note(f'{title}: {len(before)} files and directories left')
        image.umount()
        image.fsck()
        image.mount(options)
        after = fingerprint(image.directory)
        for old, new in zip(before, after):
            if 'writeback' in options and abs(new[MTIME] - old[MTIME]) < 10 ** 9:
                new[MTIME] = old[MTIME]  # two clocks own it then: the kernel's for writes, the daemon's for fallocate
            equal(new, old, 'after unmounting and mounting')
        equal(len(after), len(before))
        image.umount()
        image.fsck()

    def one(function):
        def wrapped():
            top = f'{images[0].directory}/{function.__name__}'
            os.mkdir(top)
            function(top)
        return wrapped

    add_case(f'{title}: mount', start)
    for function in CASES:
        add_case(f'{title}: {function.__name__.replace("_", " ")}', one(function))
    add_case(f'{title}: unmount, fsck, mount again, compare', finish)


if __name__ == '__main__':
    add_group('plain', '')
    add_group('two reactors', 'reactors=2')
    add_group('writeback noopen', 'writeback,noopen')
    main()
