#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Rates of operations on names and small files in several directories, interleaved: bench/names.py [-n FILES] [-r ROUNDS]
DIR PEER... Prints the median of the rounds for each directory and its ratio to the first peer (over 1: DIR is faster)."""
import argparse
import os
import statistics
import time

DATA = b'x' * 3000


def timed(operation, count):
    begin = time.perf_counter()
    for i in range(count):
        operation(i)
    return count / (time.perf_counter() - begin)


def write(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, DATA)
    os.close(fd)


def one_round(directory, count):
    top = f'{directory}/bench-names'
    os.mkdir(top)

    def path(i):
        return f'{top}/file-{i}'

    rates = {
        'create': timed(lambda i: os.close(os.open(path(i), os.O_CREAT | os.O_WRONLY, 0o644)), count),
        'stat': timed(lambda i: os.stat(path(i)), count),
        'write 3000 bytes': timed(lambda i: write(path(i)), count),
        'rename': timed(lambda i: os.rename(path(i), path(i) + '-new'), count),
        'unlink': timed(lambda i: os.unlink(path(i) + '-new'), count),
    }
    os.rmdir(top)
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('-n', type=int, default=5000, help='files a round (5000)')
    parser.add_argument('-r', type=int, default=5, help='rounds (5)')
    parser.add_argument('directories', nargs='+', metavar='DIR')
    arguments = parser.parse_args()
    rounds = {directory: [] for directory in arguments.directories}
    for _ in range(arguments.r):
        for directory in arguments.directories:
            rounds[directory].append(one_round(directory, arguments.n))
    for name in rounds[arguments.directories[0]][0]:
        medians = [statistics.median(each[name] for each in rounds[directory]) for directory in arguments.directories]
        ratio = f'   {medians[0] / medians[1]:.2f}' if len(medians) > 1 else ''
        print(f'{name:18}' + ''.join(f'{median:12,.0f}' for median in medians) + ratio)


if __name__ == '__main__':
    main()
