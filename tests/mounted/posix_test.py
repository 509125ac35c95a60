#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""posix_check on real mounts: as root and as an ordinary user, on one and two reactors, and with the options that change
what the kernel does by itself. On ext4 first, where there is one: every case has to hold there, or it claims too much.

posix_check tells of single cases; here one case is one run of it. What it calls "not ok" is shown. More combinations are
tried when LANEFS_TEST_LONG is set.
"""
import os
import re
import subprocess

import lanefs_test
from lanefs_test import BUILD, Image, Skip, add_case, equal, main, need, note, run, work_dir

CHECK = f'{BUILD}/tests/mounted/posix/posix_check'
USER = '31001:31001'  # ALICE of posix_help.c
images = {}


class Ext4:
    """An ext4 in a loop image with a second mount of it, read-only; removed like any Image."""

    def __init__(self):
        need('mkfs.ext4')
        self.directory, self.read_only = f'{work_dir()}/ext4', f'{work_dir()}/ext4-ro'
        self.path, self.log = f'{work_dir()}/ext4.img', f'{work_dir()}/ext4.log'  # it has no log
        run('truncate', '-s', '512M', self.path)
        run('mkfs.ext4', '-q', '-F', '-b', '4096', self.path)
        for directory in (self.directory, self.read_only):
            os.mkdir(directory)
        lanefs_test._images.append(self)
        mounted = run('mount', '-o', 'loop', self.path, self.directory, check=False)
        if mounted.returncode:
            raise Skip(f'no ext4 in a loop device here: {mounted.stderr.strip()}')
        fill_read_only(self.directory)
        run('mount', '--bind', self.directory, self.read_only)
        run('mount', '-o', 'remount,bind,ro', self.read_only)

    def remove(self):
        for directory in (self.read_only, self.directory):
            if os.path.ismount(directory):
                run('umount', directory)
        os.unlink(self.path)


def fill_read_only(directory):
    """What the cases about EROFS expect to find."""
    os.makedirs(f'{directory}/ro/dir/inside')
    for name in ('ro', 'ro/dir'):
        os.chmod(f'{directory}/{name}', 0o777)
    for name in ('file', 'other'):
        with open(f'{directory}/ro/{name}', 'w') as file:
            file.write('content')
        os.chmod(f'{directory}/ro/{name}', 0o666)
    os.chmod(f'{directory}/ro/other', 0o4755)
    os.symlink('file', f'{directory}/ro/link')
    os.mkfifo(f'{directory}/ro/fifo')
    os.setxattr(f'{directory}/ro/file', 'user.there', b'value')


def check(directory, *arguments):
    if not os.access(CHECK, os.X_OK):
        raise Skip('posix_check is not built')
    result = subprocess.run([CHECK, directory, *arguments], capture_output=True, text=True, errors='replace', timeout=900)
    count = re.match(r'1\.\.(\d+)$', result.stdout.split('\n', 1)[0])
    lines = result.stdout.split('\n')
    ended = [line for line in lines if re.match(r'(not )?ok ', line)]
    expected = [line for line in ended if '# TODO' in line]
    for index, line in enumerate(lines):
        if line.startswith('not ok') and '# TODO' not in line or line.startswith('ok') and '# TODO' in line:
            first = index
            while first and lines[first - 1].startswith('#'):
                first -= 1
            note('\n'.join(lines[first:index + 1]))
    equal(bool(count) and len(ended) == int(count.group(1)), True, f'all cases ended: {lines[:1]} {result.stderr}')
    skipped = sum('# SKIP' in line for line in ended)
    note(f'{len(ended)} cases, {len(expected)} known differences, {skipped} skipped')
    equal(result.returncode, 0, 'exit status')


def on_ext4(*arguments):
    if 'ext4' not in images:
        images['ext4'] = None  # tried
        images['ext4'] = Ext4()
    if images['ext4'] is None:
        raise Skip('no ext4 here')
    check(images['ext4'].directory, images['ext4'].read_only, *arguments)


def on_lanefs(name, options, target, *arguments):
    if name not in images:
        images[name] = Image(name, size='1G')
        if target:
            images[name].target = target + images[name].path
        fill_read_only(images[name].mount(options))
    image = images[name]
    words = [word.partition('=')[0] for word in options.split(',') if word]
    check(image.directory, *[text for word in words for text in ('--on', word)], *arguments)


def comes_to_an_end(name):
    """The image is whole after all that, and says so when it is mounted read-only."""
    image = images[name]
    image.umount()
    image.fsck()
    image.mount('ro')
    check(work_dir(), image.directory, '--only', 'readonly_')
    image.umount()


# name, mount options, target, as whom, which cases
RUNS = [
    ('plain', '', '', ('root', 'user'), ()),
    ('reactors', 'reactors=2', '', ('root', 'user'), ()),
    ('writeback', 'writeback', '', ('root',), ()),
    ('noopen', 'noopen', '', ('root',), ()),
    ('strictatime', 'strictatime', '', ('root',), ('--only', 'times_')),
    ('noatime', 'noatime', '', ('root',), ('--only', 'times_')),
    ('nvme', 'reactors=2', 'emu:', ('root',), ()),
]
if os.environ.get('LANEFS_TEST_LONG'):
    RUNS += [
        ('both', 'reactors=2,writeback,noopen', '', ('root', 'user'), ()),
        ('sync', 'sync,noopen', '', ('user',), ()),
        ('drive', 'writeback', 'emu:', ('root', 'user'), ()),
    ]
AS = {'root': (), 'user': ('--as', USER)}

for _who, _arguments in AS.items():
    add_case(f'ext4: {_who}', lambda arguments=_arguments: on_ext4(*arguments))
for _name, _options, _target, _people, _which in RUNS:
    for _who in _people:
        add_case(f'{_name}: {_who}', lambda name=_name, options=_options, target=_target, arguments=AS[_who] + _which:
                 on_lanefs(name, options, target, *arguments))
    add_case(f'{_name}: the image is whole; read-only', lambda name=_name: comes_to_an_end(name))

if __name__ == '__main__':
    main()
