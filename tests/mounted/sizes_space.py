# SPDX-License-Identifier: BSD-3-Clause
"""Full disks: of data, of small and of empty files; what works on them, and that what is deleted can be used at once."""
import ctypes
import errno
import os
import re

from lanefs_test import Image, MIB, add_case, equal, note, wait_for
from posix_common import libc
from sizes_common import FULL

SMALL = 100         # bytes: in the inode
INODE = 4096 // 15  # what a small file takes: fifteen inodes are a block
MEDIUM = 20 << 10   # bytes: one extent
PIECE = 1 << 20     # bytes of one write to a large file
LEFT_MAX = 8        # blocks that may be available when a file of any of these sizes gets none
SLACK = 8 * 4096    # bytes that files may lose: a block per allocation group for the list of those to be freed
REFILL_SLACK = SLACK + 8 * 4096  # and an inode block without inodes, which each group keeps for the next one
SPARE_SHARE = 8     # of the inode blocks may come in addition when as many files as before are made


def statvfs_used(directory):
    result = os.statvfs(directory)
    return result.f_blocks - result.f_bfree


def path_of(directory, i):
    return f'{directory}/{i // 1000:03}/file-{i:07}'


def add_file(path, size):
    """False: no space; nothing is left of it then."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except OSError as error:
        equal(error.errno, errno.ENOSPC, path)
        return False
    try:
        data = os.urandom(16) * (size // 16 + 1)
        written = os.write(fd, data[:size]) if size else 0
        if written == size:
            return True
    except OSError as error:
        equal(error.errno, errno.ENOSPC, path)
    finally:
        os.close(fd)
    os.unlink(path)
    return False


def fill(directory, size, first):
    """Files of this size from number @first on until there is no space. Returns the number behind the last."""
    number = first
    while add_file(path_of(directory, number), size):
        number += 1
    return number


def works_when_full(directory, path):
    """What a person does on a full disk to get out of it, and what only changes what is there."""
    os.chmod(path, 0o600)
    equal(os.stat(path).st_mode & 0o777, 0o600, 'mode')
    os.rename(path, f'{path}.renamed')
    os.rename(f'{path}.renamed', f'{directory}/elsewhere')
    os.utime(f'{directory}/elsewhere', (1, 2))
    os.rename(f'{directory}/elsewhere', path)
    size = os.stat(path).st_size
    os.truncate(path, size // 2)
    equal(os.stat(path).st_size, size // 2, 'size')
    os.truncate(path, 0)
    os.unlink(path)


def check_files(directory, numbers, size):
    for number in numbers:
        if not os.path.exists(path_of(directory, number)):
            continue
        with open(path_of(directory, number), 'rb') as file:
            data = file.read()
        equal(len(data), size, f'size of file {number}')
        equal(data, (data[:16] * (size // 16 + 1))[:size], f'content of file {number}')


def used_by_fsck(image):
    return int(re.search(r'(\d+) of (\d+) blocks used', image.fsck().stdout).group(1))


def start(name, size, options):
    """A new image, mounted, and what fsck counts as used and df does not."""
    image = Image(name, size)
    used = used_by_fsck(image)
    image.mount(options)
    return image, used - statvfs_used(image.directory)


def check_image(image, fixed):
    """fsck finds nothing, and counts as df did (but for what was freed since)."""
    wait_for(lambda: not image.status()['filesystem']['orphans'], 'freed: what was unlinked')
    used = statvfs_used(image.directory)
    image.umount()
    checked = used_by_fsck(image) - fixed
    if not used - LEFT_MAX <= checked <= used:
        raise AssertionError(f'df said {used} blocks are used, fsck {checked}')


def empty(directory, numbers):
    for number in numbers:
        if os.path.exists(path_of(directory, number)):
            os.unlink(path_of(directory, number))


def metadata_blocks(directory, size):
    """Blocks of the directories, and inode blocks: a new file takes a place near its directory rather than a free one
    anywhere, and names divide among leaves as they come. An inode is all that a small file has: for those only the
    directories count."""
    blocks, inode_blocks = 0, set()
    for parent in (directory, *(entry.path for entry in os.scandir(directory))):
        blocks += os.stat(parent).st_blocks // 8
        inode_blocks.update(os.stat(f'{parent}/{name}').st_ino >> 4 for name in os.listdir(parent))
    return blocks, len(inode_blocks) if size > SMALL else 0


def account_for(directory, missing, count, size, before, what):
    """Where the space is that so many files got no more: in lists of files to be freed, and in what metadata has taken beyond
    what it had @before."""
    left = os.statvfs(directory).f_bavail
    more, more_inodes = (now - then for now, then in zip(metadata_blocks(directory, size), before))
    note(f'{what}: {missing} of {count} files got no space; {left} blocks are available, '
         f'{more} more are of directories, {more_inodes} more of inodes')
    if missing and left > LEFT_MAX:
        raise AssertionError(f'{what}: {missing} files got no space with {left} blocks available')
    if more_inodes * SPARE_SHARE > before[1]:
        raise AssertionError(f'{what}: {more_inodes} more blocks of inodes than {before[1]}')
    if missing * (size if size > SMALL else INODE) > REFILL_SLACK + (left + more + more_inodes) * 4096:
        raise AssertionError(f'{what}: {missing} of {count} files got no space, and it is not to be found')


def refill(directory, spill, numbers, size, before, what):
    """All of these get their space again, but for what the lists of files to be freed may have taken meanwhile, and
    metadata beyond what it had @before. A name whose full leaf must be split finds no room while not one block is free,
    but then its file does, in another directory."""
    missing = full_leaves = 0
    for number in numbers:
        if add_file(path_of(directory, number), size):
            continue
        if not add_file(f'{spill}/f', size):
            missing += 1
            continue
        os.unlink(f'{spill}/f')
        full_leaves += 1
        if os.statvfs(directory).f_bavail > LEFT_MAX:
            raise AssertionError(f'{what}: no room for the name of file {number}, '
                                 f'with {os.statvfs(directory).f_bavail} blocks available')
    if full_leaves:
        note(f'{what}: {full_leaves} names stand where a full leaf cannot be split')
    account_for(directory, missing, len(numbers), size, before, what)


def fill_and_refill(image, size, ballast, fixed):
    """Fill, delete every second file, write as many again at once: three times. Then delete all, and fill once more."""
    directory, spill = f'{image.directory}/fill', f'{image.directory}/spill'
    os.mkdir(directory)
    os.mkdir(spill)
    if ballast:
        with open(f'{image.directory}/ballast', 'wb') as file:
            os.posix_fallocate(file.fileno(), 0, ballast)
    first = fill(directory, size, 0)
    left = os.statvfs(directory).f_bavail
    note(f'{first} files of {size} bytes; {left} blocks left')
    if left > LEFT_MAX:
        raise AssertionError(f'ENOSPC with {left} blocks available')
    before = metadata_blocks(directory, size)
    for round_ in range(3):
        victims = range(round_ % 2, first, 2)
        empty(directory, victims)
        refill(directory, spill, victims, size, before, f'round {round_}')
    check_files(directory, range(0, first, 7), size)
    works_when_full(directory, path_of(directory, 0))
    empty(directory, range(1, first))
    again = fill(directory, size, 10 ** 6) - 10 ** 6
    account_for(directory, first - again, first, size, before, 'after all were deleted')
    empty(directory, range(10 ** 6, 10 ** 6 + again))
    check_image(image, fixed)


def one_huge_file(image, fixed):
    """One file takes it all; half of it is cut off or punched out, and can be written again at once."""
    path = f'{image.directory}/huge'
    data = os.urandom(PIECE)
    fd = os.open(path, os.O_CREAT | os.O_RDWR)

    def write_all(offset, limit=None):
        begin = offset
        while limit is None or offset < limit:
            try:
                offset += os.pwrite(fd, data[:PIECE if limit is None else limit - offset], offset)
            except OSError as error:
                equal(error.errno, errno.ENOSPC, 'writing')
                break
        return offset - begin

    size = write_all(0)
    note(f'{size / MIB:.1f} MiB; {os.statvfs(path).f_bavail} blocks left')
    equal(os.fstat(fd).st_size, size, 'size')
    for _ in range(3):
        half = size // 2 // PIECE * PIECE
        os.ftruncate(fd, half)
        again = write_all(half, size)
        if again < size - half - SLACK:
            raise AssertionError(f'{size - half} bytes cut off, {again} written again at once')
        size = half + again
        for offset in range(0, size - PIECE, 2 * PIECE):
            punch(fd, offset, PIECE)
        for offset in range(0, size - PIECE, 2 * PIECE):
            equal(write_all(offset, offset + PIECE), PIECE, f'bytes written into the hole at {offset}')
    for offset in range(0, size - PIECE, PIECE):
        equal(os.pread(fd, PIECE, offset) == data, True, f'content at {offset}')
    os.close(fd)
    works_when_full(image.directory, path)
    check_image(image, fixed)


def punch(fd, offset, length):
    if libc.fallocate(fd, 3, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), 'punching a hole')


def add_space_cases():
    size = '1G' if FULL else '72M'
    kinds = (('empty files', 0), ('small files', SMALL), ('medium files', MEDIUM))
    for reactors in (1, 2):
        for title, bytes_ in kinds:
            def run(title=title, bytes_=bytes_, reactors=reactors):
                image, fixed = start(f'full-{title.split()[0]}-{reactors}', size, f'reactors={reactors}')
                room = os.statvfs(image.directory).f_bavail * 4096
                fill_and_refill(image, bytes_, room - 2 * MIB if bytes_ <= SMALL and not FULL else 0, fixed)
                image.remove()

            def huge(reactors=reactors):
                image, fixed = start(f'full-huge-{reactors}', size, f'reactors={reactors}')
                one_huge_file(image, fixed)
                image.remove()
            add_case(f'full of {title}, {reactors} reactors', run)
        add_case(f'full of one huge file, {reactors} reactors', huge)
