#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""kill -9 of the daemon at random moments of real work. After each: fsck finds nothing, the mount replays, and everything
that fsync had acknowledged is there.
What was promised is in promises.py.
"""
import os
import random
import time

from lanefs_test import Image, case, equal, main, note, work_dir
from promises import end_writers, judge, start_writers

ROUNDS = int(os.environ.get('LANEFS_KILLS', '20'))


def crash_round(image, ledger, round_number, randomness):
    image.mount('reactors=2' if round_number % 2 else '')
    writers = start_writers(image.directory, ledger, round_number)
    try:
        time.sleep(randomness.uniform(0.3, 2.5))
        image.kill()
    finally:
        end_writers(writers)
    image.fsck()  # before the replay: it replays in memory
    image.mount()
    replayed = image.status()['journal']['replayed_groups']
    checked = judge(image.directory, ledger)
    image.umount()
    image.fsck()
    return replayed, checked


@case(f'kill -9 of the daemon {ROUNDS} times in the middle of work')
def kill9():
    image = Image('crash', '512M')
    ledger = f'{work_dir()}/ledger'
    open(ledger, 'w').close()
    randomness = random.Random()
    results = [crash_round(image, ledger, number, randomness) for number in range(1, ROUNDS + 1)]
    note(f'replayed groups: {[replayed for replayed, _ in results]}')
    note(f'{results[-1][1]} promises held at the end')
    equal(results[-1][1] > 20 * min(ROUNDS, 5), True, 'enough was promised to make the test matter')
    equal(sum(replayed > 0 for replayed, _ in results) * 2 >= ROUNDS, True, 'most crashes left something to replay')


if __name__ == '__main__':
    main()
