# SPDX-License-Identifier: BSD-3-Clause
"""Large directories, many links, long names and paths, deep trees, many attributes."""
import errno
import hashlib
import os

from lanefs_test import equal, fails, note, run
from sizes_common import FULL, sized

ENTRIES = 1000000 if FULL else 20000
LINKS = 65000 if FULL else 10000  # 65,000 in tests/sim/sizes_test.c, too
DEPTH = 10000 if FULL else 2500
ATTRIBUTES = 3000


def listing(directory):
    """What readdir gives: every name once."""
    names = os.listdir(directory)
    there = set(names)
    equal(len(names), len(there), 'names, each once')
    return there


@sized
def large_directory(image, top):
    """Made, listed, looked up, renamed, removed: and in the end as small as it was."""
    directory = f'{top}/many'
    os.mkdir(directory)
    small = os.stat(directory).st_blocks
    fd = os.open(directory, os.O_RDONLY)
    for i in range(ENTRIES):
        os.close(os.open(f'file-{i}', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=fd))
    equal(listing(directory), {f'file-{i}' for i in range(ENTRIES)}, 'names')
    fails(errno.ENOENT, os.stat, f'{directory}/file-{ENTRIES}')
    fails(errno.EEXIST, os.mkdir, f'{directory}/file-{ENTRIES - 1}')
    fails(errno.ENOTEMPTY, os.rmdir, directory)
    for i in range(0, ENTRIES, 3):
        os.rename(f'file-{i}', f'renamed-{i}', src_dir_fd=fd, dst_dir_fd=fd)
    for i in range(1, ENTRIES, 3):
        os.unlink(f'file-{i}', dir_fd=fd)
    wanted = {f'renamed-{i}' if i % 3 == 0 else f'file-{i}' for i in range(ENTRIES) if i % 3 != 1}
    os.close(fd)
    image.umount()
    image.fsck()
    image.mount()
    equal(listing(directory), wanted, 'names after renaming and removing')
    for name in list(wanted)[::37]:
        os.stat(f'{directory}/{name}')
    fails(errno.ENOENT, os.stat, f'{directory}/file-0')
    fails(errno.ENOENT, os.stat, f'{directory}/file-1')
    fd = os.open(directory, os.O_RDONLY)
    for entry in os.scandir(fd):  # removes while it lists
        os.unlink(entry.name, dir_fd=fd)
    os.close(fd)
    equal(os.listdir(directory), [], 'entries left')
    equal(os.stat(directory).st_blocks, small, 'blocks of the directory when it is empty again')
    os.rmdir(directory)


@sized
def many_links(image, top):
    path = f'{top}/linked'
    with open(path, 'w') as file:
        file.write('one file')
    for d in range(65):
        os.mkdir(f'{top}/{d}')
    for i in range(1, LINKS):
        os.link(path, f'{top}/{i % 65}/{i}')
    equal(os.stat(path).st_nlink, LINKS, 'links')
    image.remount()
    equal(os.stat(f'{top}/7/7').st_nlink, LINKS, 'links, mounted again')
    equal(os.stat(f'{top}/8/8').st_ino, os.stat(path).st_ino, 'inode')
    run('rm', '-r', *(f'{top}/{d}' for d in range(65)))
    equal(os.stat(path).st_nlink, 1, 'links left')
    with open(path) as file:
        equal(file.read(), 'one file', 'content')


@sized
def longest_names(image, top):
    names = [bytes([1 + (i * 7 + k * k) % 46 if k % 5 else 128 + i % 100 for k in range(250)]) + b'%05d' % i
             for i in range(300)]
    directory = os.fsencode(top)
    for name in names:
        equal(len(name), 255, 'length')
        os.close(os.open(directory + b'/' + name, os.O_CREAT | os.O_WRONLY))
    equal(sorted(os.listdir(directory)), sorted(names), 'names of 255 bytes')
    fails(errno.ENAMETOOLONG, os.open, directory + b'/' + b'x' * 256, os.O_CREAT | os.O_WRONLY)
    fails(errno.ENAMETOOLONG, os.rename, directory + b'/' + names[0], directory + b'/' + b'x' * 256)
    os.rename(directory + b'/' + names[0], directory + b'/' + b'y' * 255)
    image.remount()
    equal(sorted(os.listdir(directory)), sorted(names[1:] + [b'y' * 255]), 'mounted again')
    os.link(directory + b'/' + b'y' * 255, directory + b'/' + b'z' * 255)
    os.symlink(b'z' * 255, directory + b'/' + b's' * 255)
    equal(os.stat(directory + b'/' + b's' * 255).st_nlink, 2, 'links')


