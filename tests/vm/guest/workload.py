# SPDX-License-Identifier: BSD-3-Clause
"""A lanefs on a device of the machine, and the work that the scenarios do in it.

Volume is a device in one of its three guises (kernel, vfio-pci, uio_pci_generic): use() puts it under that driver and
sets the target that mkfs, fsck and mount get. What was written in one guise is read in another: all of them must see the
same bytes at the same place.
"""
import os
import random
import shutil
import sqlite3
import subprocess
import threading

from vmguest import equal, request, run, write

from lanefs_test import FSCK, LANEFS, MKFS, Image, sha256, work_dir

FILES = 1000
GIT = ['git', '-c', 'gc.auto=0', '-c', 'maintenance.auto=false', '-c', 'user.name=test', '-c', 'user.email=test@localhost']
GIT_ENVIRONMENT = {**os.environ, 'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_SYSTEM': '/dev/null'}
HUGEPAGES = 128  # of 2 MiB each


class Volume(Image):
    """Has Image's mount, umount, kill, status and fsck; its path is the target of the guise. The daemon's log of every mount
    is kept in the share."""

    def __init__(self, device):
        super().__init__(device.name, format=False)
        os.unlink(self.path)
        self.device = device
        self.options = ''

    def use(self, driver):
        """driver: nvme, vfio-pci or uio_pci_generic."""
        if self.device.driver() != driver:
            run(LANEFS, 'bind', self.device.address(), '--driver', driver)
        self.device.bind(driver)
        self.path = self.target = self.device.block_device() if driver == 'nvme' else self.device.address()
        self.options = 'hugepages' if driver == 'uio_pci_generic' else ''
        if self.options:
            write('/proc/sys/vm/nr_hugepages', str(HUGEPAGES))
        return self

    def mount(self, options='', foreground=True):
        return super().mount(','.join(filter(None, (self.options, options))), foreground)

    def top(self):
        """The mount point; what is written there reaches the device, or this fails."""
        equal(self.mounted(), True, f'{self.directory} is mounted')
        return self.directory

    def mkfs(self, *options):
        run(MKFS, '-f', *options, self.path)

    def fsck_on_host(self):
        """A third view of the same bytes: the host's, of the disk image."""
        answer = request('fsck', device=self.device.name)
        equal(answer['status'], 0, f'status of fsck on the host ({answer["output"]})')

    def remove(self):
        self.path = f'{work_dir()}/none'  # never the device node
        super().remove()


def make_tree():
    """A thousand small files, with links, modes, times and attributes; made once."""
    tree = f'{work_dir()}/tree'
    if os.path.exists(f'{tree}/large'):
        return tree
    randomness = random.Random(42)
    for i in range(FILES):
        folder = f'{tree}/p{i % 10}/q{i // 10 % 5}'
        if i < 100:
            os.makedirs(folder, exist_ok=True)
        path = f'{folder}/file-{i:04d}.c'
        with open(path, 'wb') as file:
            file.write(randomness.randbytes(randomness.choice((0, 30, 200, 900, 2500, 6000, 15000))))
        if i % 50 == 0:
            os.chmod(path, 0o755)
        if i % 97 == 0:
            os.symlink(os.path.basename(path), path + '.link')
        if i % 101 == 0:
            os.link(path, path + '.hard')
        if i % 103 == 0 and os.geteuid() == 0:
            os.setxattr(path, 'trusted.origin', b'here' * (i % 60 + 1))  # tmpfs has no user.* before Linux 6.6
        if i % 107 == 0:
            os.utime(path, ns=(10 ** 18 + i, 10 ** 18 + i * 7919))
    with open(f'{tree}/large', 'wb') as file:
        file.write(randomness.randbytes(9_000_001))
    return tree


def copy_tree(top, name='tree'):
    tree = make_tree()
    os.mkdir(f'{top}/{name}')
    command = f'tar -C {tree} --xattrs -cf - . | tar -C {top}/{name} --xattrs --xattrs-include="*" -xpf -'
    subprocess.run(['bash', '-o', 'pipefail', '-c', command], check=True, timeout=300)


