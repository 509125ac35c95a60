#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Each mount option by what it does on a mount, and without it the opposite: durability by power cuts of an emulated drive,
times and flags by behaviour, requests by their number. What mount(8) and fstab pass along for others does no harm; and the
table in mount.lanefs(8) names every option, and says the truth about remounting.

Where else options are tested: access times, cache, lcores, poll, max_background: lifecycle; which ones a remount changes:
remount; discard: space; io_uring: basic-uring; on_removal, hotplug, auto_bind: removal, comeback."""
import errno
import os
import re
import shutil
import stat
import time

from lanefs_test import (BUILD, MOUNT, SOURCE, UMOUNT, Image, case, equal, fails, in_namespace, main, need, note, run,
                         wait_for, work_dir)


def drive_image(name):
    """On a drive with a cache, kill -9 is a power cut: what was not flushed is gone."""
    image = Image(name, '96M')
    image.target = f'emu:{image.path},cache=32M,cut=all'
    return image


def write(path, text='x'):
    with open(path, 'w') as file:
        file.write(text)


# ---- durability --------------------------------------------------------------------------------------------------------
def survives(name, options, action, wait=0.0):
    """Whether what @action made is there after a power cut."""
    image = drive_image(name)
    image.mount(options, foreground=False)
    action(image.directory)
    time.sleep(wait)
    image.kill()
    image.mount(foreground=False)
    found = sorted(os.listdir(image.directory))
    whole = all(os.path.getsize(f'{image.directory}/{file}') == 5000 for file in found if file.startswith('f'))
    image.umount()
    image.fsck()
    return found, whole


def make(directory):
    for i in range(3):
        write(f'{directory}/f{i}', 'x' * 5000)
    os.mkdir(f'{directory}/d')


@case('sync, and dirsync as well: what was written survives a power cut without an fsync; otherwise it does not')
def sync():
    everything = (['d', 'f0', 'f1', 'f2'], True)
    equal(survives('nosync', 'commit=300', make), ([], True), 'without sync')
    equal(survives('sync', 'commit=300,sync', make), everything, 'sync')
    equal(survives('dirsync', 'commit=300,dirsync', make), everything, 'dirsync')
    equal(survives('async', 'sync,async,commit=300', make), ([], True), 'the last one counts')


@case('commit=1: what nobody syncs is durable after about a second; commit=300: not yet')
def commit():
    equal(survives('commit1', 'commit=1', make, 2.5)[0], ['d', 'f0', 'f1', 'f2'], 'commit=1')
    equal(survives('commit300', 'commit=300', make, 2.5)[0], [], 'commit=300')


# ---- requests ----------------------------------------------------------------------------------------------------------
def requests(name, options, action):
    image = Image(name, '96M')
    image.mount(options, foreground=False)
    write(f'{image.directory}/f')
    before = image.stats()['fuse']
    action(image.directory)
    after = image.stats()['fuse']
    features = image.status()['fuse']['features']
    image.umount()
    image.fsck()
    return {key: value['count'] - before.get(key, {'count': 0})['count'] for key, value in after.items()}, features


@case('noopen: OPEN does not come for each open')
def noopen():
    def action(directory):
        for _ in range(50):
            with open(f'{directory}/f') as file:
                file.read(1)
        write(f'{directory}/f', 'longer than before')
        write(f'{directory}/f', 'cut')  # O_TRUNC must not get lost
        equal(os.path.getsize(f'{directory}/f'), 3)
    counts, features = requests('open', '', action)
    equal((counts['OPEN'] >= 50, 'no_open' in features), (True, False), counts)
    counts, features = requests('noopen', 'noopen', action)
    equal((counts.get('OPEN', 0) <= 1, 'no_open' in features), (True, True), counts)


@case('writeback: small writes reach the daemon together; they are there after an fsync and after umount')
def writeback():
    def action(directory):
        with open(f'{directory}/w', 'wb', buffering=0) as file:
            for i in range(500):
                file.write(b'%03d\n' % i)
            os.fsync(file.fileno())
    counts, features = requests('through', '', action)
    equal((counts['WRITE'], 'writeback_cache' in features), (500, False), counts)
    counts, features = requests('back', 'writeback', action)
    equal((counts['WRITE'] <= 10, 'writeback_cache' in features), (True, True), counts)
    image = Image('back2', '96M')
    image.mount('writeback', foreground=False)
    action(image.directory)
    image.umount()
    image.mount(foreground=False)
    with open(f'{image.directory}/w') as file:
        equal(file.read(), ''.join(f'{i:03}\n' for i in range(500)))
    image.umount()


@case('reactors=2 and config=FILE; the command line wins over the file')
def reactors():
    image = Image('reactors', '96M')
    with open(f'{work_dir()}/config.json', 'w') as file:
        file.write('{"reactors": 2, "noatime": true, "cache": "4M", "commit": 7}')
    image.mount('reactors=2', foreground=False)
    equal(len(image.status()['reactors']), 2)
    image.umount()
    image.mount(f'config={work_dir()}/config.json', foreground=False)
    equal((len(image.status()['reactors']), image.status()['cache']['limit_bytes'], 'noatime' in flags(image)),
          (2, 4 << 20, True))
    image.umount()
    image.mount(f'config={work_dir()}/config.json,reactors=1,relatime', foreground=False)
    equal((len(image.status()['reactors']), image.status()['cache']['limit_bytes'], 'noatime' in flags(image)),
          (1, 4 << 20, False))
    image.umount()


# ---- what the kernel does ----------------------------------------------------------------------------------------------
def flags(image):
    with open('/proc/self/mountinfo') as file:
        return next(line.split()[5].split(',') for line in file if line.split()[4] == image.directory)


def as_nobody(*command):
    return run('setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', *command, check=False)


@case('suid, dev, exec and symbolic links work, and do not with nosuid, nodev, noexec, nosymfollow')
def kernel():
    need('setpriv')
    image = Image('kernel', '96M')
    image.mount(foreground=False)
    directory = image.directory
    shutil.copy2('/usr/bin/id', directory)
    os.chmod(f'{directory}/id', 0o4755)
    os.mknod(f'{directory}/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.symlink('id', f'{directory}/link')
    equal('euid=0' in as_nobody(f'{directory}/id').stdout, True, 'suid')
    write(f'{directory}/null')
    os.stat(f'{directory}/link')
    image.umount()
    image.mount('nosuid,nodev,nosymfollow', foreground=False)
    result = as_nobody(f'{directory}/id')
    equal((result.returncode, 'euid=0' in result.stdout), (0, False), 'nosuid')
    fails(errno.EACCES, open, f'{directory}/null', 'w')
    fails(errno.ELOOP, os.stat, f'{directory}/link')
    equal(os.readlink(f'{directory}/link'), 'id')
    image.umount()
    image.mount('noexec,strictatime', foreground=False)
    equal(as_nobody('sh', '-c', f'{directory}/id').returncode, 126, 'noexec')
    write(f'{directory}/null')
    equal({'relatime', 'noatime'} & set(flags(image)), set(), 'strictatime is shown by what is missing')
    image.umount()
    image.mount('exec,suid,dev,symfollow,nodiratime', foreground=False)
    equal('euid=0' in as_nobody(f'{directory}/id').stdout, True, 'suid')
    equal('nodiratime' in flags(image), True, 'nodiratime')
    image.umount()


@case("root's mount is open to others, as far as permissions go")
def others():
    need('setpriv')
    image = Image('others', '96M')
    image.mount(foreground=False)
    os.chmod(image.directory, 0o755)
    write(f'{image.directory}/open', 'text')
    write(f'{image.directory}/closed', 'secret')
    os.chmod(f'{image.directory}/closed', 0o600)
    equal(as_nobody('cat', f'{image.directory}/open').stdout, 'text')
    equal(as_nobody('cat', f'{image.directory}/closed').returncode, 1, 'default_permissions')
    equal(as_nobody('touch', f'{image.directory}/new').returncode, 1, 'default_permissions')
    image.umount()


# ---- what is for others ------------------------------------------------------------------------------------------------
GENERIC = ['defaults', 'auto', 'noauto', 'nofail', '_netdev', 'user', 'users', 'owner', 'group', 'nouser', 'lazytime',
           'nolazytime', 'dirsync', 'iversion', 'noiversion', 'mand', 'nomand', 'silent', 'loud', 'norelatime',
           'nostrictatime', 'diratime', 'atime', 'acl', 'user_xattr', 'comment=a thing', 'x-systemd.automount',
           'x-systemd.device-timeout=10', 'x-gvfs-show', 'X-mount.mkdir', 'user_id=0,group_id=0,rootmode=40000',
           'noatime,nodiratime', 'sync,dirsync,async']


@case('nothing of a normal fstab makes a mount fail, directly or through mount(8)')
def generic():
    image = Image('generic', '96M')
    for options in (','.join(GENERIC), ','.join(reversed(GENERIC))):
        run(MOUNT, image.target, image.directory, '-o', options)
        equal(image.status()['state'], 'mounted', options)
        run(UMOUNT, image.directory)
    # mount(8) takes some for itself, and gives the helper others in their place.
    lines = ['defaults', 'user,auto', 'users,nofail,_netdev', 'owner,group,x-systemd.automount,comment=thing',
             'lazytime,dirsync,iversion,silent,norelatime', 'nouser,atime,diratime,nostrictatime,acl,loud']
    for i, line in enumerate(lines):
        write(f'{work_dir()}/generic-{i}', f'{image.target} {image.directory} lanefs {line} 0 {i % 3}\n')
    script = 'for i in $(seq 0 $3); do mount -a -T "$4"/generic-$i; findmnt "$2" >/dev/null; umount "$2"; done; ' \
             'mount -t lanefs -o user "$1" "$2"; findmnt -n -o OPTIONS "$2"; umount "$2"'
    output = in_namespace(script, image.target, image.directory, str(len(lines) - 1), work_dir())
    equal({'nosuid', 'nodev', 'noexec'} <= set(output.strip().split(',')), True, f'user implies: {output}')
    result = run(MOUNT, image.target, image.directory, '-o', 'sunc', check=False)
    equal((result.returncode, result.stderr.count('\n'), "'sunc'" in result.stderr), (1, 1, True), result.stderr)
    run(MOUNT, image.target, image.directory, '-s', '-o', 'sunc')
    run(UMOUNT, image.directory)
    image.fsck()


# ---- the manual --------------------------------------------------------------------------------------------------------
@case('mount.lanefs(8) names every option and says which of them a remount changes')
def manual():
    with open(f'{SOURCE}/fs/daemon/options.c') as file:
        rows = re.findall(r'\{"(\w+)", OPTION_(\w+)(.*)\},', file.read())
    with open(f'{SOURCE}/doc/man/mount.lanefs.8') as file:
        page = file.read()
    table = {}
    for names, remount in re.findall(r'T\{\n\.nh\n(.*)\nT\}\|T\{\n.*\nT\}\|(.*)\|T\{', page):
        for name in names.split(', '):
            table[name.split('=')[0]] = remount
    equal(len(rows) > 40 and len(table) > 25, True, f'{len(rows)} rows, {len(table)} in the table')
    for name, kind, rest in rows:
        if kind in ('IGNORE', 'KEEP') or name in ('remount', 'relatime', 'nostrictatime', 'atime', 'dirsync'):
            continue
        equal(name in table, True, f'{name} in the table')
        if name != 'config':
            equal(table[name] == 'yes', 'LIVE' in rest, f'remount column of {name}')
    image = Image('manual', '96M')
    values = {'commit': '5', 'cache': '8M', 'max_background': '9', 'reactors': '1', 'lcores': '0@0', 'on_removal': 'unmount'}
    run(MOUNT, image.target, image.directory, '-o', ','.join(
        name + (f'={values[name]}' if name in values else '') for name in table
        if name not in ('config', 'hugepages', 'io_uring')))
    run(UMOUNT, image.directory)
    note(f'{len(table)} options mounted with')


if __name__ == '__main__':
    main()
