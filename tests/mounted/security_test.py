#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the daemon and its helper may still do when a mount is there: read from /proc for every thread, and shown by what goes on
working without it."""
import errno
import os
import platform

import foreign_call
from lanefs_test import MKFS, MOUNT, Image, Skip, case, equal, loop_device, main, run, sanitized
from user_common import UID, User

DAC_OVERRIDE, DAC_READ_SEARCH, SYS_MODULE, SYS_PTRACE, SYS_ADMIN = (1 << number for number in (1, 2, 16, 19, 21))
HELPER = DAC_READ_SEARCH | SYS_ADMIN
SANITIZED = sanitized()
# x86-64: by number, and arguments that would be taken
FORBIDDEN = {'socket': (41, 1, 1, 0), 'fork': (57,), 'execve': (59, 0, 0, 0), 'kill': (62, 1, 0), 'rename': (82, 0, 0),
             'chmod': (90, 0, 0), 'ptrace': (101, 0, 0), 'setuid': (105, 0), 'mount': (165, 0, 0, 0, 0), 'umount2': (166, 0, 0),
             'init_module': (175, 0, 0, 0), 'bpf': (321, 0, 0, 0), 'unshare': (272, 0x10000000), 'openat2': (437, 0, 0, 0, 0),
             'mmap executable': (9, 0, 4096, 7, 0x22, 2 ** 64 - 1, 0), 'ioctl TIOCSTI': (16, 0, 0x5412, 0),
             'clone without CLONE_THREAD': (56, 17, 0, 0, 0, 0), 'prctl': (157, 4, 0, 0, 0)}


# ---- what /proc says ------------------------------------------------------------------------------------------------
def fields(path):
    with open(path) as file:
        return dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)


def threads(pid):
    """The fields of every thread; the kernel's own, which work for a ring, take no part in this."""
    found = [fields(f'/proc/{pid}/task/{tid}/status') for tid in os.listdir(f'/proc/{pid}/task')]
    return [thread for thread in found if not thread['Name'].startswith('iou-')]


def helper_of(pid):
    with open(f'/proc/{pid}/task/{pid}/children') as file:
        children = [int(word) for word in file.read().split()]
    named = [child for child in children if fields(f'/proc/{child}/status')['Name'] == 'lanefs-helper']
    equal(len(named), 1, f'helpers among {children}')
    return named[0]


