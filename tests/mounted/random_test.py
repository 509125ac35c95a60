#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Random operations compared with models: random/data_exerciser (bytes) and random/name_exerciser (names, attributes) on
an emulated drive with a small journal, under several mount options; then unmount, fsck, mount, and the model once more.

random_test.py [--seconds N] [case words]: N seconds for each case, 6 unless said; hours are welcome. A difference prints
its seed and the command that repeats it; that command runs on any mount with the options in the case's name.
With --sabotage, of a build that has it: the exercisers must find a deliberate breakage each.
"""
import itertools
import os
import re
import shutil
import subprocess
import sys
import time

os.environ.setdefault('LANEFS_TEST_DRIVE', '')

from lanefs_test import BUILD, MIB, Image, Skip, add_case, enable_io_uring, equal, main, note, work_dir  # noqa: E402

OPTIONS = ('', 'reactors=2,cache=4M', 'writeback', 'noopen,reactors=2', 'writeback,noopen,reactors=2,cache=4M',
           'io_uring,reactors=2')
WORKERS = 2
NUMBERS = itertools.count()


def argument(name, default):
    """Takes --name VALUE out of the command line."""
    if name not in sys.argv:
        return default
    at = sys.argv.index(name)
    value = int(sys.argv[at + 1])
    del sys.argv[at:at + 2]
    return value


SECONDS = argument('--seconds', 6)


def exerciser(kind, directory, *arguments, program=None, **keywords):
    command = [program or f'{BUILD}/tests/mounted/random/{kind}_exerciser', '--workers', WORKERS, *arguments, directory]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=SECONDS + 300,
                          stdin=subprocess.DEVNULL, **keywords)


def fresh(name, options):
    """A mount of its own: one that a failed case leaves behind must not be in the way."""
    name = f'{name}-{next(NUMBERS)}'
    image = Image(name, '800M', mkfs=('-j', '4M'))
    image.mount(options)
    os.mkdir(f'{image.directory}/r')
    return image, f'{image.directory}/r'


def arguments_of(kind, options):
    if kind == 'names':
        return ['--xattr-max', 100000]
    # Under the writeback cache the kernel keeps a file's size to itself until it is synced: direct I/O may miss it.
    return ['--direct-align', 1, '--files', 5] + (['--writeback'] if 'writeback' in options else [])


def no_difference(result):
    if result.returncode:
        raise AssertionError(f'{result.stdout}{result.stderr}')
    return result.stdout


def exercise(kind, program, options):
    if 'io_uring' in options and not enable_io_uring():
        raise Skip('this kernel has no FUSE over io_uring')
    image, directory = fresh(kind, options)
    model = f'{image.directory}.model'
    said = no_difference(exerciser(program, directory, '--seconds', SECONDS, *arguments_of(kind, options), '--save', model))
    note(', '.join(re.findall(r'seed \d+|\d+ operations', said)))
    image.umount()
    image.fsck()
    image.mount(options)
    no_difference(exerciser(program, directory, *arguments_of(kind, options), '--verify', model))
    image.umount()
    image.fsck()
    image.remove()


def exercise_as_nobody():
    """Whose writes take suid away, and who may neither give files away nor make devices."""
    image, directory = fresh('nobody', '')
    program = shutil.copy(f'{BUILD}/tests/mounted/random/name_exerciser', work_dir())  # the build may be private
    shutil.chown(directory, 'nobody', 'nogroup')
    no_difference(exerciser('name', directory, '--seconds', SECONDS, program=program, cwd='/', user='nobody', group='nogroup',
                            extra_groups=[]))
    image.umount()
    image.fsck()
    image.remove()


def must_be_found(kind, program, breakage):
    os.environ['LANEFS_SABOTAGE'] = breakage
    image, directory = fresh(kind, '')
    result = exerciser(program, directory, '--seconds', 60, *arguments_of(kind, ''))
    del os.environ['LANEFS_SABOTAGE']
    equal((result.returncode, 'DIFFERENCE' in result.stdout, 'again: ' in result.stdout), (1, True, True), breakage)
    note(result.stdout.split('\n')[1])
    image.remove()


def writeback_holes():
    """What the kernel has not written yet is no hole to SEEK_DATA, neither inside the file nor at its end."""
    image, directory = fresh('holes', 'writeback')
    with open(f'{directory}/f', 'wb', buffering=0) as file:
        file.truncate(MIB)
        file.write(b'x' * 5000)
        os.pwrite(file.fileno(), b'y' * 5000, MIB)
        equal(os.lseek(file.fileno(), 0, os.SEEK_DATA), 0)
        equal(os.lseek(file.fileno(), MIB, os.SEEK_DATA), MIB)
        equal(os.lseek(file.fileno(), 0, os.SEEK_HOLE), MIB + 5000)
    image.remove()


def writeback_times():
    """A truncate that changes nothing changes the times nowhere: neither in the kernel, which owns them, nor on disk."""
    image, directory = fresh('times', 'writeback')
    path = f'{directory}/f'
    with open(path, 'wb') as file:
        file.write(b'x' * 100)
    os.utime(path, ns=(10 ** 18, 10 ** 18))
    time.sleep(0.01)
    os.truncate(path, 100)
    before = os.stat(path).st_mtime_ns
    image.remount('writeback')
    equal(os.stat(path).st_mtime_ns, before, 'mtime after another mount')
    image.remove()


KINDS = (('data', 'data'), ('names', 'name'))
if '--sabotage' in sys.argv:
    sys.argv.remove('--sabotage')
    add_case('data_exerciser finds a punch that leaves a block', lambda: must_be_found('data', 'data', 'punch-short'))
    add_case('name_exerciser finds an exchange that loses a name', lambda: must_be_found('names', 'name', 'exchange-loses'))
else:
    add_case('writeback: data in the page cache is no hole', writeback_holes)
    add_case('writeback: truncate to the same size', writeback_times)
    add_case('names, as an ordinary user', exercise_as_nobody)
    for _options in OPTIONS:
        for _kind, _program in KINDS:
            add_case(f'{_kind}, {_options or "default options"}',
                     lambda kind=_kind, program=_program, options=_options: exercise(kind, program, options))

main()
