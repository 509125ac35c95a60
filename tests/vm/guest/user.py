# SPDX-License-Identifier: BSD-3-Clause
"""An ordinary user who was given the device's vfio group: formats, mounts, works, unmounts, without root anywhere.

Run by root this prepares the machine (user, group file, who may enter which folder) and becomes that user.
"""
import os
import resource
import sys

from vmguest import BUILD, SOURCE, case, device, equal, main, note, run

from lanefs_test import MKFS
from workload import Volume, check_direct, compare_tree, copy_tree, direct_work, sqlite_work

UID = 4242
MEMLOCK = 1 << 30  # bytes; a device pins the memory that it can reach, and that counts
one = device('nvme2')


def open_to_all(path):
    """Others may enter @path and the folders above it."""
    while path != '/':
        os.chmod(path, os.stat(path).st_mode | 0o055)
        path = os.path.dirname(path)


def become_user():
    one.bind('vfio-pci')
    with open('/etc/passwd', 'a') as file:
        file.write(f'lane:x:{UID}:{UID}::/home/lane:/bin/sh\n')
    os.makedirs('/home/lane', mode=0o700)
    os.chown('/home/lane', UID, UID)
    os.makedirs('/run/user/4242', mode=0o700)
    os.chown('/run/user/4242', UID, UID)
    for path in (SOURCE, BUILD):
        open_to_all(path)
    os.chown(f'/dev/vfio/{one.group()}', UID, UID)
    for path in ('/dev/fuse', '/dev/vfio/vfio', '/dev/ttyS1', '/dev/null', '/dev/tty'):
        os.chmod(path, 0o666)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (MEMLOCK, MEMLOCK))
    os.setgroups([])
    os.setgid(UID)
    os.setuid(UID)
    environment = {**os.environ, 'HOME': '/home/lane', 'USER': 'lane', 'XDG_RUNTIME_DIR': '/run/user/4242',
                   'LANEFS_TEST_DIR': '/home/lane'}
    os.execve(sys.executable, [sys.executable, '-u', os.path.abspath(__file__)], environment)


if os.getuid() == 0:
    become_user()

volume = Volume(one)
volume.path = volume.target = one.address()


@case('too little lockable memory is refused with a line that says so')
def memlock():
    result = run('prlimit', '--memlock=65536:65536', MKFS, '-n', volume.path, check=False)
    note(result.stderr)
    equal(result.returncode != 0 and len(result.stderr.strip().split('\n')) == 1, True, f'one line: {result.stderr}')
    equal('memlock' in result.stderr.lower() or 'ulimit -l' in result.stderr, True, 'it names the limit')


@case('mkfs, mount')
def format_and_mount():
    volume.mkfs()
    volume.mount()


@case('files go in and compare equal')
def files():
    copy_tree(volume.top())
    compare_tree(volume.top())
    direct_work(volume.top())
    sqlite_work(volume.top())


@case('unmount, fsck, mount again')
def again():
    volume.umount()
    volume.fsck()
    volume.mount()
    compare_tree(volume.top())
    check_direct(volume.top())
    volume.umount()
    volume.fsck_on_host()


main()
