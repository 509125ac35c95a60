#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Wrong input to mount.lanefs: one clear line that names the object, the right exit status, no mount and no daemon left
behind, and not one byte of the image changed."""
import fcntl
import os
import shutil
import struct
import subprocess
import time

from lanefs_test import (FSCK, LANEFS, MIB, MOUNT, UMOUNT, Image, Skip, alive, case, enable_io_uring, equal, main, need, note,
                         run, sha256, switch_io_uring, wait_for, work_dir)

USAGE, SYSTEM, FAILED = 1, 2, 32


def crc32c(data):
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xffffffff
    for byte in data:
        crc = table[(crc ^ byte) & 0xff] ^ crc >> 8
    return crc ^ 0xffffffff


def edit_super(path, offset, value):
    """Changes a field of the superblock and makes its checksum right again, as a newer program would have."""
    with open(path, 'r+b') as file:
        file.seek(4096)
        block = bytearray(file.read(4096))
        block[offset:offset + len(value)] = value
        block[4:8] = bytes(4)
        block[4:8] = struct.pack('<I', crc32c(block))
        file.seek(4096)
        file.write(block)


def processes_of(mark):
    """Whatever was started with this word in its environment: others may mount and unmount meanwhile."""
    found = set()
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open(f'/proc/{name}/environ', 'rb') as file:
                    if mark.encode() in file.read().split(b'\0') and alive(int(name)):
                        found.add(int(name))
            except OSError:
                pass
    return found


def refused(command, status, *words, image=None, unchanged=True, prefix='mount.lanefs: '):
    """The command fails as it should; image is an Image or a path."""
    path = image.path if isinstance(image, Image) else image
    before = sha256(path) if path and unchanged else None
    mark = f'refused-{os.getpid()}-{time.monotonic_ns()}'
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60,
                            stdin=subprocess.DEVNULL, env={**os.environ, 'LANEFS_TEST_MARK': mark})
    lines = result.stderr.strip().split('\n')
    equal(result.returncode, status, f'exit status; it said {result.stderr!r}')
    equal(result.stdout, '', 'nothing on stdout')
    equal(len(lines), 1, f'one line: {result.stderr!r}')
    equal(lines[0].startswith(prefix), True, f'the line says who speaks: {lines[0]!r}')
    for word in words:
        equal(str(word).lower() in lines[0].lower(), True, f'{word!r} in {lines[0]!r}')
    note(lines[0])
    if before:
        equal(sha256(path), before, 'content of the image')
    wait_for(lambda: not processes_of(f'LANEFS_TEST_MARK={mark}'), 'gone: processes of the failed mount', 5)
    if isinstance(image, Image):
        equal(image.mounted(), False, 'mounted')
    return lines[0]


def small(name, **keywords):
    return Image(name, '128M', **keywords)


@case('unknown, malformed and contradicting options')
def options():
    image = small('options')
    for option, word in (('frobnicate', 'frobnicate'), ('cache=lots', 'cache'), ('cache', 'cache'), ('cache=0', 'cache'),
                         ('commit=0', 'commit'), ('commit=1x', 'commit'), ('commit=301', 'commit'), ('ro=1', 'ro'),
                         ('reactors=0', 'reactors'), ('reactors=65', 'reactors'), ('lcores=banana', 'lcores'),
                         ('lcores=1@0', 'lcores'), ('lcores=0@0:', 'lcores'),
                         ('reactors=3,lcores=0@0:1@0', 'contradict'), ('max_background=0', 'max_background'),
                         ('io_uring,on_removal=wait', 'exclude')):
        refused([MOUNT, image.path, image.directory, '-o', option], USAGE, word, image=image)


@case('wrong flags and missing operands')
def flags():
    image = small('flags')
    refused([MOUNT, image.path, image.directory, '-Q'], USAGE, '-Q', image=image)
    refused([MOUNT, image.path, image.directory, '--nonsense'], USAGE, '--nonsense', image=image)
    refused([MOUNT, image.path, image.directory, '-o'], USAGE, '-o', image=image)
    refused([MOUNT, image.path], USAGE, 'usage')
    refused([MOUNT], USAGE, 'usage')
    refused([MOUNT, image.path, image.directory, 'third'], USAGE, 'usage')


@case('a core that does not exist')
def core():
    image = small('core')
    refused([MOUNT, image.path, image.directory, '-o', 'lcores=0@4000'], FAILED, 'core', image=image)


@case('requests by io_uring, where the kernel has it switched off')
def io_uring():
    image = small('uring')
    if not enable_io_uring():
        raise Skip('this kernel has no FUSE over io_uring')
    switch_io_uring('N')
    refused([MOUNT, image.path, image.directory, '-o', 'io_uring'], FAILED, 'enable_uring', image=image)
    switch_io_uring('Y')
    image.mount('io_uring')
    equal(image.status()['fuse']['transport'], 'io_uring', 'transport')
    image.umount()


@case('a missing, an empty, a short image; a directory; nonsense')
def images():
    image = small('images')
    missing = f'{work_dir()}/missing.img'
    refused([MOUNT, missing, image.directory], FAILED, 'missing.img')
    equal(os.path.exists(missing), False, 'nothing is created')
    for name, size in (('empty.img', 0), ('tiny.img', 100), ('short.img', 4096), ('zeroes.img', 8 * MIB)):
        path = f'{work_dir()}/{name}'
        with open(path, 'wb') as file:
            file.truncate(size)
        refused([MOUNT, path, image.directory], FAILED, name, image=path)
    path = f'{work_dir()}/nonsense.img'
    with open(path, 'wb') as file:
        file.write(os.urandom(8 * MIB))
    refused([MOUNT, path, image.directory], FAILED, 'nonsense.img', image=path)
    refused([MOUNT, work_dir(), image.directory], FAILED, work_dir())


@case('an image that was cut after formatting')
def cut():
    image = small('cut')
    os.truncate(image.path, 40 * MIB)
    refused([MOUNT, image.path, image.directory], FAILED, 'cut.img', image=image)


@case('an image of another filesystem')
def other():
    need('mkfs.ext4')
    image = small('ext4', format=False)
    run('mkfs.ext4', '-q', image.path)
    refused([MOUNT, image.path, image.directory], FAILED, 'ext4.img', image=image)


@case('targets that are not built yet, or make no sense')
def targets():
    image = small('targets')
    for target in ('0000:5e:00.0', 'pci:0000:5e:00.0/1', 'emu:/nonexistent/x', 'mirror:/a,/b', 'virtio:0000:00:05.0'):
        refused([MOUNT, target, image.directory], FAILED, target.removeprefix('pci:').split(':')[0])
    for target in ('ram:', 'ram:x', 'ram:99999999999T', 'floppy:'):
        refused([MOUNT, target, image.directory], FAILED, target.split(':')[0])
    refused([MOUNT, 'ram:64M', image.directory], FAILED, 'nothing to mount')


@case('a newer version of the format')
def version():
    image = small('version')
    edit_super(image.path, 56, struct.pack('<I', 77))
    refused([MOUNT, image.path, image.directory], FAILED, 'version', image=image)


@case('an unknown incompatible feature; an unknown read-only one')
def features():
    image = small('incompat')
    edit_super(image.path, 208, struct.pack('<Q', 1 << 40))
    refused([MOUNT, image.path, image.directory], FAILED, 'feature', image=image)
    image = small('rocompat')
    edit_super(image.path, 200, struct.pack('<Q', 1 << 40))
    refused([MOUNT, image.path, image.directory], FAILED, 'feature', image=image)
    before = sha256(image.path)
    image.mount('ro')
    image.umount()
    equal(sha256(image.path), before, 'content of the image after a read-only mount')


@case('an unknown compatible feature is no reason')
def compatible():
    image = small('compat')
    edit_super(image.path, 192, struct.pack('<Q', 1 << 40))
    image.mount()
    image.umount()


@case('what an image calls itself does not steer a terminal')
def label():
    image = small('label')
    edit_super(image.path, 80, b'a\x1b[2Jb\x9bc\xc2\x9bd\n'.ljust(32, b'\0'))
    image.mount()
    for words in (['status', image.directory], ['status', '--json', image.directory]):
        said = subprocess.run([LANEFS, *words], stdout=subprocess.PIPE, check=True, timeout=20).stdout
        equal(b'a?[2Jb' in said, True, said)
        equal([byte for byte in said.replace(b'\n', b'') if byte < 0x20], [], said)
        equal(b'\xc2\x9b' in said or b'\\u001b' in said, False, said)
    image.umount()
    said = subprocess.run([FSCK, '-n', '-v', image.path], stdout=subprocess.PIPE, check=False, timeout=20).stdout
    equal(b'\x1b' in said or b'\xc2\x9b' in said, False, said)


@case('a corrupt superblock with good backups: one line that names fsck; the block itself is left to fsck')
def superblock():
    image = small('super')
    with open(image.path, 'r+b') as file:
        file.seek(4096 + 100)
        file.write(b'\xde\xad\xbe\xef')
        file.seek(4096)
        damaged = file.read(4096)
    before = sha256(image.path)
    for options in ('ro', 'rw'):
        result = run(MOUNT, image.path, image.directory, '-o', options)
        note(result.stderr)
        lines = result.stderr.strip().split('\n')
        equal(len(lines), 1, f'one line: {result.stderr!r}')
        for word in ('mount.lanefs: ', image.path, 'superblock', 'copy', 'fsck.lanefs'):
            equal(word in lines[0], True, f'{word!r} in {lines[0]!r}')
        run(UMOUNT, image.directory)
        if options == 'ro':
            equal(sha256(image.path), before, 'content of the image after a read-only mount')
    with open(image.path, 'rb') as file:
        file.seek(4096)
        equal(file.read(4096) == damaged, True, 'the damaged superblock is as it was')


@case('every superblock and copy damaged: refused, fsck is named')
def all_superblocks():
    image = small('allsuper')
    with open(image.path, 'r+b') as file:
        for block in (1, os.path.getsize(image.path) // 4096 - 1):
            file.seek(block * 4096 + 100)
            file.write(b'\xde\xad\xbe\xef')
    refused([MOUNT, image.path, image.directory], FAILED, 'allsuper.img', 'fsck', image=image)


@case('both state blocks corrupt')
def state_blocks():
    image = small('state')
    with open(image.path, 'r+b') as file:
        for block in (2, 3):
            file.seek(block * 4096 + 60)
            file.write(b'\xff' * 8)
    refused([MOUNT, image.path, image.directory], FAILED, 'state.img', image=image)


@case('one state block corrupt: the other serves')
def one_state_block():
    image = small('onestate')
    image.mount()
    with open(f'{image.directory}/f', 'w') as file:
        file.write('kept')
    image.umount()
    generations = []
    with open(image.path, 'r+b') as file:
        for block in (2, 3):
            file.seek(block * 4096 + 48)
            generations.append(struct.unpack('<Q', file.read(8))[0])
        older = 2 + generations.index(min(generations))
        file.seek(older * 4096 + 60)
        file.write(b'\xff' * 8)
    image.mount()
    with open(f'{image.directory}/f') as file:
        equal(file.read(), 'kept')
    image.umount()


@case('a missing mount point; one that is a file')
def mount_points():
    image = small('points')
    refused([MOUNT, image.path, f'{work_dir()}/nowhere'], FAILED, 'nowhere', image=image)
    refused([MOUNT, image.path, f'{work_dir()}/nowhere/deeper'], FAILED, 'nowhere', image=image)
    refused([MOUNT, image.path, ''], FAILED, 'mount point', image=image)
    refused([MOUNT, '', image.directory], FAILED, 'target')
    refused([MOUNT, image.path, __file__], FAILED, os.path.basename(__file__), image=image)


@case('no /dev/fuse')
def no_fuse():
    need('unshare')
    image = small('nofuse')
    script = 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"'
    refused(['unshare', '-m', 'sh', '-c', script, 'sh', MOUNT, image.path, image.directory], SYSTEM, '/dev/fuse', image=image)


@case('no permission: for the image, for /dev/fuse, for the mount point')
def permission():
    need('setpriv')
    nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all']
    image = small('permission')
    os.chmod(work_dir(), 0o755)
    os.chmod(image.path, 0o600)
    if subprocess.run([*nobody, MOUNT, '-V'], capture_output=True).returncode:
        copy = f'{work_dir()}/mount.lanefs'  # the build folder may be closed to others
        shutil.copy2(MOUNT, copy)
    else:
        copy = MOUNT
    refused([*nobody, copy, image.path, image.directory], FAILED, 'permission', image=image)
    os.chmod(image.path, 0o666)
    refused([*nobody, copy, image.path, image.directory], FAILED, image.directory, image=image)
    script = ('cp -p /dev/fuse /tmp/lanefs-fuse 2>/dev/null; mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && '
              'mknod /dev/fuse c 10 229 && chmod 600 /dev/fuse && exec "$@"')
    os.chown(image.directory, 65534, 65534)
    refused(['unshare', '-m', 'sh', '-c', script, 'sh', *nobody, copy, image.path, image.directory], FAILED, '/dev/fuse',
            image=image)


@case('a read-only image: refused for writing, mounted with -o ro')
def read_only_image():
    image = small('readonly')
    image.mount()
    with open(f'{image.directory}/f', 'w') as file:
        file.write('content')
    image.umount()
    before = sha256(image.path)
    image.mount('ro')
    with open(f'{image.directory}/f') as file:
        equal(file.read(), 'content')
    try:
        open(f'{image.directory}/g', 'w').close()
        raise AssertionError('a read-only mount took a new file')
    except OSError as error:
        equal(error.errno, 30, 'EROFS')
    image.umount()
    equal(sha256(image.path), before, 'content of the image after a read-only mount')


@case('already mounted: at the same place, at another, by another process')
def mounted_twice():
    image = small('twice')
    other_directory = f'{work_dir()}/twice-other'
    os.mkdir(other_directory)
    image.mount()
    for directory in (image.directory, other_directory):
        refused([MOUNT, image.path, directory], FAILED, 'already mounted', image.directory, str(image.pid))
    equal(os.listdir(other_directory), [])
    os.symlink(image.path, f'{work_dir()}/alias.img')
    refused([MOUNT, f'{work_dir()}/alias.img', other_directory], FAILED, 'already mounted')
    with open(f'{image.directory}/still', 'w') as file:
        file.write('working')
    image.umount()
    with open(image.path, 'r+b') as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0))
        refused([MOUNT, image.path, image.directory], FAILED, 'twice.img', 'use', image=image)
    image.mount()
    equal(os.path.exists(f'{image.directory}/still'), True)
    image.umount()


@case('umount.lanefs: of what is not mounted, of what is busy, of what is not ours')
def umounts():
    image = small('umounts')
    refused([UMOUNT, image.directory], FAILED, 'no lanefs', image.directory, prefix='umount.lanefs: ')
    refused([UMOUNT, '/proc'], FAILED, '/proc', prefix='umount.lanefs: ')
    refused([UMOUNT], USAGE, 'usage', prefix='umount.lanefs: ')
    refused([UMOUNT, '-Q', image.directory], USAGE, '-Q', prefix='umount.lanefs: ')
    image.mount()
    with open(f'{image.directory}/f', 'w'):
        refused([UMOUNT, image.directory], FAILED, 'busy', prefix='umount.lanefs: ', image=image.path, unchanged=False)
    image.umount()
    image.fsck()


if __name__ == '__main__':
    main()