def capabilities(thread):
    return {name: int(thread[f'Cap{name}'], 16) for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')}


def equal_capabilities(thread, wanted, bound, what):
    equal(capabilities(thread), {'Inh': 0, 'Prm': wanted, 'Eff': wanted, 'Bnd': bound, 'Amb': 0}, f'{what}: {thread["Name"]}')


def check_daemon(pid, wanted=0):
    for thread in threads(pid):
        equal_capabilities(thread, wanted, 0, 'daemon')
        equal(thread['NoNewPrivs'], '1', thread['Name'])
        if not SANITIZED:
            equal(thread['Seccomp'], '2', f'filter of {thread["Name"]}')
    equal(fields(f'/proc/{pid}/status')['Umask'], '0077', 'umask of the daemon')


def check_helper(pid, wanted=HELPER):
    helper = fields(f'/proc/{helper_of(pid)}/status')
    equal_capabilities(helper, wanted, wanted, 'helper')
    equal(helper['NoNewPrivs'], '1', 'NoNewPrivs of the helper')


# ---- cases ----------------------------------------------------------------------------------------------------------
def work(image):
    """A little of everything that a mount does."""
    directory = image.directory
    run('sh', '-ec', f'cd {directory}; rm -rf a; mkdir -p a/b; cp /bin/sh a/b/sh; sync a/b/sh; cmp /bin/sh a/b/sh; mv a/b/sh a; '
        'ln a/sh a/hard; ln -s sh a/soft; fallocate -l 1M a/space; fallocate -p -l 64k a/space; truncate -s 10k a/space; '
        'chmod 4755 a/sh; chown 1:1 a/sh; rm -r a/b; find . >/dev/null; df . >/dev/null')
    equal(image.status()['state'], 'mounted')


@case('an image: no capability in any thread of the daemon, two in its helper; work, remounts and unmounting go on')
def plain_image():
    image = Image('plain', '256M')
    image.mount('reactors=2')
    check_daemon(image.pid)
    check_helper(image.pid)
    equal(image.status()['confinement']['capabilities'], 'none')
    work(image)
    for options in ('ro', 'rw'):
        run(MOUNT, image.path, image.directory, '-o', f'remount,{options}')
    work(image)
    image.umount()
    image.fsck()
    image.remove()


@case('in the background, read-only first, then writable')
def becomes_writable():
    image = Image('writable', '128M')
    image.mount('ro', foreground=False)
    check_daemon(image.pid)
    for options in ('rw', 'ro', 'rw'):
        run(MOUNT, image.path, image.directory, '-o', f'remount,{options}')
    work(image)
    image.umount()
    image.fsck()
    image.remove()


@case('a block device')
def block_device():
    with loop_device('device', '256M') as image:
        run(MKFS, image.path)
        image.mount()
        check_daemon(image.pid)
        check_helper(image.pid)
        work(image)
        equal(image.status()['device']['kind'], 'block device')
        image.umount()
        image.fsck()


@case('an emulated drive, with the rights to bind a real one that comes back')
def emulated():
    image = Image('drive', '256M')
    image.target = f'emu:{image.path}'
    image.mount('auto_bind,on_removal=wait')
    check_daemon(image.pid)
    check_helper(image.pid, HELPER | SYS_MODULE | SYS_PTRACE)
    work(image)
    image.umount()
    image.fsck()
    image.remove()


@case('an image that belongs to somebody else: the right to open it again is kept, and needed when it becomes writable')
def foreign_image():
    image = Image('foreign', '128M')
    os.chown(image.path, UID, UID)
    os.chmod(image.path, 0o600)
    image.mount('ro')
    check_daemon(image.pid, DAC_OVERRIDE)
    equal(image.status()['confinement']['capabilities'], 'dac_override')
    run(MOUNT, image.path, image.directory, '-o', 'remount,rw')
    work(image)
    image.umount()
    image.remove()


@case('calls that the daemon never makes are refused and counted, and it goes on')
def forbidden_calls():
    if SANITIZED or platform.machine() != 'x86_64':
        raise Skip('no filter of system calls in this build, or another machine')
    image = Image('forbidden', '128M')
    image.mount()
    for name, (number, *arguments) in FORBIDDEN.items():
        equal(foreign_call.refused(image.pid, number, *arguments), True, f'{name} is refused')
        equal(os.path.exists(image.directory), True, 'serves')
    equal(image.status()['confinement']['refused_calls'], len(FORBIDDEN))
    with open(image.log) as log:
        lines = [line for line in log if 'is not one that lanefs makes: refused' in line]
    equal(bool(lines) and f'system call {FORBIDDEN["socket"][0]} ' in lines[0], True, lines[:1])
    work(image)
    image.expects_refusals = True
    image.umount()
    image.fsck()
    image.remove()


def opened(pid, path):
    """What a thread of the daemon gets for opening this path to read it, seen through a name that lies in its own memory."""
    with open(f'/proc/{pid}/maps') as maps:
        stack = next(line for line in maps if line.rstrip().endswith('[stack]'))
    start = int(stack.split('-')[0], 16)
    with open(f'/proc/{pid}/mem', 'r+b', 0) as memory:
        memory.seek(start)
        before = memory.read(64)
        memory.seek(start)
        memory.write(path.encode() + b'\0')
        try:
            return foreign_call.result(pid, 257, 2 ** 64 - 100, start, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            memory.seek(start)
            memory.write(before)


@case('files that are none of its business cannot be opened, although they are root\'s and so is the daemon')
def foreign_files():
    if SANITIZED or platform.machine() != 'x86_64':
        raise Skip('no Landlock in this build, or another machine')
    image = Image('files', '128M')
    image.mount()
    if not image.status()['confinement']['landlock']:
        raise Skip('no Landlock in this kernel')
    for path in ('/etc/shadow', '/etc/passwd', '/root', '/', '/dev/zero', '/var/tmp'):
        equal(opened(image.pid, path), -errno.EACCES, path)
    for path in ('/proc/self/status', '/sys/kernel', '/dev/null', image.path):
        equal(opened(image.pid, path) >= 0, True, path)
    work(image)
    image.umount()
    image.fsck()
    image.remove()


@case('an ordinary user: nothing can be gained by executing, and fusermount3 works all the same')
def ordinary_user():
    user = User()
    user.mount()
    try:
        for thread in threads(user.pid):
            equal((capabilities(thread)['Prm'], thread['NoNewPrivs']), (0, '1'), thread['Name'])
        equal(fields(f'/proc/{helper_of(user.pid)}/status')['NoNewPrivs'], '0', 'fusermount3 is set-user-ID')
        user.run('sh', '-c', f'echo text >{user.directory}/f; sync {user.directory}/f')
    finally:
        user.run('umount.lanefs', user.directory)
    user.gone()


@case('noconfine leaves everything')
def not_confined():
    image = Image('free', '128M')
    image.mount('noconfine')
    own = fields('/proc/self/status')
    for thread in threads(image.pid):
        equal((thread['CapEff'], thread['CapBnd'], thread['NoNewPrivs']), (own['CapEff'], own['CapBnd'], '0'), thread['Name'])
    equal(image.status()['confinement']['on'], False)
    image.umount()
    image.remove()


if __name__ == '__main__':
    main()