@sized
def path_max(image, top):
    """The longest path that the kernel takes (4095 bytes) leads to a file."""
    path = top
    while len(path) + 256 < 4095 - 2:
        path += '/' + 'd' * 255
        os.mkdir(path)
    path += '/' + 'f' * (4095 - len(path) - 1)
    equal(len(path), 4095, 'length')
    with open(path, 'w') as file:
        file.write('the end')
    image.remount()
    with open(path) as file:
        equal(file.read(), 'the end', 'content')
    fails(errno.ENAMETOOLONG, os.stat, path + 'f')


@sized
def deep_tree(image, top):
    """Deeper than any path can name: made and walked step by step, removed by rm."""
    fd = os.open(top, os.O_RDONLY)
    for i in range(DEPTH):
        os.mkdir('deep', dir_fd=fd)
        below = os.open('deep', os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open('bottom', os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    for i in range(DEPTH):
        above = os.open('..', os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = above
    equal(os.fstat(fd).st_ino, os.stat(top).st_ino, 'inode at the top again')
    os.close(fd)
    image.umount()
    image.fsck()
    image.mount()
    run('rm', '-r', f'{top}/deep')
    equal(os.listdir(top), [], 'entries left')


@sized
def longest_symlinks(image, top):
    lengths = (1, 59, 60, 61, 100, 127, 128, 129, 200, 1000, 4094, 4095)
    for length in lengths:
        os.symlink('t' * length, f'{top}/{length}')
    fails(errno.ENAMETOOLONG, os.symlink, 't' * 4096, f'{top}/4096')
    image.remount()
    for length in lengths:
        equal(os.readlink(f'{top}/{length}'), 't' * length, f'target of {length} bytes')
        equal(os.lstat(f'{top}/{length}').st_size, length, 'size')


def value_of(name):
    """Most are short; some take blocks of their own."""
    number = int(name.rsplit('-', 1)[1])
    length = number % 40 if number % 100 else number * 21 % 65536
    return hashlib.shake_128(name.encode()).digest(length)


@sized
def many_attributes(image, top):
    path = f'{top}/file'
    with open(path, 'w') as file:
        file.write('x' * 10000)
    free = os.statvfs(top).f_bfree
    blocks = os.stat(path).st_blocks
    names = [f'user.number-{i}' for i in range(ATTRIBUTES)]
    for name in names:
        os.setxattr(path, name, value_of(name))
    for name in names[::3]:
        os.setxattr(path, name, value_of(name)[::-1])
    for name in names[1::3]:
        os.removexattr(path, name)
    image.umount()
    image.fsck()
    image.mount()
    equal(sorted(os.listxattr(path)), sorted(names[::3] + names[2::3]), 'names')
    for name in names[::3]:
        equal(os.getxattr(path, name), value_of(name)[::-1], name)
    for name in names[2::3]:
        equal(os.getxattr(path, name), value_of(name), name)
    for name in names[1::3]:
        fails(errno.ENODATA, os.getxattr, path, name)
    for name in names[::3] + names[2::3]:
        os.removexattr(path, name)
    equal(os.stat(path).st_blocks, blocks, 'blocks when all attributes are gone')
    image.remount()
    note(f'{free - os.statvfs(top).f_bfree} blocks fewer are free')


@sized
def largest_attributes(image, top):
    """Values of 65536 bytes, names of 255; more names than one listing holds (65536 bytes) can still be asked for."""
    path = f'{top}/file'
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    names = ['user.' + f'{i:03}' + 'n' * 247 for i in range(300)]
    for i, name in enumerate(names):
        os.setxattr(path, name, bytes([i % 251]) * (65536 if i < 20 else i))
    fails(errno.E2BIG, os.setxattr, path, 'user.larger', b'v' * 65537)
    fails(errno.E2BIG, os.listxattr, path)
    image.umount()
    image.fsck()
    image.mount()
    for i, name in enumerate(names):
        equal(os.getxattr(path, name), bytes([i % 251]) * (65536 if i < 20 else i), name)
    os.unlink(path)
