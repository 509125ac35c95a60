#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""File handles, as NFS servers keep them: a handle that was taken once opens the same file after the kernel has forgotten it,
after unmounting and mounting again (another daemon), and after a crash; never another file, however often the inode number
was used since."""
import ctypes
import errno
import os

from lanefs_test import Image, case, equal, fails, main, note, wait_for

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
HANDLE_BYTES = 128


class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * HANDLE_BYTES)]


def checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def take(path):
    handle = Handle(bytes=HANDLE_BYTES)
    mount_id = ctypes.c_int()
    checked(LIBC.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0))
    return handle


def open_handle(image, handle, flags=os.O_RDONLY):
    mount = os.open(image.directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return checked(LIBC.open_by_handle_at(mount, ctypes.byref(handle), flags))
    finally:
        os.close(mount)


def read_handle(image, handle):
    fd = open_handle(image, handle)
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


def is_stale(image, handle):
    try:
        os.close(open_handle(image, handle))
    except OSError as error:
        equal(error.errno, errno.ESTALE, 'errno of open_by_handle_at')
        return True
    return False


def drop_caches():
    with open('/proc/sys/vm/drop_caches', 'w') as file:
        file.write('2')


def write(path, text):
    with open(path, 'w') as file:
        file.write(text)


def make(image):
    """Handles of files, directories and what else there is, by path."""
    root = image.directory
    deep = f'{root}/a/b/c/d'
    os.makedirs(deep)
    for i in range(40):
        os.mkdir(f'{root}/s{i}')  # in other groups than the root
        write(f'{root}/s{i}/f', f'{root}/s{i}/f')
    write(f'{root}/f', f'{root}/f')
    write(f'{deep}/f', f'{deep}/f')
    os.link(f'{root}/f', f'{deep}/link')
    os.mkfifo(f'{root}/fifo')
    paths = [f'{root}/f', f'{deep}/f', deep, f'{root}/a', root, f'{root}/fifo'] + [f'{root}/s{i}/f' for i in range(40)]
    return {path: take(path) for path in paths}


def check(image, handles):
    for path, handle in handles.items():
        if path.endswith('/fifo'):
            fd = open_handle(image, handle, os.O_PATH)
        elif os.path.isdir(path):
            fd = open_handle(image, handle, os.O_RDONLY | os.O_DIRECTORY)
            equal(os.readlink(f'/proc/self/fd/{fd}'), path, 'the way up from a handle')
            equal(sorted(os.listdir(fd)), sorted(os.listdir(path)), path)
        else:
            fd = open_handle(image, handle)
            equal(os.read(fd, 200).decode(), path, 'content')
        equal(os.fstat(fd).st_ino, os.stat(path).st_ino, f'inode of {path}')
        os.close(fd)


def survives(options):
    image = Image(f'handles{len(options)}', '128M')
    image.mount(options, foreground=False)
    handles = make(image)
    check(image, handles)
    drop_caches()
    check(image, handles)
    image.umount()
    image.mount(options, foreground=False)
    check(image, dict(reversed(handles.items())))  # before the kernel has looked up anything by name
    for i in range(40, 60):
        write(f'{image.directory}/new{i}', 'new')
    fd = os.open(image.directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    image.kill()
    image.mount('ro', foreground=False)
    check(image, handles)
    image.umount()
    image.mount('reactors=2' if not options else '', foreground=False)  # other owners
    check(image, handles)
    image.umount()
    image.fsck()


@case('handles survive forgetting, remounting, a crash and another number of reactors')
def persistent():
    survives('')
    survives('reactors=2')


@case('a handle of a removed file is stale, whoever has its inode number now')
def stale():
    image = Image('stale', '96M')
    image.mount(foreground=False)
    root = image.directory
    write(f'{root}/f', 'old')
    os.mkdir(f'{root}/d')
    handles, inos = [take(f'{root}/f'), take(f'{root}/d')], [os.stat(f'{root}/f').st_ino, os.stat(f'{root}/d').st_ino]
    held = open(f'{root}/f')
    os.unlink(f'{root}/f')
    equal(held.read(), 'old')
    held.close()
    os.rmdir(f'{root}/d')
    for handle in handles:  # the kernel keeps the inode until it has told us of the close
        wait_for(lambda: is_stale(image, handle), 'stale', 5)
    reused, last = 0, {}
    for i in range(60):
        write(f'{root}/n{i}', f'new {i}')
        ino = os.stat(f'{root}/n{i}').st_ino
        if ino in inos:
            reused += 1
        if ino in last:
            fails(errno.ESTALE, open_handle, image, last[ino])
        last[ino] = take(f'{root}/n{i}')
        equal(read_handle(image, last[ino]), f'new {i}')
        for handle in handles:
            fails(errno.ESTALE, open_handle, image, handle)
        if i % 3 == 0:
            os.unlink(f'{root}/n{i}')
        if i == 30:
            image.umount()
            image.mount(foreground=False)
    equal(reused > 0, True, 'an inode number was used again, or this proves nothing')
    note(f'{reused} times a number of a removed one was used again')
    image.kill()
    image.mount(foreground=False)
    for handle in handles:
        fails(errno.ESTALE, open_handle, image, handle)
    image.umount()
    image.fsck()


@case('made-up handles are refused, and harm nothing')
def invented():
    image = Image('invented', '96M')
    image.mount(foreground=False)
    write(f'{image.directory}/f', 'text')
    good = take(f'{image.directory}/f')
    refused = 0
    for byte in range(good.bytes):
        for bit in (1, 16, 128):
            bad = Handle.from_buffer_copy(good)
            bad.data[byte] ^= bit
            try:
                os.close(open_handle(image, bad))
            except OSError as error:
                equal(error.errno in (errno.ESTALE, errno.EINVAL), True, os.strerror(error.errno))
                refused += 1
    equal(refused > good.bytes * 2, True, f'{refused} of {good.bytes * 3} refused')
    equal(read_handle(image, good), 'text')
    equal(image.status()['errors']['corrupt_blocks'], 0, 'bad blocks, said by a made-up number')
    image.umount()
    image.fsck()


if __name__ == '__main__':
    main()
