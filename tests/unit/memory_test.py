#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every allocation of memory of the tools fails in turn (fail_memory.c): each ends with its work done, or with one clear line
and an exit status that says so; nothing crashes or hangs, what is only read stays as it is, and what was begun can be done
again. Usage: memory_test.py BUILD LIBRARY [--every N] [--seed N] [--only WORD]
--every N: one allocation of N, and the first (1: all)."""
import argparse
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

MEMORY = re.compile(r'memory|cannot start|resource', re.IGNORECASE)
ALLOCATIONS_MAX = 100000

arguments = None


class Wrong(Exception):
    """What a tool did that it must not."""


def digest(path):
    with open(path, 'rb') as file:
        return hashlib.blake2b(file.read()).digest()


def run(words, fail_at):
    """Runs a tool; fail_at: "N" or "N+". Returns its result and how many allocations failed."""
    with tempfile.NamedTemporaryFile(prefix='lanefs-memory-') as note:
        note.write(bytes(8))
        note.flush()
        environment = dict(os.environ, LD_PRELOAD=arguments.library, LANEFS_FAIL_MEMORY=fail_at, LANEFS_FAIL_NOTE=note.name)
        result = subprocess.run([f'{arguments.build}/{words[0]}', *words[1:]], capture_output=True, text=True, timeout=60,
                                stdin=subprocess.DEVNULL, env=environment, check=False)
        note.seek(0)
        return result, int.from_bytes(note.read(8), sys.byteorder)


def one_clear_line(result, program):
    lines = result.stderr.splitlines()
    if len(lines) != 1 or not lines[0].startswith(f'{program}: ') or not MEMORY.search(lines[0]):
        raise Wrong(f'not one clear line: {result.stderr!r}, after {result.stdout!r}')


class Case:
    """A tool, what it works on, and what it may leave behind."""

    def __init__(self, name, words, good, failed, before=None, after=None):
        self.name, self.words, self.good, self.failed, self.before, self.after = name, words, good, failed, before, after
        self.program = os.path.basename(words[0])

    def one(self, fail_at):
        """False: so many allocations there are not."""
        if self.before:
            self.before()
        result, hits = run(self.words, fail_at)
        if result.returncode in self.failed:
            one_clear_line(result, self.program)
        elif result.returncode not in self.good:
            raise Wrong(f'status {result.returncode}: {result.stderr[-2000:]!r}')
        if self.after:
            self.after(result)
        return hits > 0

    def sweep(self, drawn):
        """Both ways of failing at one allocation of each --every, whichever the seed says."""
        tried, number = 0, 0
        while number < ALLOCATIONS_MAX:
            hit = False
            for suffix in '', '+':
                at = f'{number}{suffix}'
                try:
                    hit |= self.one(at)
                except (Wrong, subprocess.TimeoutExpired) as error:
                    raise Wrong(f'LD_PRELOAD={arguments.library} LANEFS_FAIL_MEMORY={at} LANEFS_FAIL_NOTE=FILE '
                                f'{" ".join(self.words)}: {error}') from error
                tried += 1
            if not hit:
                break
            number += drawn.randint(1, 2 * arguments.every - 1)
        return tried, number


def cases(folder):
    image, damaged, copy = f'{folder}/image', f'{folder}/damaged', f'{folder}/copy'
    options = ['-g', '8M', '-j', '4M']
    for words in [image], [damaged, 'damaged']:
        subprocess.run([f'{arguments.build}/tests/unit/sample_image', *words], check=True, timeout=60)
    good = digest(image)

    def fresh():
        if os.path.exists(copy):
            os.unlink(copy)

    def made(result):
        if result.returncode == 0:
            subprocess.run([f'{arguments.build}/mkfs/fsck.lanefs', '-n', copy], check=True, timeout=60, capture_output=True)
        elif os.path.exists(copy):
            raise Wrong('an unfinished image was left behind')

    def unchanged(result):
        if digest(image) != good:
            raise Wrong('the image has changed')
        if result.returncode == 0 and re.search('[1-9][0-9]* finding', result.stdout):
            raise Wrong('a clean image has findings')

    def break_again():
        shutil.copyfile(damaged, copy)

    def repairable(result):
        command = [f'{arguments.build}/mkfs/fsck.lanefs', '-y', copy]
        status = subprocess.run(command, timeout=60, capture_output=True, check=False).returncode
        if status not in ((0,) if result.returncode == 1 else (0, 1)):
            raise Wrong(f'fsck -y after it: {status}')
        command[1] = '-n'
        if subprocess.run(command, timeout=60, capture_output=True, check=False).returncode:
            raise Wrong('damage is left after a second fsck -y')

    yield Case('mkfs.lanefs', ['mkfs/mkfs.lanefs', *options, copy, '64M'], {0}, {1}, fresh, made)
    yield Case('fsck.lanefs -n', ['mkfs/fsck.lanefs', '-n', image], {0}, {8}, None, unchanged)
    yield Case('fsck.lanefs -n, 2 threads', ['mkfs/fsck.lanefs', '-n', '-o', 'reactors=2', image], {0}, {8}, None, unchanged)
    yield Case('fsck.lanefs -n, damaged', ['mkfs/fsck.lanefs', '-n', damaged], {4}, {8})
    yield Case('fsck.lanefs -y', ['mkfs/fsck.lanefs', '-y', copy], {1}, {8}, break_again, repairable)
    yield Case('lanefs dump', ['control/lanefs', 'dump', image], {0}, {1}, None, unchanged)
    yield Case('lanefs dump all', ['control/lanefs', 'dump', image, 'all'], {0}, {1}, None, unchanged)
    yield Case('lanefs status', ['control/lanefs', 'status'], {0, 3}, {1})
    yield Case('lanefs devices', ['control/lanefs', 'devices'], {0}, {1})


def main():
    global arguments
    parser = argparse.ArgumentParser()
    parser.add_argument('build')
    parser.add_argument('library')
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--only', default='')
    arguments = parser.parse_args()
    drawn, failed, number = random.Random(arguments.seed), 0, 0
    with tempfile.TemporaryDirectory(prefix='lanefs-memory-') as folder:
        for number, case in enumerate((c for c in cases(folder) if arguments.only in c.name), 1):
            try:
                tried, last = case.sweep(drawn)
                print(f'# {tried} runs, about {last} allocations\nok {number} - {case.name}', flush=True)
            except Wrong as error:
                failed += 1
                print(f'# {error}\nnot ok {number} - {case.name}', flush=True)
    print(f'1..{number}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
