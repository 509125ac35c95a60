# SPDX-License-Identifier: BSD-3-Clause
"""The filesystems that bench/compare measures: each makes its image anew, mounts it at `directory`, and takes it away
again whatever state it is in. Processes are known by pid, loop devices by the name that losetup printed."""
import os
import shutil
import signal
import subprocess
import time

from compare_rows import Failed

IMAGE_BYTES = 2 << 30


def run(*command, timeout=120):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f'{command[0]}: {error}') from error
    if done.returncode != 0:
        raise Failed(f'{" ".join(command)}: {(done.stderr or done.stdout).strip() or f"status {done.returncode}"}')
    return done.stdout.strip()


def is_mounted(directory):
    with open('/proc/self/mountinfo') as file:
        return any(line.split()[4] == directory for line in file)


def unmount(directory):
    """Orderly, or detached where that does not work."""
    if is_mounted(directory):
        try:
            run('umount', directory, timeout=60)
        except Failed:
            pass
    while is_mounted(directory):
        run('umount', '-l', directory)


class Peer:
    """`up` from begin to end; end is right in every state."""

    def __init__(self, name, work, options):
        self.name, self.options = name, options
        self.image = f'{work}/{name}.img'
        self.directory = f'{work}/{name}'
        self.up = False
        self.process = None
        self.loop = None

    needs = ()

    def missing(self):
        return next((program for program in self.needs if not shutil.which(program)), None)

    def begin(self):
        self.up = True  # from here on there is something to take away
        os.makedirs(self.directory, exist_ok=True)
        with open(self.image, 'wb') as file:
            file.truncate(IMAGE_BYTES)
        self.mount()

    def end(self):
        if not self.up:
            return
        self.up = False
        self.unmount()
        if os.path.exists(self.image):
            os.unlink(self.image)

    def settle(self):
        """What the last row left in caches is nobody else's burden."""
        try:
            run('sync', '-f', self.directory, timeout=300)
        except Failed:
            self.end()

    # ---- for the peers
    def serve(self, *command):
        """Starts a FUSE daemon in the foreground and waits for its mount."""
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 20
        while not is_mounted(self.directory):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f'{command[0]} does not mount')
            time.sleep(0.01)

    def end_process(self):
        if not self.process:
            return
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self.process.send_signal(number)
            try:
                self.process.wait(20)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    def make_ext4(self, target):
        # Nothing may be left for later: the kernel would do it during a row.
        run('mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', target)

    def mount_ext4_on_loop(self, directory):
        os.makedirs(directory, exist_ok=True)
        self.make_ext4(self.image)
        self.loop = run('losetup', '--find', '--show', self.image)
        run('mount', '-t', 'ext4', self.loop, directory)

    def end_loop(self):
        if self.loop:
            run('losetup', '--detach', self.loop)
        self.loop = None


class Lanefs(Peer):
    def programs(self):
        build = self.options.build
        return [f'{build}/mkfs/mkfs.lanefs', f'{build}/fs/daemon/mount.lanefs', f'{build}/fs/daemon/umount.lanefs']

    def missing(self):
        return next((program for program in self.programs() if not os.access(program, os.X_OK)), None)

    def mount(self):
        mkfs, mount, _ = self.programs()
        words = [self.options.options] if self.options.options else []
        if self.options.writeback:
            words.append('writeback')
        run(mkfs, '-q', self.image)
        run(mount, self.image, self.directory, *(['-o', ','.join(words)] if words else []))

    def unmount(self):
        if is_mounted(self.directory):
            try:
                run(self.programs()[2], self.directory)
            except Failed:
                unmount(self.directory)


class Ext4(Peer):
    needs = ('mkfs.ext4', 'losetup')

    def mount(self):
        self.mount_ext4_on_loop(self.directory)

    def unmount(self):
        unmount(self.directory)
        self.end_loop()


class Passthrough(Peer):
    needs = ('mkfs.ext4', 'losetup')

    def __init__(self, name, work, options):
        super().__init__(name, work, options)
        self.backing = f'{work}/{name}-backing'
        self.program = f'{options.build}/bench/passthrough'

    def missing(self):
        return super().missing() or (None if os.access(self.program, os.X_OK) else self.program)

    def mount(self):
        self.mount_ext4_on_loop(self.backing)
        source = f'{self.backing}/shared'  # not the folder with lost+found
        os.mkdir(source)
        self.serve(self.program, source, self.directory, *(['-w'] if self.options.writeback else []))

    def settle(self):
        super().settle()
        if self.up:
            run('sync', '-f', self.backing)

    def unmount(self):
        unmount(self.directory)
        self.end_process()
        unmount(self.backing)
        self.end_loop()


class Fuse2fs(Peer):
    needs = ('fuse2fs', 'mkfs.ext4')

    def mount(self):
        self.make_ext4(self.image)
        self.serve('fuse2fs', self.image, self.directory, '-f', '-o', 'rw,allow_other,default_permissions')

    def unmount(self):
        unmount(self.directory)
        self.end_process()


PEERS = {'lanefs': Lanefs, 'ext4': Ext4, 'passthrough': Passthrough, 'fuse2fs': Fuse2fs}
