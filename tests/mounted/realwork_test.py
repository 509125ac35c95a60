#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Real programs on real input: a tree of 20,000 files and more, rsync, git, a build of lanefs, sqlite, fio. Then unmount,
fsck, mount again, and compare everything a second time.

The tree is /usr/include and /usr/share/doc as far as they go, and generated files for the rest. LANEFS_TREE names
another one.
"""
import os
import random
import shutil
import sqlite3
import subprocess

from lanefs_test import MIB, SOURCE, Image, case, equal, main, need, note, run, work_dir

FILES_WANTED = int(os.environ.get('LANEFS_TREE_FILES', '20000'))
FIO_SIZE = os.environ.get('LANEFS_FIO_SIZE', '64m')
state = {}


def count_files(directory):
    return sum(len(files) for _, _, files in os.walk(directory))


def generate(directory, count):
    """A source tree's shape: many small files, few large ones, links, executables, odd names and times, attributes."""
    randomness = random.Random(42)
    words = [randomness.randbytes(8).hex() for _ in range(200)]
    for i in range(count):
        folder = f'{directory}/p{i % 40:02d}/q{i // 40 % 25:02d}'
        if i < 1000:
            os.makedirs(folder, exist_ok=True)
        path = f'{folder}/{words[i % 200]}-{i:05d}.c'
        size = randomness.choice((0, 30, 200, 900, 2500, 6000, 15000, 40000))
        text = ' '.join(randomness.choice(words) for _ in range(size // 17)).encode()
        with open(path, 'wb') as file:
            file.write(text)
        if i % 50 == 0:
            os.chmod(path, 0o755)
        if i % 97 == 0:
            os.symlink(os.path.basename(path), path + '.link')
        if i % 101 == 0:
            os.link(path, path + '.hard')
        if i % 103 == 0:
            os.setxattr(path, 'user.origin', words[i % 200].encode() * (i % 60 + 1))
        if i % 107 == 0:
            os.utime(path, ns=(10 ** 18 + i, 10 ** 18 + i * 7919))
    os.makedirs(f'{directory}/odd names', exist_ok=True)
    for name in ('with space', 'ümläut', 'new\nline', '-dash', 'x' * 255):
        with open(f'{directory}/odd names/{name}', 'w') as file:
            file.write(name)


def source_tree():
    if 'tree' not in state:
        tree = os.environ.get('LANEFS_TREE')
        if not tree:
            tree = f'{work_dir()}/tree'
            os.mkdir(tree)
            for origin in ('/usr/include', '/usr/share/doc'):
                if os.path.isdir(origin) and count_files(tree) < FILES_WANTED / 2:
                    shutil.copytree(origin, f'{tree}/{os.path.basename(origin)}', symlinks=True,
                                    ignore_dangling_symlinks=True)
            generate(f'{tree}/generated', max(3000, FILES_WANTED - count_files(tree)))
        state['tree'] = tree
        note(f'{count_files(tree)} files, {run("du", "-sh", tree).stdout.split()[0]}')
        equal(count_files(tree) >= FILES_WANTED, True, 'enough files')
    return state['tree']


def mount_point():
    if 'image' not in state:
        state['image'] = Image('work', '4G')
        state['image'].mount(os.environ.get('LANEFS_MOUNT_OPTIONS', ''))
    return state['image'].directory


def differences(tree, copy):
    return run('rsync', '-aHXnci', '--delete', f'{tree}/', f'{copy}/').stdout


@case('unpack a tree of 20,000 files with tar')
def unpack():
    tree, top = source_tree(), mount_point()
    os.mkdir(f'{top}/tree')
    command = f'tar -C {tree} --xattrs -cf - . | tar -C {top}/tree --xattrs --xattrs-include="*" -xpf -'
    subprocess.run(['bash', '-o', 'pipefail', '-c', command], check=True, timeout=900)
    equal(count_files(f'{top}/tree'), count_files(tree))


@case('compare it with the original, byte by byte and attribute by attribute')
def compare():
    need('rsync')
    equal(differences(source_tree(), f'{mount_point()}/tree'), '', 'differences')


@case('the comparison finds one changed byte')
def compare_negative():
    need('rsync')
    tree, top = source_tree(), mount_point()
    victim = next(os.path.join(folder, name) for folder, _, files in os.walk(f'{top}/tree/generated') for name in files
                  if os.path.getsize(os.path.join(folder, name)) > 5000 and
                  not os.path.islink(os.path.join(folder, name)))
    times = os.stat(victim)
    with open(victim, 'r+b') as file:
        file.seek(4000)
        old = file.read(1)
        file.seek(4000)
        file.write(bytes([old[0] ^ 1]))
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    equal(os.path.relpath(victim, f'{top}/tree') in differences(tree, f'{top}/tree'), True, 'the changed file is named')
    with open(victim, 'r+b') as file:
        file.seek(4000)
        file.write(old)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    equal(differences(tree, f'{top}/tree'), '', 'after undoing it')


@case('git: init, add, commit, gc, fsck')
def git():
    need('git')
    repository = f'{mount_point()}/repository'
    shutil.copytree(f'{source_tree()}/generated', repository, symlinks=True)
    environment = dict(os.environ, GIT_CONFIG_GLOBAL='/dev/null', GIT_CONFIG_SYSTEM='/dev/null')
    who = ['-c', 'gc.auto=0', '-c', 'user.name=test', '-c', 'user.email=test@localhost']
    for arguments in (['init', '-q'], ['add', '-A'], ['commit', '-qm', 'all of it'], ['gc', '-q', '--prune=now'],
                      ['fsck', '--full', '--strict']):
        run('git', '-C', repository, *who, *arguments, env=environment)
    equal(run('git', '-C', repository, 'status', '--porcelain', env=environment).stdout, '', 'git status')


@case('build lanefs itself in it')
def build():
    need('meson', 'ninja')
    top = mount_point()
    listed = run('git', '-c', 'safe.directory=*', '-C', SOURCE, 'ls-files', '-co', '--exclude-standard').stdout.split('\n')
    for name in filter(None, listed):
        if os.path.isfile(f'{SOURCE}/{name}'):
            os.makedirs(os.path.dirname(f'{top}/lanefs/{name}'), exist_ok=True)
            shutil.copy2(f'{SOURCE}/{name}', f'{top}/lanefs/{name}')
    run('meson', 'setup', f'{top}/lanefs/build', f'{top}/lanefs')
    run('ninja', '-C', f'{top}/lanefs/build', 'mkfs/mkfs.lanefs', 'fs/daemon/mount.lanefs', timeout=1200)
    equal('mount.lanefs' in run(f'{top}/lanefs/build/fs/daemon/mount.lanefs', '-V').stdout, True, 'it runs')


def sqlite_work(path, mode):
    database = sqlite3.connect(path)
    database.execute(f'PRAGMA journal_mode={mode}')
    database.execute('PRAGMA synchronous=FULL')
    database.execute('CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, body BLOB)')
    database.execute('CREATE INDEX items_name ON items(name)')
    randomness = random.Random(mode)
    for transaction in range(60):
        with database:
            for i in range(50):
                database.execute('INSERT INTO items(name, body) VALUES (?, ?)',
                                 (f'n{randomness.randrange(10 ** 6)}', randomness.randbytes(randomness.randrange(3000))))
            database.execute('DELETE FROM items WHERE id % 7 = ?', (transaction % 7,))
            database.execute('UPDATE items SET name = name || "x" WHERE id % 11 = ?', (transaction % 11,))
    database.execute('VACUUM')
    equal(database.execute('PRAGMA integrity_check').fetchall(), [('ok',)])
    rows = database.execute('SELECT count(*), sum(length(body)) FROM items').fetchone()
    database.close()
    return rows


@case('sqlite with a rollback journal and with a write-ahead log')
def sqlite():
    top = mount_point()
    state['rows'] = {mode: sqlite_work(f'{top}/{mode}.db', mode) for mode in ('DELETE', 'WAL')}


FIO_JOBS = {
    'random cached writes with fsync': ['--ioengine=psync', '--rw=randwrite', '--bs=4k', '--fsync=64'],
    'random direct writes, depth 16': ['--ioengine=libaio', '--rw=randwrite', '--bs=4k', '--direct=1', '--iodepth=16'],
    'mixed sizes, unaligned': ['--ioengine=psync', '--rw=randrw', '--bsrange=512-64k', '--bs_unaligned'],
    'mmap with msync': ['--ioengine=mmap', '--rw=randwrite', '--bs=4k', '--fsync=256'],
    'sequential direct, 1 MiB': ['--ioengine=libaio', '--rw=write', '--bs=1m', '--direct=1', '--iodepth=4'],
    'two jobs, fdatasync': ['--ioengine=psync', '--rw=randwrite', '--bs=16k', '--fdatasync=16', '--numjobs=2'],
}


@case('fio with verification: random I/O, O_DIRECT, mmap, fsync')
def fio():
    need('fio')
    top = mount_point()
    os.mkdir(f'{top}/fio')
    for name, arguments in FIO_JOBS.items():
        job = name.split(',')[0].replace(' ', '-')
        run('fio', f'--name={job}', f'--directory={top}/fio', f'--size={FIO_SIZE}', '--verify=crc32c',
            '--verify_fatal=1', '--do_verify=1', '--verify_dump=0', '--group_reporting', '--minimal', *arguments, cwd='/tmp')


@case('unmount, fsck, mount again, compare again')
def again():
    image = state['image']
    image.umount()
    image.fsck()
    image.mount()
    equal(differences(source_tree(), f'{image.directory}/tree'), '', 'differences after mounting again')
    run('git', '-C', f'{image.directory}/repository', 'fsck', '--full')
    for mode, rows in state['rows'].items():
        database = sqlite3.connect(f'{image.directory}/{mode}.db')
        equal(database.execute('PRAGMA integrity_check').fetchall(), [('ok',)])
        equal(database.execute('SELECT count(*), sum(length(body)) FROM items').fetchone(), rows)
        database.close()
    shutil.rmtree(f'{image.directory}/tree')
    equal(os.path.exists(f'{image.directory}/tree'), False)
    image.umount()
    image.fsck()
    note(f'image: {os.stat(image.path).st_blocks * 512 // MIB} MiB on disk')


if __name__ == '__main__':
    main()
