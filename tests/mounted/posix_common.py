# SPDX-License-Identifier: BSD-3-Clause
"""What the cases of basic_test.py share: the list that they register in, and small file helpers."""
import ctypes
import os
import random

from lanefs_test import equal

libc = ctypes.CDLL(None, use_errno=True)
CASES = []
mounted = {'options': ''}  # of the mount that the cases run on


def basic(function):
    """Registers a case: a function of the directory that it works in."""
    CASES.append(function)
    return function


def write(path, data, flags=os.O_CREAT | os.O_WRONLY | os.O_TRUNC, offset=None):
    fd = os.open(path, flags, 0o644)
    try:
        if offset is None:
            equal(os.write(fd, data), len(data), 'bytes written')
        else:
            equal(os.pwrite(fd, data, offset), len(data), 'bytes written')
    finally:
        os.close(fd)


def read(path):
    with open(path, 'rb') as file:
        return file.read()


def pattern(length, seed):
    return random.Random(seed).randbytes(length)
