#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""bench/compare still runs: every kind of work once, with little of it, on lanefs and on the pass-through; a work that
fails is a row that failed; and nothing is left behind, not even after SIGTERM."""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from lanefs_test import BUILD, SOURCE, Skip, case, equal, main, run, wait_for, work_dir

COMPARE = f'{SOURCE}/bench/compare'


def folder(name):
    path = f'{work_dir()}/{name}'
    os.mkdir(path)
    return path


def needed():
    if not shutil.which('losetup') or not os.path.exists('/dev/loop-control'):
        raise Skip('no loop devices here')


def left_behind(directory):
    with open('/proc/self/mountinfo') as file:
        mounts = [line.split()[4] for line in file if directory in line]
    loops = [line for line in run('losetup', '-a').stdout.splitlines() if directory in line]
    return mounts + os.listdir(directory) + loops


@case('every row has a figure, and nothing stays')
def every_row():
    needed()
    directory = folder('all')
    done = run(COMPARE, '--quick', '--rounds', 1, '--peers', 'lanefs,passthrough', '--build', BUILD, '--dir', directory,
               '--json', f'{work_dir()}/all.json')
    with open(f'{work_dir()}/all.json') as file:
        found = json.load(file)
    rows = run(COMPARE, '--rows', 'list').stdout.splitlines()
    for program, word in (('fio', 'KiB'), ('fio', 'MiB sequential'), ('git', 'git'), ('dbench', 'dbench')):
        if not shutil.which(program):
            rows = [row for row in rows if word not in row]
    equal(sorted(entry['row'] for entry in found if entry['peer'] == 'lanefs'), sorted(rows), 'rows')
    for entry in found:
        if entry['figures'][0] is None or entry['figures'][0] < 0:
            raise AssertionError(f'{entry}: {done.stderr}')
        if entry['row'] not in done.stdout:
            raise AssertionError(f'{entry["row"]} is not in the table: {done.stdout}')
    equal(left_behind(directory), [], 'left behind')


@case('a work that fails is a row that failed, and the others go on')
def failing():
    needed()
    directory = folder('failing')
    empty = folder('empty')
    for name in ('mkfs', 'fs', 'control'):
        os.symlink(f'{BUILD}/{name}', f'{empty}/{name}')
    os.mkdir(f'{empty}/bench')
    with open(f'{empty}/bench/names', 'w') as file:
        file.write('#!/bin/sh\nexit 3\n')
    os.chmod(f'{empty}/bench/names', 0o755)
    done = run(COMPARE, '--quick', '--rounds', 1, '--rows', 'rename', '--rows', 'untar', '--peers', 'lanefs,passthrough',
               '--build', empty, '--dir', directory)
    lines = {line.split('|')[1].strip(): line for line in done.stdout.splitlines()}
    equal('failed' in lines['rename'], True, 'rename')
    equal('failed' in lines['untar, files'], False, 'untar')
    equal('passthrough: left out' in done.stderr, True, 'said so')
    equal(left_behind(directory), [], 'left behind')


@case('SIGTERM in the middle leaves nothing')
def interrupted():
    needed()
    directory = folder('interrupted')
    process = subprocess.Popen([sys.executable, COMPARE, '--rounds', '50', '--rows', 'create', '--build', BUILD,
                                '--peers', 'lanefs,passthrough', '--dir', directory], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: glob.glob(f'{directory}/*/lanefs/work'), 'at work', 60)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        equal(process.wait(60), 128 + signal.SIGTERM, 'exit status')
    finally:
        process.kill()
        process.wait()
    equal(left_behind(directory), [], 'left behind')


if __name__ == '__main__':
    main()
