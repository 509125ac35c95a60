#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The tools under valgrind's memcheck: no invalid access, nothing undefined is used, nothing is definitely leaked.
Usage: valgrind_test.py BUILD"""
import os
import random
import shutil
import subprocess
import sys
import tempfile

BUILD = sys.argv[1]
MEMCHECK = ['valgrind', '-q', '--error-exitcode=99', '--leak-check=full', '--errors-for-leak-kinds=definite']


def with_sanitizers():
    with open(f'{BUILD}/mkfs/mkfs.lanefs', 'rb') as program:
        content = program.read()
    return b'__asan_init' in content or b'__tsan_init' in content


def run(number, statuses, *command):
    result = subprocess.run([*MEMCHECK, f'{BUILD}/{command[0]}', *command[1:]], capture_output=True, text=True, timeout=120,
                            stdin=subprocess.DEVNULL)
    good = result.returncode in statuses
    print(f'{"ok" if good else "not ok"} {number} - {" ".join(os.path.basename(word) for word in command)}')
    if not good:
        print('\n'.join('# ' + line for line in [f'status {result.returncode}', *result.stderr.split('\n')[:60]]))
    return good


def main():
    if not shutil.which('valgrind') or with_sanitizers():
        print('1..0 # SKIP no valgrind here, or a build with sanitizers')
        return 0
    with tempfile.TemporaryDirectory(prefix='lanefs-valgrind-') as folder:
        image, damaged = f'{folder}/image', f'{folder}/damaged'
        cases = [({0}, 'mkfs/mkfs.lanefs', image), ({0}, 'mkfs/fsck.lanefs', '-n', image), ({0}, 'control/lanefs', 'dump', image),
                 ({0, 3}, 'control/lanefs', 'status'), ({0, 1}, 'control/lanefs', 'devices'),
                 ({1}, 'mkfs/fsck.lanefs', '-y', damaged), ({0}, 'mkfs/fsck.lanefs', '-n', damaged),
                 ({4, 8}, 'mkfs/fsck.lanefs', '-p', '/dev/null')]
        print(f'1..{len(cases)}')
        with open(image, 'wb') as file:
            file.truncate(128 << 20)
        failed = 0
        for number, (statuses, *command) in enumerate(cases, 1):
            if damaged in command and not os.path.exists(damaged):
                shutil.copyfile(image, damaged)
                with open(damaged, 'r+b') as file:  # the first superblock, and both blocks of the state's pair: from their copies
                    file.seek(4096)
                    file.write(random.Random(1).randbytes(512))
            failed += not run(number, statuses, *command)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
