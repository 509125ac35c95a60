#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""POSIX ACLs, umask and setgid directories on a real mount.

The cases of acl_cases.py tell what they see line by line, on lanefs and on ext4 in a loop image; the two stories must be
the same. Then what concerns lanefs alone: programs that copy ACLs, limits, a full filesystem, and that everything is
still there after unmounting, fsck and mounting again.
"""
import errno
import os
import struct
import subprocess

import lanefs_test
from acl_cases import (ACCESS, ALICE, CASES, DEFAULT, acl_bytes, getfacl, looks, make_file, setfacl, umask)
from lanefs_test import Image, Skip, add_case, case, equal, fails, main, need, note, run, work_dir

images = {}


# ---- two filesystems, one story ---------------------------------------------------------------------------------------
class Ext4:
    """An ext4 in a loop image, removed like any Image."""

    def __init__(self):
        need('mkfs.ext4', 'setfacl', 'getfacl')
        self.directory = f'{work_dir()}/ext4'
        self.path = f'{work_dir()}/ext4.img'
        self.log = f'{work_dir()}/ext4.log'  # it has none
        run('truncate', '-s', '256M', self.path)
        run('mkfs.ext4', '-q', '-F', '-b', '4096', self.path)
        os.mkdir(self.directory)
        lanefs_test._images.append(self)
        mounted = run('mount', '-o', 'loop,acl', self.path, self.directory, check=False)
        if mounted.returncode:
            raise Skip(f'no ext4 in a loop device here: {mounted.stderr.strip()}')

    def remove(self):
        if os.path.ismount(self.directory):
            run('umount', self.directory)
        os.unlink(self.path)


def start(name, options):
    need('setfacl', 'getfacl')
    images[name] = Image(name)
    images[name].mount(options)


def ext4():
    if 'ext4' not in images:
        images['ext4'] = None  # tried
        images['ext4'] = Ext4()
    if images['ext4'] is None:
        raise Skip('no ext4 here')
    return images['ext4']


def story(directory, function):
    lines = []
    os.mkdir(directory)
    with umask(0o022):
        function(directory, lines.append)
    return lines


stories = {}


def compare(name, function):
    mine = story(f'{images[name].directory}/{function.__name__}', function)
    if function not in stories:
        stories[function] = story(f'{ext4().directory}/{function.__name__}', function)
    theirs = stories[function]
    different = [(ours, other) for ours, other in zip(mine, theirs) if ours != other]
    for ours, other in different[:5]:
        note(f'lanefs: {ours}')
        note(f'ext4:   {other}')
    equal(len(different), 0, f'lines of {len(theirs)} that differ')
    equal(len(mine), len(theirs), 'lines')
    note(f'{len(mine)} lines agree')


def fingerprint(directory):
    return {path: looks(path) for folder, directories, files in os.walk(directory)
            for path in (os.path.join(folder, name) for name in directories + files)}


def comes_back(name, options):
    image = images[name]
    before = fingerprint(image.directory)
    image.umount()
    image.fsck()
    image.mount(options)
    equal(fingerprint(image.directory), before, 'after unmounting and mounting')
    note(f'{len(before)} files and directories')


for _name, _options in (('plain', ''), ('reactors', 'reactors=2'), ('writeback', 'writeback,noopen')):
    add_case(f'{_name}: mount', lambda name=_name, options=_options: start(name, options))
    for _function in CASES:
        add_case(f'{_name}: {_function.__name__.replace("_", " ")}, as on ext4',
                 lambda name=_name, function=_function: compare(name, function))
    add_case(f'{_name}: all is there after another mount', lambda name=_name, options=_options: comes_back(name, options))


# ---- lanefs alone -----------------------------------------------------------------------------------------------------
@case('the kernel was told to enforce ACLs')
def negotiated():
    features = run_status_text()
    for feature in ('posix_acl', 'dont_mask', 'setxattr_ext'):
        equal(feature in features, True, feature)


def run_status_text():
    return str(images['plain'].status())


def acl_tree(top):
    os.makedirs(f'{top}/from/sub')
    setfacl('-d', '--set', f'u::rwx,u:{ALICE}:rwx,g::rx,m::rwx,o::-', f'{top}/from/sub')
    setfacl('-m', f'u:{ALICE}:rx', f'{top}/from')
    os.mkdir(f'{top}/from/sub/inherits')
    make_file(f'{top}/from/sub/file')
    make_file(f'{top}/from/plain')
    os.setxattr(f'{top}/from/plain', 'user.other', b'stays')
    os.symlink('plain', f'{top}/from/link')


@case('cp -a and rsync -aAX keep ACLs')
def copies():
    need('rsync')
    top = f'{images["plain"].directory}/copies'
    acl_tree(top)
    wanted = {os.path.relpath(path, f'{top}/from'): text for path, text in fingerprint(f'{top}/from').items()}
    run('cp', '-a', f'{top}/from', f'{top}/cp')
    run('rsync', '-aAX', f'{top}/from/', f'{top}/rsync')
    run('setfacl', '-d', '-m', f'u:{ALICE}:rwx', top)  # into a directory that hands down something else
    run('cp', '-a', f'{top}/from', f'{top}/cp2')
    run('rsync', '-aAX', f'{top}/from/', f'{top}/rsync2')
    for name in ('cp', 'rsync', 'cp2', 'rsync2'):
        got = {os.path.relpath(path, f'{top}/{name}'): text for path, text in fingerprint(f'{top}/{name}').items()}
        equal(got, wanted, name)
        equal(os.getxattr(f'{top}/{name}/plain', 'user.other'), b'stays')
        equal(getfacl(f'{top}/{name}'), getfacl(f'{top}/from'), f'{name} itself')
    equal(run('rsync', '-naAXi', '--delete', f'{top}/from/', f'{top}/rsync').stdout, '', 'left for rsync to do')


def many(count):
    return acl_bytes((1, 7), *((2, 7, 80000 + i) for i in range(count - 4)), (4, 5), (16, 7), (32, 0))


@case('as many entries as the kernel carries, and one more')
def large():
    top = f'{images["plain"].directory}/large'
    os.mkdir(top)
    make_file(f'{top}/f')
    for count in (100, 126, 127, 128, 300, 503, 504, 505, 511, 200, 511, 5):
        os.setxattr(f'{top}/f', ACCESS, many(count))
        os.setxattr(top, DEFAULT, many(count))
        equal(os.getxattr(f'{top}/f', ACCESS), many(count), count)
        os.chmod(f'{top}/f', 0o741)
        equal(struct.unpack_from('<HH', os.getxattr(f'{top}/f', ACCESS), 4 + 8 * (count - 2)), (16, 4), 'mask')
        os.mkdir(f'{top}/d', 0o700)
        make_file(f'{top}/new', 0o600)
        equal(os.getxattr(f'{top}/d', DEFAULT), many(count), 'handed down')
        equal(len(os.getxattr(f'{top}/d', ACCESS)), len(many(count)))
        equal(len(os.getxattr(f'{top}/new', ACCESS)), len(many(count)))
        os.rmdir(f'{top}/d')
        os.unlink(f'{top}/new')
    os.setxattr(f'{top}/f', ACCESS, many(511))
    fails(errno.E2BIG, os.setxattr, f'{top}/f', ACCESS, many(512))
    fails(errno.E2BIG, os.setxattr, top, DEFAULT, many(512))
    equal(os.getxattr(f'{top}/f', ACCESS), many(511))


@case('a full filesystem refuses what does not fit, whole')
def full():
    image = Image('full', size='128M')
    top = image.mount()
    os.mkdir(f'{top}/d')
    make_file(f'{top}/acl')
    os.setxattr(f'{top}/acl', ACCESS, many(400))
    os.setxattr(f'{top}/d', DEFAULT, many(511))
    with open(f'{top}/big', 'wb') as file:
        try:
            while True:
                file.write(b'x' * (1 << 20))
                file.flush()
        except OSError as error:
            equal(error.errno, errno.ENOSPC)
    os.truncate(f'{top}/big', os.stat(f'{top}/big').st_size - (1 << 20))
    made = 0
    try:
        for made in range(100000):
            os.mkdir(f'{top}/d/{made}')
    except OSError as error:
        equal(error.errno, errno.ENOSPC)
    note(f'{made} directories fitted')
    equal(10 < made < 200, True, 'each takes five blocks and more')
    for name in os.listdir(f'{top}/d'):
        equal(os.getxattr(f'{top}/d/{name}', DEFAULT), many(511), 'all or nothing')
    os.chmod(f'{top}/acl', 0o700)  # rights can be taken away all the same
    equal(os.stat(f'{top}/acl').st_mode & 0o777, 0o700)
    equal(struct.unpack_from('<HH', os.getxattr(f'{top}/acl', ACCESS), 4 + 8 * 398), (16, 0), 'mask')
    image.umount()
    image.fsck()


if __name__ == '__main__':
    main()
