#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What people are told to type works: the session in the README, and scripts/quickstart, twice, on a folder of its own."""
import os
import re
import subprocess

from lanefs_test import BUILD, FSCK, SOURCE, UMOUNT, case, equal, main, note, run, work_dir


def session():
    """The commands of the README's session."""
    with open(f'{SOURCE}/README.md') as file:
        section = re.search(r'^## A session\n(.*?)^## ', file.read(), re.M | re.S).group(1)
    return re.findall(r'^    \$ ([^#\n]*)', section, re.M)


def lazily_unmount(directory):
    subprocess.run([UMOUNT, directory], capture_output=True)
    subprocess.run(['umount', '-l', directory], capture_output=True)


@case('the session in the README')
def readme():
    folder = f'{work_dir()}/session'
    os.mkdir(folder)
    commands = session()
    equal(len(commands) >= 6, True, f'commands found: {commands}')
    path = f'{BUILD}/mkfs:{BUILD}/fs/daemon:{BUILD}/control:{os.environ["PATH"]}'
    try:
        for command in commands:
            result = run('sh', '-c', command, cwd=folder, env=dict(os.environ, PATH=path))
            note(f'$ {command.strip()}\n{result.stdout[:600]}{result.stderr}')
    finally:
        lazily_unmount(f'{folder}/mnt')


@case('scripts/quickstart: a working mount; a second run changes nothing')
def quickstart():
    directory, image = f'{work_dir()}/demo', f'{work_dir()}/demo.img'
    environment = dict(os.environ, LANEFS_BUILD=BUILD, LANEFS_IMAGE=image)
    command = [f'{SOURCE}/scripts/quickstart', directory]
    try:
        for attempt in (1, 2):
            note(run(*command, env=environment, timeout=900).stdout)
            with open(f'{directory}/hello/world.txt') as file:
                equal(len(file.readlines()), attempt, 'lines in the file that it writes')
        run(UMOUNT, directory)
        run(FSCK, '-n', image)
        note(run(*command, env=environment).stdout)
        with open(f'{directory}/hello/world.txt') as file:
            equal(len(file.readlines()), 3, 'lines after mounting the same image again')
        run(UMOUNT, directory)
    finally:
        lazily_unmount(directory)


@case('scripts/quickstart: an unknown option is an error')
def quickstart_option():
    result = run(f'{SOURCE}/scripts/quickstart', '--nonsense', check=False)
    equal(result.returncode, 1)
    equal('--nonsense' in result.stderr, True)


if __name__ == '__main__':
    main()
