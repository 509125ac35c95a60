# SPDX-License-Identifier: BSD-3-Clause
"""An ordinary user with programs, an image and a mount point of their own; what a failed case leaves is removed at the end."""
import atexit
import json
import os
import shutil

from lanefs_test import FSCK, LANEFS, MKFS, MOUNT, UMOUNT, alive, equal, need, run, wait_for, work_dir

UID, OTHER = 65534, 65533
_users = []


class User:
    """A user with a folder of their own: programs in it, an image, a mount point."""

    def __init__(self, runtime=True):
        need('fusermount3', 'setpriv')
        _users.append(self)
        self.home = f'{work_dir()}/home{len(_users)}'
        self.programs = f'{work_dir()}/programs'
        os.mkdir(self.home, 0o755)
        if not os.path.isdir(self.programs):
            os.mkdir(self.programs)
            for program in (MKFS, FSCK, MOUNT, UMOUNT, LANEFS):
                shutil.copy2(program, self.programs)
        self.image, self.directory = f'{self.home}/disk.img', f'{self.home}/mnt'
        self.runtime = f'{self.home}/run' if runtime else None
        os.chown(self.home, UID, UID)
        self.run('truncate', '-s', '128M', self.image)
        self.run('mkdir', self.directory)
        if runtime:
            self.run('mkdir', '-m', '700', self.runtime)

    def run(self, *command, uid=UID, check=True):
        environment = {'PATH': '/usr/bin:/bin', 'HOME': self.home}
        if self.runtime:
            environment['XDG_RUNTIME_DIR'] = self.runtime
        command = [f'{self.programs}/{command[0]}' if 'lanefs' in command[0] else command[0], *command[1:]]
        return run('setpriv', f'--reuid={uid}', f'--regid={uid}', '--clear-groups', '--inh-caps=-all', *command, check=check,
                   env=environment, cwd=self.home)

    def mounted(self):
        with open('/proc/self/mountinfo') as file:
            return any(line.split()[4] == self.directory for line in file)

    def status(self):
        return json.loads(self.run('lanefs', 'status', self.directory, '--json').stdout)

    def mount(self, *options):
        self.run('mkfs.lanefs', '-f', self.image)
        self.run('mount.lanefs', self.image, self.directory, *options)
        self.pid = self.status()['pid']

    def gone(self):
        wait_for(lambda: not alive(self.pid), 'ended')
        equal(self.mounted(), False, 'mounted')
        self.run('fsck.lanefs', '-n', self.image)


@atexit.register
def clean_up():
    """What a case that failed has left."""
    for user in _users:
        if user.mounted():
            run('umount', '-l', user.directory, check=False)
