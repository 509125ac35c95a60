#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The field's own stress programs and users, from Debian's packages: stress-ng, dbench, fs_mark, bonnie++, PostgreSQL with
pgbench, rsync, tar, git. What passes on ext4 has to pass here.

Short by default. LANEFS_SUITES_SECONDS=N gives each stressor and benchmark N seconds (1 if not said); with
LANEFS_SUITES_ALL=1 every stressor of the classes filesystem and io is run, on ext4 as well, and the lists are compared.
The device is an emulated drive with a volatile cache: killing the daemon is a power cut.
"""
import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess
import time

os.environ.setdefault('LANEFS_TEST_DRIVE', 'cache=64M')

from lanefs_test import Image, Skip, alive, case, equal, main, need, note, run, wait_for, work_dir  # noqa: E402

SECONDS = int(os.environ.get('LANEFS_SUITES_SECONDS', '1'))
ALL = os.environ.get('LANEFS_SUITES_ALL') == '1'
# In a short run: those that have most to do with a filesystem.
STRESSORS = '''access chattr chmod chown copy-file dentry dir dirdeep dirmany fallocate filename fpunch getdent handle hdd
    iomix link lockf open rename symlink sync-file touch utime xattr aiol revio seek'''.split()
IMPOSSIBLE = {'rawdev': 'reads the block device under the mount, and FUSE has none'}
state = {}


def image():
    if 'image' not in state:
        state['image'] = Image('suites', '3G')
        state['image'].mount(os.environ.get('LANEFS_MOUNT_OPTIONS', ''))
    return state['image']


def folder(name):
    path = f'{image().directory}/{name}'
    os.mkdir(path)
    os.chmod(path, 0o1777)
    return path


@contextlib.contextmanager
def ext4():
    """A directory on ext4, on a loop device."""
    path, directory = f'{work_dir()}/ext4.img', f'{work_dir()}/ext4'
    os.makedirs(directory, exist_ok=True)
    run('truncate', '-s', '3G', path)
    run('mkfs.ext4', '-q', '-F', path)
    run('mount', '-o', 'loop', path, directory)
    try:
        yield directory
    finally:
        run('umount', directory)
        os.unlink(path)


# ---- stress-ng ------------------------------------------------------------------------------------------------------
def stress(name, directory):
    """Exit status and output of one stressor with checks of its own."""
    command = ['stress-ng', f'--{name}', '2', '-t', f'{SECONDS}s', '--verify', '--oomable', '--temp-path', directory]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)
    try:
        output = process.communicate(timeout=SECONDS + 120)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return 'no end', process.communicate()[0]
    return process.returncode, output


def stressors():
    found = []
    for name in ('filesystem', 'io'):
        listed = run('stress-ng', '--class', f'{name}?', check=False)
        found += (listed.stdout + listed.stderr).split(':', 1)[1].split()
    return list(dict.fromkeys(found))


@case('stress-ng: every stressor that passes on ext4 passes here')
def stress_ng():
    need('stress-ng', 'mkfs.ext4')
    here = folder('stress')
    known = stressors()
    wanted = known if ALL else [name for name in STRESSORS if name in known]
    results = {name: stress(name, here) for name in wanted}
    failed = [name for name in wanted if results[name][0] != 0]
    worse, skipped = [], []
    with ext4() as there:
        for name in wanted if ALL else failed:
            status, output = stress(name, there)
            if status == 0 and results[name][0] != 0 and name not in IMPOSSIBLE:
                worse.append(name)
                note(f'{name}: {results[name][0]}, on ext4 {status}\n{results[name][1]}')
            if 'skipping' in results[name][1] and 'skipping' not in output:
                skipped.append(name)
    note(f'{len(wanted) - len(failed)} of {len(wanted)} pass; on neither: {[n for n in failed if n not in IMPOSSIBLE]}, '
         f'impossible: {[n for n in failed if n in IMPOSSIBLE]}, skipped here alone: {skipped}')
    equal(worse, [], 'stressors that pass on ext4 only')
    run('chattr', '-R', '-f', '-ia', here, check=False)  # a stressor of flags that is killed at its end leaves some
    shutil.rmtree(here)


# ---- benchmarks that check what they read ---------------------------------------------------------------------------
@case('dbench')
def dbench():
    need('dbench')
    here = folder('dbench')
    output = run('dbench', '-D', here, '-t', SECONDS * 2, '2', timeout=SECONDS * 2 + 120).stdout
    equal('ERROR' in output or 'Throughput' not in output, False, output[-500:])
    note(re.search(r'Throughput.*', output)[0])


@case('fs_mark')
def fs_mark():
    need('fs_mark')
    here = folder('fsmark')
    # A folder for each of the two, by a short path, which is all that it takes: its processes now and then draw the same
    # names, and then one removes what the other has open, on any filesystem.
    for name in 'ab':
        os.mkdir(f'{here}/{name}')
    for method in range(1, 7):  # fsync in six orders
        run('fs_mark', '-d', 'a', '-d', 'b', '-n', 50 * SECONDS, '-s', 20000, '-t', 2, '-S', method,
            '-l', f'{work_dir()}/fs_log.txt', cwd=here)
    for name in 'ab':
        equal(os.listdir(f'{here}/{name}'), [], 'left by fs_mark')


@case('bonnie++')
def bonnie():
    need('bonnie++')
    here = folder('bonnie')
    output = run('bonnie++', '-u', 'root', '-d', here, '-f', '-s', 32 * SECONDS, '-r', 16 * SECONDS, '-n', '1:30000:10:4', '-q',
                 timeout=SECONDS * 60 + 300).stdout
    equal(output.count(',') > 20, True, output)


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------
class Postgres:
    """A cluster in a folder, by initdb alone; run as the user nobody."""

    def __init__(self, data):
        versions = sorted(glob.glob('/usr/lib/postgresql/*/bin'))
        if not versions:
            raise Skip('no PostgreSQL here')
        self.bin, self.data, self.process = versions[-1], data, None
        self.user = {'user': 'nobody', 'group': 'nogroup', 'extra_groups': [], 'cwd': '/'}
        self.sockets = f'{work_dir()}/postgres'
        os.makedirs(self.sockets, exist_ok=True)
        for path in (data, self.sockets):
            shutil.chown(path, 'nobody', 'nogroup')
            os.chmod(path, 0o700)

    def run(self, program, *arguments, **keywords):
        return run(f'{self.bin}/{program}', *arguments, **self.user, env={'LC_ALL': 'C', 'PGHOST': self.sockets}, **keywords)

    def ask(self, query):
        return self.run('psql', '-tA', '-d', 'postgres', '-c', query).stdout.strip()

    def start(self):
        with open(f'{work_dir()}/postgres.log', 'a') as log:
            self.process = subprocess.Popen(
                [f'{self.bin}/postgres', '-D', self.data, '-k', self.sockets, '-c', 'listen_addresses=',
                 '-c', 'dynamic_shared_memory_type=mmap'], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, env={'LC_ALL': 'C'}, **self.user)
        wait_for(lambda: self.process.poll() is None and self.run('pg_isready', '-q', check=False).returncode == 0,
                 'ready: PostgreSQL', 60)

    def kill(self):
        """No goodbye: kill -9. Its children notice, and end."""
        children = run('ps', '-o', 'pid=', '--ppid', self.process.pid, check=False).stdout.split()
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not any(alive(int(pid)) for pid in children), 'ended: the children of PostgreSQL', 30)

    def bench(self, seconds):
        output = self.run('pgbench', '-n', '-c', '4', '-T', seconds, 'postgres').stdout
        return int(re.search(r'transactions actually processed: (\d+)', output)[1])

    def check(self, committed):
        """What was acknowledged is there, and every balance is the sum of its changes."""
        count = int(self.ask('select count(*) from pgbench_history'))
        equal(count >= committed, True, f'{count} transactions are there, {committed} were acknowledged')
        sums = [self.ask(f'select coalesce(sum({column}), 0) from pgbench_{table}') for column, table in (
            ('delta', 'history'), ('abalance', 'accounts'), ('tbalance', 'tellers'), ('bbalance', 'branches'))]
        equal(len(set(sums)), 1, f'sums of the changes and of the balances: {sums}')


def power_cut(disk, server):
    disk.kill()
    server.kill()
    disk.fsck()
    disk.mount()
    server.start()


@case('PostgreSQL: pgbench, kill -9 of the server, power cuts, recovery')
def postgres():
    disk = Image('postgres', '2G')
    directory = f'{disk.mount()}/data'
    os.mkdir(directory)
    server = Postgres(directory)
    server.run('initdb', '-D', directory, '-A', 'trust', '-U', 'nobody')
    try:
        server.start()
        server.run('pgbench', '-i', '-q', '-s', '1', 'postgres')
        committed = server.bench(SECONDS * 2)
        server.kill()
        server.start()
        server.check(committed)
        committed += server.bench(SECONDS * 2)
        power_cut(disk, server)
        server.check(committed)
        more = subprocess.Popen([f'{server.bin}/pgbench', '-n', '-c', '4', '-T', '30', 'postgres'], **server.user,
                                env={'PGHOST': server.sockets}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        power_cut(disk, server)
        more.wait()
        server.check(committed)
        note(f'{committed} transactions acknowledged, {server.ask("select count(*) from pgbench_history")} there')
    finally:
        if server.process and server.process.poll() is None:
            server.kill()
    disk.umount()
    disk.fsck()
    disk.remove()


# ---- copies of a tree -----------------------------------------------------------------------------------------------
def tree_with_everything():
    """A few hundred files of /usr/share/doc, and of each kind of thing that a copy can lose."""
    tree = f'{work_dir()}/tree'
    os.mkdir(tree)
    for name in sorted(os.listdir('/usr/share/doc'))[:80]:
        if os.path.isdir(f'/usr/share/doc/{name}'):
            shutil.copytree(f'/usr/share/doc/{name}', f'{tree}/{name}', symlinks=True)
    files = [os.path.join(path, name) for path, _, names in os.walk(tree) for name in sorted(names)]
    files = [path for path in files if not os.path.islink(path)]
    for i, path in enumerate(files):
        if i % 3 == 0:
            run('setfacl', '-m', f'u:{1000 + i}:r,g:{2000 + i}:rw,m::rwx', path)
        if i % 4 == 0:
            os.setxattr(path, 'user.origin', path.encode() * (i % 7 + 1))
            os.setxattr(path, 'trusted.number', bytes([i % 256]) * (i % 900))
        if i % 5 == 0:
            os.link(path, f'{path}.link')
    os.makedirs(f'{tree}/defaults/below')
    run('setfacl', '-m', 'd:u:1234:rwx,d:g:77:r-x', f'{tree}/defaults', f'{tree}/defaults/below')
    os.mkfifo(f'{tree}/fifo')
    os.mknod(f'{tree}/null', 0o20666, os.makedev(1, 3))
    os.symlink('x' * 3000, f'{tree}/long-target')
    with open(f'{tree}/sparse', 'wb') as file:
        file.truncate(10 << 20)
        os.pwrite(file.fileno(), b'data', 5 << 20)
    os.chmod(f'{tree}/sparse', 0o6755)
    return tree


def same(tree, copy):
    equal(run('rsync', '-aHAXnci', '--delete', f'{tree}/', f'{copy}/').stdout, '', f'differences of {os.path.basename(copy)}')


@case('rsync -aHAX and tar of a tree with ACLs and attributes; git clone; again after fsck and another mount')
def copies():
    need('rsync', 'tar', 'git', 'setfacl')
    tree, here = tree_with_everything(), folder('copies')
    run('rsync', '-aHAX', f'{tree}/', f'{here}/rsync/')
    same(tree, f'{here}/rsync')
    run('tar', '--acls', '--xattrs', '--xattrs-include=*', '-cpf', f'{here}/tree.tar', '-C', tree, '.')
    os.mkdir(f'{here}/tar')
    run('tar', '--acls', '--xattrs', '--xattrs-include=*', '-xpf', f'{here}/tree.tar', '-C', f'{here}/tar')
    same(tree, f'{here}/tar')
    victim = next(entry.path for entry in os.scandir(f'{here}/tar') if entry.name == 'sparse')
    run('setfacl', '-m', 'u:4321:r', victim)
    equal('sparse' in run('rsync', '-aHAXnci', '--delete', f'{tree}/', f'{here}/tar/').stdout, True, 'one ACL more is seen')
    git = ['git', '-c', 'user.name=x', '-c', 'user.email=x@x', '-c', 'safe.directory=*']
    run(*git, 'init', '-q', f'{here}/origin')
    run('rsync', '-a', '--exclude=/null', '--exclude=/fifo', f'{tree}/', f'{here}/origin/tree/')
    run(*git, '-C', f'{here}/origin', 'add', '-A')
    run(*git, '-C', f'{here}/origin', 'commit', '-qm', 'all of it')
    run(*git, 'clone', '-q', '--no-hardlinks', f'{here}/origin', f'{here}/clone')
    for _ in range(2):
        run(*git, '-C', f'{here}/clone', 'fsck', '--full', '--strict')
        equal(run(*git, '-C', f'{here}/clone', 'status', '--porcelain').stdout, '', 'git status')
        same(tree, f'{here}/rsync')
        image().umount()
        image().fsck()
        image().mount()


main()
