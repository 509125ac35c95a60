#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every allocation of memory of mount.lanefs up to the moment when it says that the mount is there, of umount.lanefs, and of
`lanefs` on a mount fails in turn (tests/unit/memory_test.py): one clear line, a status that says so, no crash, no hang; and
either there is a mount that works, or there is none, and no process of it. LANEFS_MEMORY_EVERY: one allocation of so many."""
import argparse
import errno
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../unit'))
import memory_test  # noqa: E402
from lanefs_test import BUILD, FSCK, LANEFS, MOUNT, UMOUNT, Image, Skip, alive, case, equal, main, note, run, wait_for  # noqa: E402
from memory_test import Case, Wrong  # noqa: E402

EVERY = int(os.environ.get('LANEFS_MEMORY_EVERY', '40'))
LIBRARY = f'{BUILD}/tests/unit/lanefs_test_fail_memory.so'


def with_sanitizer():
    with open(MOUNT, 'rb') as program:
        content = program.read()
    return b'__asan_init' in content or b'__tsan_init' in content


def sweep(name, words, good, failed, before=None, after=None):
    if with_sanitizer() or not os.path.exists(LIBRARY):
        raise Skip('the build has sanitizers, before which no library can be loaded')
    memory_test.arguments = argparse.Namespace(build=BUILD, library=LIBRARY, every=EVERY)
    words = [os.path.relpath(words[0], BUILD), *words[1:]]
    tried, last = Case(name, words, good, failed, before, after).sweep(random.Random(1))
    note(f'{name}: {tried} runs, about {last} allocations')


def processes_of(image):
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open(f'/proc/{name}/cmdline', 'rb') as file:
                    if image.path.encode() in file.read() and alive(int(name)):
                        found.append(int(name))
            except OSError:
                pass
    return found


def ended(image):
    wait_for(lambda: not processes_of(image), 'ended: every process of the mount')


@case('mount.lanefs')
def mounting():
    image = Image('mounting', '72M')

    def judge(result):
        if result.returncode == 0:
            if not image.mounted():
                raise Wrong('status 0, and no mount')
            try:
                with open(f'{image.directory}/file', 'w') as file:
                    file.write('works')
            except OSError as error:  # from the failing one on there is none at all
                if error.errno not in (errno.ENOMEM, errno.EIO, errno.EROFS):
                    raise Wrong(f'status 0, and a mount that says {error}') from error
            run(UMOUNT, image.directory)
        elif image.mounted():
            raise Wrong(f'status {result.returncode}, and a mount')
        ended(image)

    sweep('mount.lanefs', [MOUNT, image.path, image.directory], {0}, {2, 32}, None, judge)
    run(FSCK, '-n', image.path)


@case('umount.lanefs')
def unmounting():
    image = Image('unmounting', '72M')

    def before():
        if not image.mounted():
            image.mount(foreground=False)

    def judge(result):
        if result.returncode == 0:
            wait_for(lambda: not image.mounted(), 'unmounted', 5)
            ended(image)

    sweep('umount.lanefs', [UMOUNT, image.directory], {0}, {1, 2, 32}, before, judge)
    before()
    image.umount()
    run(FSCK, '-n', image.path)


@case('lanefs')
def commands():
    image = Image('commands', '72M')
    image.mount()
    for words in ['status'], ['status', '--json'], ['stats'], ['stats', '--prometheus'], ['trim'], ['scrub'], ['log-level']:
        directory = [words[0], image.directory, *words[1:]]
        sweep(f'lanefs {" ".join(words)}', [LANEFS, *directory], {0}, {1})
    equal(image.status()['state'], 'mounted')
    image.umount()


if __name__ == '__main__':
    main()
