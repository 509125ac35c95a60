# SPDX-License-Identifier: BSD-3-Clause
"""Promises that must survive a crash: writers that note outside of the mount what fsync has acknowledged, and a judge.

promises.py --writer DIR LEDGER NUMBER SEED is one writer. Whenever an fsync returns, it puts one line into the ledger; what the
ledger says must hold after a crash. Versions of a file only go up, so the file may also be newer than the ledger. Files are
replaced in all the ways that programs use: in place, by rename, by append, with their directory synced.
"""
import hashlib
import os
import random
import subprocess
import sys

from lanefs_test import equal, wait_for

WRITERS = 3
FILES = 40


def content(writer, number, version):
    """Any version of any file can be recomputed from its first line."""
    randomness = random.Random(f'{writer}-{number}-{version}')
    body = randomness.randbytes(randomness.randrange(0, 30000))
    digest = hashlib.sha256(body).hexdigest()
    return f'{writer} {number} {version} {len(body)} {digest}\n'.encode() + body


def parse(data):
    """(writer, number, version) of a whole, intact file; None otherwise."""
    line, _, body = data.partition(b'\n')
    fields = line.split()
    if len(fields) != 5 or int(fields[3]) != len(body) or hashlib.sha256(body).hexdigest().encode() != fields[4]:
        return None
    return int(fields[0]), int(fields[1]), int(fields[2])


# ---- the writer: a process of its own, which ends when the mount fails ---------------------------------------------------
def fsync_path(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_by_rename(path, data):
    fd = os.open(path + '.new', os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    os.rename(path + '.new', path)
    fsync_path(os.path.dirname(path))


def append_line(path, line):
    fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    os.write(fd, line)
    os.fdatasync(fd)
    os.close(fd)
    fsync_path(os.path.dirname(path))


def churn(directory, randomness):
    """Work that nobody syncs: only fsck judges it."""
    name = f'{directory}/churn{randomness.randrange(30)}'
    action = randomness.randrange(6)
    try:
        if action == 0:
            os.mkdir(name + '.d')
        elif action == 1:
            os.rmdir(name + '.d')
        elif action == 2:
            os.unlink(name)
        elif action == 3:
            os.rename(name, f'{directory}/churn{randomness.randrange(30)}')
        elif action == 4:
            os.truncate(name, randomness.randrange(200000))
        else:
            with open(name, 'ab') as file:
                file.write(bytes(randomness.randrange(20000)))
            os.setxattr(name, 'user.c', bytes(randomness.randrange(500)))
    except FileNotFoundError:
        pass
    except FileExistsError:
        pass


def writer_main(directory, ledger_path, writer, seed):
    randomness = random.Random(seed)
    ledger = open(ledger_path, 'ab', buffering=0)
    version = int(seed) * 100000
    try:
        while True:
            version += 1
            kind = randomness.randrange(5)
            number = randomness.randrange(FILES)
            if kind < 3:
                replace_by_rename(f'{directory}/file{number}', content(writer, number, version))
                ledger.write(f'file {writer} {number} {version}\n'.encode())
            elif kind == 3:
                append_line(f'{directory}/log', f'{version}\n'.encode())
                ledger.write(f'log {writer} 0 {version}\n'.encode())
            else:
                path = f'{directory}/gone{number}'
                if os.path.exists(path):
                    os.unlink(path)
                    fsync_path(directory)
                    ledger.write(f'absent {writer} {number} {version}\n'.encode())
                else:
                    ledger.write(f'maybe {writer} {number} {version}\n'.encode())
                    replace_by_rename(path, content(writer, number, version))
                    ledger.write(f'present {writer} {number} {version}\n'.encode())
            for _ in range(randomness.randrange(4)):
                churn(directory, randomness)
    except OSError:
        return 0  # the daemon died


# ---- the judge ------------------------------------------------------------------------------------------------------
def read(path):
    with open(path, 'rb') as file:
        return file.read()


def judge(directory, ledger_path):
    """Returns how many promises were checked; raises at the first that was broken."""
    last, logged = {}, {}
    for line in read(ledger_path).decode().splitlines():
        fields = line.split()
        if len(fields) != 4:
            continue  # the last line, cut off
        kind, writer, number, version = fields[0], *map(int, fields[1:])
        if kind == 'log':
            logged.setdefault(writer, []).append(version)
        elif kind == 'file':
            last[('file', writer, number)] = (kind, version)
        else:
            last[('gone', writer, number)] = (kind, version)
    for (name, writer, number), (kind, version) in last.items():
        path = f'{directory}/w{writer}/{name}{number}'
        if kind == 'maybe' or (kind == 'absent' and not os.path.exists(path)):
            continue
        if kind == 'present' and not os.path.exists(path):
            continue  # an unlink that was not acknowledged yet may have happened
        found = parse(read(path))
        equal(found is not None, True, f'{path} is whole')
        equal(found[:2], (writer, number), f'{path} holds its own content')
        if kind == 'absent':
            raise AssertionError(f'{path} is back, version {found[2]}, after its removal was synced at {version}')
        equal(found[2] >= version, True, f'{path}: version {found[2]}, synced was {version}')
    for writer, versions in logged.items():
        lines = read(f'{directory}/w{writer}/log').split(b'\n')
        numbers = [int(line) for line in lines if line]
        equal(numbers, sorted(set(numbers)), f'order in the log of writer {writer}')
        missing = set(versions) - set(numbers)
        equal(missing, set(), f'synced lines missing in the log of writer {writer}')
    return len(last) + sum(map(len, logged.values()))


# ---- both together ----------------------------------------------------------------------------------------------------
def start_writers(directory, ledger, seed):
    # Made here: a writer that starts late, after a crash, must not find or make its folder below the mount point.
    for writer in range(WRITERS):
        os.makedirs(f'{directory}/w{writer}', exist_ok=True)
    fsync_path(directory)
    return [subprocess.Popen([sys.executable, os.path.abspath(__file__), '--writer', f'{directory}/w{writer}', ledger, str(writer),
                              str(seed)]) for writer in range(WRITERS)]


def await_promises(ledger, more):
    """Until there are so many new ones: a crash right at the start proves little."""
    before = read(ledger).count(b'\n')
    wait_for(lambda: read(ledger).count(b'\n') >= before + more, f'{more} promises made', 60)


def end_writers(writers):
    """They end by themselves at the first error."""
    for writer in writers:
        try:
            writer.wait(30)
        except subprocess.TimeoutExpired:
            writer.kill()
            writer.wait()


if __name__ == '__main__':
    sys.exit(writer_main(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]))
