#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""An ordinary user with an image of their own: from mkfs to the unmount, without root anywhere but in fusermount3. Others see
nothing of it."""
import os
import shutil
import signal
import stat
import time

from lanefs_test import BUILD, alive, case, equal, main, need, note, run, wait_for, work_dir
from user_common import OTHER, UID, User


@case('mkfs, mount, work, status, stats, umount.lanefs: all as an ordinary user')
def whole():
    user = User()
    user.mount()
    try:
        equal(os.stat(f'/proc/{user.pid}').st_uid, UID, 'the daemon runs as the user')
        with open('/proc/self/mountinfo') as file:
            line = next(line for line in file if line.split()[4] == user.directory)
        for flag in ('nosuid', 'nodev'):
            equal(flag in line.split()[5], True, line)
        equal('allow_other' in line, False, line)
        equal('default_permissions' in line, True, line)
        user.run('sh', '-c', f'cd {user.directory} && mkdir -p a/b && echo text >a/b/f && ln -s f a/b/l && cp /bin/true a && '
                 f'a/true && chmod 600 a/b/f && mv a/b/f a/g && rm -r a/b && sync && df . && tar cf x.tar a && ls -laR')
        result = user.run('sh', '-c', f'chown {OTHER} {user.directory}/a/g', check=False)
        equal(result.returncode, 1, 'chown to another')
        equal(user.status()['state'], 'mounted')
        equal('CREATE' in user.run('lanefs', 'stats', user.directory).stdout, True, 'stats')
        equal(user.directory in user.run('lanefs', 'status').stdout, True, 'status of all')
        equal(stat.S_IMODE(os.stat(f'{user.runtime}/lanefs').st_mode), 0o700, 'folder of the socket')
        equal(stat.S_IMODE(os.stat(f'{user.runtime}/lanefs/{user.pid}.sock').st_mode), 0o600, 'socket')
    finally:
        user.run('umount.lanefs', user.directory)
    equal(alive(user.pid), False, 'umount.lanefs has waited')
    user.gone()


@case('posix_check, run by the owner')
def posix():
    user = User()
    user.mount()
    try:
        shutil.copy2(f'{BUILD}/tests/mounted/posix/posix_check', user.programs)
        result = user.run('sh', '-c', f'exec {user.programs}/posix_check {user.directory}', check=False)
        note('\n'.join(line for line in result.stdout.split('\n') if line.startswith('not ok')))
        equal(result.returncode, 0, 'exit status')
    finally:
        user.run('umount.lanefs', user.directory)
    user.gone()


@case('nobody else sees the mount, root included; nobody else may ask or unmount')
def others():
    user = User()
    user.mount()
    try:
        user.run('sh', '-c', f'echo secret >{user.directory}/f; chmod 666 {user.directory}/f')
        for uid in (OTHER, 0):
            result = run('setpriv', f'--reuid={uid}', f'--regid={uid}', '--clear-groups', 'cat', f'{user.directory}/f',
                         check=False)
            equal((result.returncode, 'secret' in result.stdout), (1, False), f'uid {uid}: {result.stdout}{result.stderr}')
        for command in (('umount.lanefs', user.directory), ('lanefs', 'status', user.directory)):
            result = user.run(*command, uid=OTHER, check=False)
            equal(result.returncode != 0, True, f'{command} as another user')
            equal(result.stderr.count('\n'), 1, result.stderr)
        equal(user.mounted(), True)
    finally:
        user.run('umount.lanefs', user.directory)
    user.gone()


@case('fusermount3 -u, SIGTERM, umount.lanefs while busy, and -l')
def ends():
    user = User()
    user.mount()
    user.run('sh', '-c', f'echo text >{user.directory}/f')
    user.run('fusermount3', '-u', user.directory)
    user.gone()
    user.run('mount.lanefs', user.image, user.directory)  # also right behind it
    user.pid = user.status()['pid']
    equal(user.run('cat', f'{user.directory}/f').stdout, 'text\n')
    os.kill(user.pid, signal.SIGTERM)
    user.gone()
    user.run('mount.lanefs', user.image, user.directory)
    user.pid = user.status()['pid']
    result = user.run('sh', '-c', f'exec 3<{user.directory}/f; {user.programs}/umount.lanefs {user.directory}; echo $?; '
                      f'{user.programs}/umount.lanefs -l {user.directory}; cat <&3')
    equal(result.stdout, '32\ntext\n', result.stderr)
    equal('busy' in result.stderr, True, result.stderr)
    user.gone()


@case('without a runtime folder: /run/user/UID or /tmp; umount.lanefs finds the daemon all the same')
def runtime():
    user = User(runtime=False)
    user.mount()
    try:
        folder = f'/run/user/{UID}/lanefs' if os.path.isdir(f'/run/user/{UID}') else f'/tmp/lanefs-{UID}'
        equal(os.path.exists(f'{folder}/{user.pid}.sock'), True, folder)
        equal(stat.S_IMODE(os.stat(folder).st_mode), 0o700, folder)
    finally:
        user.run('umount.lanefs', user.directory)
    equal(alive(user.pid), False, 'umount.lanefs has waited')
    user.gone()
    # XDG_RUNTIME_DIR that is missing, or another's, is not used.
    for wrong in (f'{work_dir()}/missing', work_dir()):
        user.runtime = wrong
        user.run('mount.lanefs', user.image, user.directory)
        user.pid = user.status()['pid']
        equal(os.path.exists(f'{folder}/{user.pid}.sock'), True, folder)
        user.run('umount.lanefs', user.directory)
        user.gone()
    if folder.startswith('/tmp'):
        os.rmdir(folder)


def refused(user, *command):
    result = user.run(*command, check=False)
    note(result.stderr)
    equal((result.returncode, result.stderr.count('\n')), (32, 1), result.stderr)
    equal(user.mounted(), False, 'mounted')
    return result.stderr


@case('what a user may not do is refused with one line: allow_other, foreign directories and images, a second mount')
def refusals():
    user = User()
    user.run('mkfs.lanefs', user.image)
    with open('/etc/fuse.conf') as file:
        permitted = any(line.strip() == 'user_allow_other' for line in file)
    if not permitted:
        equal('user_allow_other' in refused(user, 'mount.lanefs', user.image, user.directory, '-o', 'allow_other'), True)
    foreign = f'{work_dir()}/foreign'
    os.mkdir(foreign, 0o755)
    result = user.run('mount.lanefs', user.image, foreign, check=False)
    note(result.stderr)
    equal((result.returncode, result.stderr.count('\n'), foreign in result.stderr), (32, 1, True), result.stderr)
    os.chmod(user.image, 0o600)
    os.chown(user.image, OTHER, OTHER)
    equal('permission' in refused(user, 'mount.lanefs', user.image, user.directory).lower(), True)
    os.chown(user.image, UID, UID)
    os.chmod(user.image, 0o444)
    equal('ermission' in refused(user, 'mount.lanefs', user.image, user.directory), True, 'writable mount of a mode 0444')
    user.run('mount.lanefs', user.image, user.directory, '-o', 'ro')
    user.pid = user.status()['pid']
    result = user.run('mount.lanefs', user.image, user.directory, '-o', 'remount,rw', check=False)
    equal((result.returncode, 'only root' in result.stderr), (32, True), result.stderr)
    user.run('umount.lanefs', user.directory)
    os.chmod(user.image, 0o644)
    user.gone()
    user.run('mount.lanefs', user.image, user.directory)
    user.pid = user.status()['pid']
    os.mkdir(f'{user.home}/second')
    os.chown(f'{user.home}/second', UID, UID)
    result = user.run('mount.lanefs', user.image, f'{user.home}/second', check=False)
    equal((result.returncode, 'already mounted' in result.stderr), (32, True), result.stderr)
    user.run('umount.lanefs', user.directory)
    user.gone()


@case('user_allow_other in fuse.conf: others see the mount, as far as permissions go')
def allow_other():
    need('unshare')
    user = User()
    user.run('mkfs.lanefs', user.image)
    os.chmod(user.home, 0o755)
    conf = f'{work_dir()}/fuse.conf'
    with open(conf, 'w') as file:
        file.write('user_allow_other\n')
    nobody = f'setpriv --reuid={UID} --regid={UID} --clear-groups env XDG_RUNTIME_DIR={user.runtime}'
    other = f'setpriv --reuid={OTHER} --regid={OTHER} --clear-groups'
    script = (f'set -e; mount --make-rprivate /; mount --bind {conf} /etc/fuse.conf; '
              f'{nobody} {user.programs}/mount.lanefs {user.image} {user.directory} -o allow_other; '
              f'{nobody} sh -c "echo open >{user.directory}/f; echo closed >{user.directory}/g; chmod 600 {user.directory}/g"; '
              f'{other} cat {user.directory}/f; ! {other} cat {user.directory}/g; ! {other} touch {user.directory}/h; '
              f'{nobody} {user.programs}/umount.lanefs {user.directory}')
    result = run('unshare', '-m', 'sh', '-c', script)
    equal(result.stdout, 'open\n', result.stderr)
    user.run('fsck.lanefs', '-n', user.image)


@case('a daemon that was killed: the user mounts again at the same place, nothing synced is lost')
def killed():
    user = User()
    user.mount()
    user.run('sh', '-c', f'echo text >{user.directory}/f; sync {user.directory}/f')
    os.kill(user.pid, signal.SIGKILL)
    wait_for(lambda: not alive(user.pid), 'dead')
    time.sleep(0.1)
    user.run('mount.lanefs', user.image, user.directory)
    user.pid = user.status()['pid']
    equal(user.run('cat', f'{user.directory}/f').stdout, 'text\n')
    user.run('umount.lanefs', user.directory)
    user.gone()


if __name__ == '__main__':
    main()
