#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Read-only and back while mounted, and mounts that are read-only from their start: what the kernel, the daemon and the
image say of it; and the options that a remount changes, or refuses by name."""
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
import struct
import threading
import time

from lanefs_test import (BUILD, MOUNT, UMOUNT, Image, Skip, alive, case, equal, fails, in_namespace, main, need,
                         note, run, sha256, wait_for, work_dir)

DRIVE = os.environ.get('LANEFS_TEST_DRIVE') is not None


def remount(image, options, check=True):
    return run(MOUNT, image.target, image.directory, '-o', f'remount,{options}', check=check)


def refused(image, options, *words, status=32):
    result = remount(image, options, check=False)
    equal(result.returncode, status, f'remount,{options}: {result.stderr}')
    equal(result.stderr.count('\n'), 1, f'lines of: {result.stderr}')
    for word in words:
        equal(word in result.stderr, True, f'{word!r} in {result.stderr}')


def kernel_flags(image):
    with open('/proc/self/mountinfo') as file:
        return next(line.split()[5].split(',') for line in file if line.split()[4] == image.directory)


def read_only(image):
    """The kernel and the daemon agree."""
    status = image.status()['filesystem']['read_only']
    equal('ro' in kernel_flags(image), status, 'what kernel and daemon say')
    return status


def write(path, text):
    with open(path, 'w') as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read()


# ---- read-only and back ------------------------------------------------------------------------------------------------
@case('remount,ro: nothing changes any more, the image is clean; remount,rw: all works again')
def back_and_forth():
    image = Image('back', '96M')
    image.mount('reactors=2', foreground=False)
    write(f'{image.directory}/f', 'before')
    reader = open(f'{image.directory}/f')
    for i in range(3):
        remount(image, 'ro')
        equal(read_only(image), True)
        image.fsck()
        before = sha256(image.path)
        fails(errno.EROFS, open, f'{image.directory}/g', 'w')
        fails(errno.EROFS, os.unlink, f'{image.directory}/f')
        fails(errno.EROFS, os.setxattr, f'{image.directory}/f', 'user.x', b'1')
        fails(errno.EROFS, os.utime, f'{image.directory}/f')
        reader.seek(0)
        equal(reader.read(), 'before' if i == 0 else str(i - 1), 'through a file that was open before')
        equal(sorted(os.listdir(image.directory)), [f'd{j}' for j in range(i)] + ['f'])
        time.sleep(1.2)
        equal(sha256(image.path), before, 'the image while read-only')
        remount(image, 'rw')
        equal(read_only(image), False)
        os.mkdir(f'{image.directory}/d{i}')
        write(f'{image.directory}/f', str(i))
    reader.close()
    image.umount()
    image.fsck()


@case('files open for writing refuse remount,ro with one line, and nothing has changed')
def busy():
    image = Image('busy', '96M')
    image.mount(foreground=False)
    with open(f'{image.directory}/f', 'w') as file:
        file.write('x')
        file.flush()
        refused(image, 'ro', 'busy', 'open for writing', 'fuser')
        equal(read_only(image), False)
        file.write('y')
    removed = open(f'{image.directory}/f')
    os.unlink(f'{image.directory}/f')
    refused(image, 'ro', 'busy')
    equal(removed.read(), 'xy')
    removed.close()
    remount(image, 'ro')
    image.fsck()
    image.umount()


def writers(image, count, stop, written):
    """Each writes files one after the other and notes the last that was closed without an error."""
    def work(number):
        i = 0
        while not stop.is_set():
            try:
                write(f'{image.directory}/w{number}-{i % 500}', f'{number} {i}')
                written[number] = i
                i += 1
                time.sleep(0.01)
            except OSError as error:
                equal(error.errno, errno.EROFS, 'what a writer is told')
                written[number + count] += 1
                time.sleep(0.002)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


@case('under running writers: what was closed is in a clean image, and they go on afterwards')
def under_load():
    image = Image('load', '96M')
    image.mount('reactors=2', foreground=False)
    stop, written = threading.Event(), [-1, -1, -1, 0, 0, 0]
    threads = writers(image, 3, stop, written)
    copy, times = f'{work_dir()}/copy.img', 0
    try:
        for _ in range(4):
            time.sleep(0.3)
            end = time.monotonic() + 20
            while remount(image, 'ro', check=False).returncode != 0: # somebody has a file open, most of the time
                equal(time.monotonic() < end, True, 'remounted in time')
            closed = written[:3]
            image.fsck()
            run('cp', '--sparse=always', image.path, copy)
            times += 1
            refusals = written[3:]
            time.sleep(0.2)
            equal(all(now > then for now, then in zip(written[3:], refusals)), True, 'writers are refused')
            remount(image, 'rw')
            check_copy(copy, image, closed)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    image.umount()
    image.fsck()
    note(f'{times} remounts, {sum(written[:3]) + 3} files written')


def check_copy(path, image, closed):
    folder = f'{work_dir()}/copy'
    os.makedirs(folder, exist_ok=True)
    target = image.target.replace(image.path, path)
    run(MOUNT, target, folder, '-o', 'ro')
    try:
        for number, last in enumerate(closed):
            got = read(f'{folder}/w{number}-{last % 500}')
            equal(got.startswith(f'{number} '), True, f'content {got!r}')
            equal(int(got.split()[1]) >= last, True, f'writer {number}: {got!r}, closed {last}')
    finally:
        run(UMOUNT, folder)


def dirty_pages(options):
    image = Image(f'pages{len(options)}', '96M')
    image.mount(options, foreground=False)
    for i in range(30):
        path = f'{image.directory}/m{i}'
        with open(path, 'w+b') as file:
            file.truncate(1 << 20)
            with mmap.mmap(file.fileno(), 1 << 20) as memory:
                memory[:] = bytes([i + 1]) * (1 << 20)
        with open(f'{image.directory}/w{i}', 'wb') as file:
            file.write(bytes([i + 101]) * 300000)
    remount(image, 'ro')
    image.fsck()
    image.umount()
    image.mount(foreground=False)
    for i in range(30):
        with open(f'{image.directory}/m{i}', 'rb') as file:
            equal(file.read() == bytes([i + 1]) * (1 << 20), True, f'mapped file {i}')
        with open(f'{image.directory}/w{i}', 'rb') as file:
            equal(file.read() == bytes([i + 101]) * 300000, True, f'file {i}')
    image.umount()


@case('pages that are still in the kernel when remount,ro begins are written')
def pages():
    dirty_pages('')
    dirty_pages('writeback')


@case('a crash after remount,rw is replayed; a crash while read-only leaves nothing to replay')
def crash():
    image = Image('crash', '96M')
    image.mount(foreground=False)
    write(f'{image.directory}/a', 'one')
    remount(image, 'ro')
    image.kill()
    image.mount(foreground=False)
    equal(image.status()['journal']['replayed_groups'], 0)
    equal(read(f'{image.directory}/a'), 'one')
    remount(image, 'ro')
    remount(image, 'rw')
    with open(f'{image.directory}/b', 'w') as file:
        file.write('two')
        file.flush()
        os.fsync(file.fileno())
    image.kill()
    image.mount(foreground=False)
    equal(image.status()['journal']['replayed_groups'] > 0, True, 'replayed')
    equal((read(f'{image.directory}/a'), read(f'{image.directory}/b')), ('one', 'two'))
    image.umount()
    image.fsck()


# ---- read-only from the start ------------------------------------------------------------------------------------------
def dirty_image(name):
    """A journal that must be replayed, and an unlinked file to be freed."""
    image = Image(name, '96M')
    image.mount(foreground=False)
    os.mkdir(f'{image.directory}/d')
    for i in range(50):
        write(f'{image.directory}/d/f{i}', str(i) * 3000)
    gone = open(f'{image.directory}/gone', 'w')
    gone.write('x' * 100000)
    gone.flush()
    os.unlink(f'{image.directory}/gone')
    fd = os.open(f'{image.directory}/d', os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    image.kill()
    gone = None
    return image


def check_content(image):
    for i in range(50):
        equal(read(f'{image.directory}/d/f{i}'), str(i) * 3000)


@case('-o ro replays in memory only: the image keeps every byte; remount,rw replays it for good')
def ro_from_start():
    image = dirty_image('start')
    before = sha256(image.path)
    image.mount('ro', foreground=False)
    status = image.status()
    equal((status['filesystem']['read_only'], status['journal']['replayed_groups'] > 0), (True, True))
    check_content(image)
    fails(errno.EROFS, os.mkdir, f'{image.directory}/new')
    run('find', image.directory, '-ls')
    image.umount()
    equal(sha256(image.path), before, 'image after a read-only mount')
    image.mount('ro', foreground=False)
    check_content(image)
    remount(image, 'rw')
    equal(read_only(image), False)
    check_content(image)
    write(f'{image.directory}/new', 'new')
    wait_for(lambda: image.status()['filesystem']['orphans'] == 0, 'freed: the unlinked file')
    image.kill()
    image.mount(foreground=False)
    check_content(image)
    image.umount()
    image.fsck()
    equal(sha256(image.path) != before, True, 'it was written')


def check_unwritable(target, directory, *words):
    """A read-only mount of it works, a writable one does not, and a remount says why."""
    result = run(MOUNT, target, directory, check=False)
    equal(result.returncode, 32, result.stderr)
    equal(result.stderr.count('\n'), 1, result.stderr)
    run(MOUNT, target, directory, '-o', 'ro')
    try:
        for i in range(50):
            equal(read(f'{directory}/d/f{i}'), str(i) * 3000)
        result = run(MOUNT, target, directory, '-o', 'remount,rw', check=False)
        note(result.stderr)
        equal((result.returncode, result.stderr.count('\n')), (32, 1), result.stderr)
        for word in words:
            equal(word in result.stderr, True, f'{word!r} in {result.stderr}')
        fails(errno.EROFS, os.mkdir, f'{directory}/new')
        equal(read(f'{directory}/d/f1'), '1' * 3000)
    finally:
        run(UMOUNT, directory)


@case('a read-only block device: mounted with -o ro, refused otherwise, no byte changes')
def ro_device():
    need('losetup', 'blockdev')
    if DRIVE:
        raise Skip('block devices have no medium')
    image = dirty_image('rodev')
    before = sha256(image.path)
    loop = run('losetup', '--show', '-f', image.path).stdout.strip()
    try:
        run('blockdev', '--setro', loop)
        check_unwritable(loop, image.directory, 'write-protected')
        run('blockdev', '--setrw', loop)
        run(MOUNT, loop, image.directory, '-o', 'ro')
        run(MOUNT, loop, image.directory, '-o', 'remount,rw')
        write(f'{image.directory}/new', 'new')
        equal(run(MOUNT, loop, work_dir(), check=False).returncode, 32, 'a second mount of it')
        equal(run('wipefs', '-a', loop, check=False).returncode != 0, True, 'it is claimed')
        run(UMOUNT, image.directory)
    finally:
        if image.mounted():
            run(UMOUNT, image.directory)
        run('losetup', '-d', loop)
    equal(sha256(image.path) != before, True, 'written at last')
    image.fsck()


@case('an image on a read-only filesystem, and one that may not be written: -o ro works, no byte changes')
def ro_file():
    image = dirty_image('rofile')
    before = sha256(image.path)
    folder = f'{work_dir()}/rofolder'
    os.mkdir(folder)
    run('mount', '--bind', work_dir(), folder)
    try:
        run('mount', '-o', 'remount,bind,ro', folder)
        check_unwritable(image.target.replace(work_dir(), folder), image.directory, 'read-only')
    finally:
        run('umount', folder)
    if shutil.which('chattr') and run('chattr', '+i', image.path, check=False).returncode == 0:
        try:
            check_unwritable(image.target, image.directory, 'permission')
        finally:
            run('chattr', '-i', image.path)
    equal(sha256(image.path), before, 'image')


@case('two read-only mounts of one image; only the last one can become writable')
def shared():
    image = dirty_image('shared')
    other = f'{work_dir()}/other'
    os.mkdir(other)
    image.mount('ro', foreground=False)
    run(MOUNT, image.target, other, '-o', 'ro')
    try:
        refused(image, 'rw', 'another process')
        check_content(image)
    finally:
        run(UMOUNT, other)
    remount(image, 'rw')
    equal(run(MOUNT, image.target, other, '-o', 'ro', check=False).returncode, 32, 'a reader beside a writer')
    remount(image, 'ro')
    run(MOUNT, image.target, other, '-o', 'ro')
    run(UMOUNT, other)
    image.umount()
    image.fsck()


# ---- through mount(8) --------------------------------------------------------------------------------------------------
@case('mount -o remount, with and without an fstab line; findmnt and mount show it; umount waits for the clean image')
def mount8():
    image = Image('mount8', '96M')
    with open(f'{work_dir()}/remount-fstab', 'w') as file:
        file.write(f'{image.target} {image.directory} lanefs noatime,nosuid,cache=8M,nofail,x-test=1 0 2\n')
    output = in_namespace(
        'show() { findmnt -n -o OPTIONS "$2"; mount | grep -F " $2 "; }; '
        'mount -t lanefs "$1" "$2" -o noatime,nosuid,cache=8M; echo text >"$2"/f; '
        'mount -o remount,ro "$2"; show "$@"; ! touch "$2"/g 2>/dev/null; "$3"/mkfs/fsck.lanefs -n "$1" >&2; '
        'mount -o remount,rw "$2"; show "$@"; touch "$2"/g; '
        'mount --bind "$4" /etc/fstab; mount -o remount,ro "$2"; show "$@"; mount -o remount "$2"; touch "$2"/h; '
        'mount -o remount,sync "$2"; show "$@"; umount /etc/fstab; mount -o remount,async,strictatime "$2"; show "$@"; '
        'mount -o remount,ro "$2"; umount "$2"; "$3"/mkfs/fsck.lanefs -n "$1" >&2; ! grep -F "$2" /run/mount/utab; '
        'mount -t lanefs "$1" "$2"; test -e "$2"/h; umount "$2"', image.target, image.directory, BUILD,
        f'{work_dir()}/remount-fstab')
    note(output)
    shown = [line.split(',') for line in output.split('\n') if line and ' ' not in line]
    equal([line[0] for line in shown], ['ro', 'rw', 'ro', 'rw', 'rw'], 'findmnt')
    for line in shown[:4]:
        equal(('noatime' in line, 'nosuid' in line), (True, True), line)
    equal(('sync' in shown[3], 'sync' in shown[4], 'noatime' in shown[4]), (True, False, False), 'sync, then not')
    plain = [line for line in output.split('\n') if ' type fuse.lanefs ' in line]
    equal(['(ro,' in line for line in plain], [True, False, True, False, False], 'mount')


@case('umount -r makes a mount that is busy read-only')
def umount_r():
    image = Image('umount-r', '96M')
    image.mount(foreground=False)
    write(f'{image.directory}/f', 'text')
    reader = open(f'{image.directory}/f')
    equal(run(UMOUNT, image.directory, check=False).returncode, 32, 'busy')
    result = run(UMOUNT, '-r', image.directory)
    equal('read-only now' in result.stderr, True, result.stderr)
    equal(read_only(image), True)
    image.fsck()
    reader.close()
    run(UMOUNT, '-r', image.directory)
    wait_for(lambda: not alive(image.pid), 'ended')


@case('at shutdown: a remount,ro of the kernel alone, then SIGTERM: the image is clean')
def shutdown():
    image = Image('shutdown', '96M')
    image.mount()
    write(f'{image.directory}/f', 'text')
    libc = ctypes.CDLL(None, use_errno=True)
    equal(libc.mount(None, image.directory.encode(), None, 32 | 1, None), 0, 'MS_REMOUNT | MS_RDONLY')
    fails(errno.EROFS, open, f'{image.directory}/g', 'w')
    equal(read(f'{image.directory}/f'), 'text')
    os.kill(image.pid, signal.SIGTERM)
    equal(image.process.wait(20), 0, 'exit status')
    image.process, image.pid = None, 0
    image.fsck()
    # And with the daemon's part done before: nothing is left to do.
    image.mount()
    remount(image, 'ro')
    os.kill(image.pid, signal.SIGTERM)
    equal(image.process.wait(20), 0, 'exit status')
    image.process, image.pid = None, 0
    image.fsck()


# ---- errors and options ------------------------------------------------------------------------------------------------
@case('a filesystem that has stopped: remount,rw is refused, remount,ro says so')
def stopped():
    image = Image('stopped', '96M')
    image.mount(foreground=False)
    write(f'{image.directory}/f', 'text')
    fd = os.open(image.directory, os.O_RDONLY)
    os.fsync(fd)
    fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))  # FS_IOC_SHUTDOWN
    os.close(fd)
    fails(errno.EIO, os.mkdir, f'{image.directory}/d')
    result = remount(image, 'ro')
    equal('stopped on an error' in result.stderr, True, result.stderr)
    equal('ro' in kernel_flags(image), True)
    equal(read(f'{image.directory}/f'), 'text')
    refused(image, 'rw', 'stopped')
    run(UMOUNT, image.directory, check=False)
    wait_for(lambda: not alive(image.pid), 'ended')
    image.mount(foreground=False)
    equal(read(f'{image.directory}/f'), 'text')
    image.umount()


@case('options that cannot change are refused by name; what is not mounted, and who is not root, too')
def refusals():
    image = Image('refusals', '96M')
    image.mount('cache=8M,reactors=1', foreground=False)
    for option in ('cache=16M', 'reactors=2', 'writeback', 'noopen', 'poll', 'hugepages', 'max_background=3',
                   'on_removal=wait', 'lcores=0@0', 'nohotplug', 'auto_bind'):
        refused(image, option, f'option {option.split("=")[0].replace("nohotplug", "hotplug")}', 'cannot be changed')
    refused(image, 'nonsense', 'nonsense', status=1)
    refused(image, 'commit=0', 'commit', status=1)
    for same in ('cache=8M', 'reactors=1', 'allow_other', 'default_permissions,user_id=0,group_id=0,max_read=4096',
                 'defaults,nofail,_netdev,x-any=1,lazytime,iversion,silent', 'on_removal=unmount'):
        remount(image, same)
    equal(read_only(image), False)
    need('setpriv')
    program = f'{work_dir()}/mount.lanefs'
    shutil.copy2(MOUNT, program)
    result = run('setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', program, image.target, image.directory, '-o',
                 'remount,ro', check=False)
    equal((result.returncode, 'only root' in result.stderr), (32, True), result.stderr)
    image.umount()
    refused(image, 'ro', 'no lanefs is mounted there')


@case('atime, sync, commit and mount flags change')
def options():
    image = Image('options', '96M')
    image.mount('commit=300', foreground=False)
    path = f'{image.directory}/f'
    write(path, 'x')

    def moves():
        old = time.time_ns() + 3600 * 10 ** 9
        os.utime(path, ns=(old, old - 10 ** 12))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        os.preadv(fd, [mmap.mmap(-1, 4096)], 0)
        os.close(fd)
        return os.stat(path).st_atime_ns != old

    def groups():
        return image.status()['journal']['groups']
    equal(moves(), False, 'relatime')
    remount(image, 'strictatime')
    equal(moves(), True, 'strictatime')
    remount(image, 'noatime')
    equal((moves(), 'noatime' in kernel_flags(image)), (False, True))
    remount(image, 'relatime,noexec,nodev,nosuid')
    equal({'relatime', 'noexec', 'nodev', 'nosuid'} <= set(kernel_flags(image)), True, kernel_flags(image))
    shutil.copy2('/bin/true', image.directory)
    equal(run('sh', '-c', f'{image.directory}/true', check=False).returncode, 126, 'noexec')
    remount(image, 'exec')
    run(f'{image.directory}/true')
    equal('nosuid' in kernel_flags(image), True, 'what is not named stays')
    before = groups()
    for i in range(5):
        os.mkdir(f'{image.directory}/lazy{i}')
    equal(groups() - before <= 1, True, 'commit=300: no group for each')
    remount(image, 'sync')
    before = groups()
    for i in range(5):
        os.mkdir(f'{image.directory}/sync{i}')
    equal(groups() - before >= 5, True, 'sync: a group for each')
    remount(image, 'async,commit=1')
    os.mkdir(f'{image.directory}/soon')
    before = groups()
    wait_for(lambda: groups() > before, 'committed, after a second', 4)
    image.umount()
    image.fsck()


@case('remounts one after the other and at once, with unmounting in between')
def storm():
    image = Image('storm', '96M')
    image.mount('reactors=2', foreground=False)
    stop = threading.Event()

    def turn():
        while not stop.is_set():
            for options in ('ro', 'rw', 'noatime', 'sync', 'async,relatime'):
                remount(image, options, check=False)
    threads = [threading.Thread(target=turn) for _ in range(3)]
    for thread in threads:
        thread.start()
    end, made = time.monotonic() + 4, 0
    while time.monotonic() < end:
        try:
            write(f'{image.directory}/f{made}', 'x')
            made += 1
        except OSError as error:
            equal(error.errno, errno.EROFS)
    os.kill(image.pid, signal.SIGTERM)
    wait_for(lambda: not alive(image.pid), 'ended')
    stop.set()
    for thread in threads:
        thread.join()
    image.fsck()
    image.mount(foreground=False)
    equal(len(os.listdir(image.directory)) >= made, True, f'{made} files')
    image.umount()


if __name__ == '__main__':
    main()