def compare_tree(top, name='tree'):
    equal(run('rsync', '-aHXnci', '--delete', f'{make_tree()}/', f'{top}/{name}/').stdout, '', 'differences')


def git_work(top):
    """A repository of part of the tree."""
    repository = f'{top}/repository'
    shutil.copytree(f'{make_tree()}/p0', repository, symlinks=True)
    for arguments in (['init', '-q'], ['add', '-A'], ['commit', '-qm', 'all of it']):
        run(*GIT, '-C', repository, *arguments, env=GIT_ENVIRONMENT)
    check_git(top)


def check_git(top):
    run(*GIT, '-C', f'{top}/repository', 'fsck', '--full', '--strict', env=GIT_ENVIRONMENT)
    equal(run(*GIT, '-C', f'{top}/repository', 'status', '--porcelain', env=GIT_ENVIRONMENT).stdout, '', 'git status')


def sqlite_work(top, transactions=30):
    with sqlite3.connect(f'{top}/database', isolation_level=None) as database:
        database.execute('PRAGMA synchronous=FULL')
        database.execute('CREATE TABLE t (id INTEGER PRIMARY KEY, text BLOB)')
        for i in range(transactions):
            database.execute('BEGIN')
            database.executemany('INSERT INTO t (text) VALUES (?)', [(bytes([i]) * (100 * j),) for j in range(10)])
            database.execute('COMMIT')
    database.close()
    check_sqlite(top, transactions)


def check_sqlite(top, transactions=30):
    with sqlite3.connect(f'{top}/database') as database:
        equal(database.execute('PRAGMA integrity_check').fetchone(), ('ok',), 'integrity_check')
        equal(database.execute('SELECT count(*), sum(length(text)) FROM t').fetchone(),
              (10 * transactions, 4500 * transactions), 'rows and bytes')
    database.close()


def direct_work(top):
    """Large transfers past the page cache, with sizes that the device must be sent in several commands."""
    run('dd', f'if={make_tree()}/large', f'of={top}/direct', 'bs=1M', 'count=8', 'oflag=direct')
    run('truncate', '-s', '8M', f'{top}/direct')
    run('dd', f'if={make_tree()}/large', f'of={top}/direct', 'bs=96K', 'count=20', 'skip=3', 'seek=3', 'oflag=direct',
        'conv=notrunc')
    check_direct(top)


def check_direct(top):
    run('cmp', '-n', str(8 << 20), f'{make_tree()}/large', f'{top}/direct')


class Writer(threading.Thread):
    """Files, each durable before the next; stops at the first error, which it keeps."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.count, self.error, self.stopping = folder, 0, None, False
        os.mkdir(folder)

    def run(self):
        try:
            while not self.stopping:
                with open(f'{self.folder}/{self.count}', 'wb', buffering=0) as file:
                    file.write(self.content(self.count))
                    os.fsync(file.fileno())
                self.count += 1
        except Exception as error:
            self.error = error

    @staticmethod
    def content(number):
        return bytes([number % 251]) * (number % 9 * 1000 + 1)

    def judge(self):
        self.stopping = True
        self.join(60)
        equal(self.is_alive(), False, 'the writer is stuck')
        equal(self.error, None, 'the writer saw an error')
        for number in range(self.count):
            with open(f'{self.folder}/{number}', 'rb') as file:
                equal(file.read() == self.content(number), True, f'{self.folder}/{number}')


def hashes(top):
    """What is in there, as one dictionary: path -> hash of the content."""
    found = {}
    for folder, directories, files in os.walk(top):
        directories.sort()
        for name in files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = os.readlink(path) if os.path.islink(path) else sha256(path)
    return found


def fsck_refuses_damage(volume):
    """fsck tells a damaged filesystem from a whole one in this guise too: a check that cannot fail checks nothing."""
    result = run(FSCK, '-n', volume.path, check=False)
    equal(result.returncode in (4, 8), True, f'fsck of a damaged filesystem ends with {result.returncode}')
