#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Proof, on a real mount, that durability is paid for: flushes are counted at the block layer around each way of asking
for it. kill -9 loses nothing that was written, so without this a filesystem that never flushes would pass every other
mounted test.

The rules (architecture.md, "The journal"): fsync of new data = data, FLUSH, group, FLUSH; fdatasync of a pure overwrite
= one FLUSH; an O_SYNC or O_DSYNC write is durable when it returns, also under O_DIRECT, where the kernel sends no FSYNC;
a write that asked for nothing causes no flush of its own.
"""
import mmap
import os
import time

from lanefs_test import Image, case, equal, main, note

state = {}


def counts():
    stats = state['image'].stats()
    device = stats['device']
    return {'flush': device['flush']['count'], 'write': device['write']['count'], 'fua': device['fua_writes'],
            'groups': stats['journal']['groups'], 'FSYNC': stats['fuse'].get('FSYNC', {}).get('count', 0),
            'WRITE': stats['fuse'].get('WRITE', {}).get('count', 0)}


def difference(action):
    before = counts()
    action()
    after = counts()
    return {key: after[key] - before[key] for key in before}


def settle():
    """Waits until the timer has committed what is open, so that it does not count as somebody's flush."""
    last = None
    for _ in range(50):
        now = (counts()['flush'], counts()['groups'])
        if now == last:
            return
        last = now
        time.sleep(1.3)
    raise AssertionError('the journal does not come to rest')


def measured(name, action, repeat=20):
    settle()
    delta = difference(lambda: [action(i) for i in range(repeat)])
    note(f'{name}: {repeat} times: {delta}')
    return {key: value / repeat for key, value in delta.items()}


def at_least(delta, key, wanted, what):
    if delta[key] < wanted:
        raise AssertionError(f'{what}: {delta[key]} {key} each, wanted at least {wanted}: {delta}')


def open_file(name, flags=0):
    return os.open(f'{state["image"].directory}/{name}', os.O_CREAT | os.O_RDWR | flags, 0o644)


def aligned(byte):
    buffer = mmap.mmap(-1, 4096)
    buffer.write(byte * 4096)
    return buffer


@case('mount')
def mount():
    state['image'] = Image('flushes', '1G')
    state['image'].mount()
    equal(state['image'].status()['device']['volatile_cache'], True, 'a file has a volatile cache: the page cache of the disk')


@case('an idle mount flushes nothing')
def idle():
    settle()
    delta = difference(lambda: time.sleep(3))
    equal((delta['flush'], delta['write']), (0, 0), 'flushes and writes while idle')


@case('fsync of new data: a flush before the group and one after')
def fsync_new():
    fd = open_file('new')

    def action(i):
        os.pwrite(fd, bytes([i + 1]) * 4096, i * 4096)
        os.fsync(fd)
    delta = measured('fsync of new data', action)
    at_least(delta, 'FSYNC', 1, 'fsync')
    at_least(delta, 'groups', 1, 'fsync')
    at_least(delta, 'flush', 2, 'fsync of new data')
    os.close(fd)


@case('fsync of metadata alone: the group is flushed')
def fsync_metadata():
    fd = open_file('metadata')

    def action(i):
        os.fchmod(fd, 0o600 + i % 8)
        os.fsync(fd)
    delta = measured('fsync after chmod', action)
    at_least(delta, 'groups', 1, 'fsync after chmod')
    at_least(delta, 'flush', 1, 'fsync after chmod')
    os.close(fd)


@case('fsync of a directory after a create: the group is flushed')
def fsync_directory():
    directory = os.open(state['image'].directory, os.O_RDONLY)

    def action(i):
        os.close(open_file(f'created{i}'))
        os.fsync(directory)
    delta = measured('create and fsync of the directory', action)
    at_least(delta, 'groups', 1, 'directory fsync')
    at_least(delta, 'flush', 1, 'directory fsync')
    os.close(directory)


@case('fdatasync of an overwrite: one flush')
def fdatasync_overwrite():
    fd = open_file('overwrite')
    os.write(fd, b'0' * 40960)
    os.fsync(fd)

    def action(i):
        os.pwrite(fd, bytes([i + 1]) * 4096, i % 10 * 4096)
        os.fdatasync(fd)
    delta = measured('fdatasync of an overwrite', action)
    at_least(delta, 'flush', 1, 'fdatasync')
    if delta['flush'] > 1.5:
        raise AssertionError(f'fdatasync of a pure overwrite is one flush: {delta}')
    os.close(fd)


@case('fdatasync of an appending write: as fsync')
def fdatasync_append():
    fd = open_file('append')

    def action(i):
        os.write(fd, b'a' * 4096)
        os.fdatasync(fd)
    delta = measured('fdatasync of an append', action)
    at_least(delta, 'groups', 1, 'fdatasync of an append')
    at_least(delta, 'flush', 2, 'fdatasync of an append')
    os.close(fd)


def synchronous_writes(name, flags, direct, grow):
    def body():
        file_name = name.replace(' ', '-').replace(',', '')
        fd = open_file(file_name)
        if not grow:
            os.write(fd, b'0' * 4096 * 20)
            os.fsync(fd)
        os.close(fd)
        fd = open_file(file_name, flags | (os.O_DIRECT if direct else 0))
        buffers = [aligned(b'%c' % (65 + i)) for i in range(20)]
        delta = measured(name, lambda i: os.pwritev(fd, [buffers[i]], i * 4096))
        os.close(fd)
        at_least(delta, 'WRITE', 1, name)
        at_least(delta, 'flush', 2 if grow else 1, name)
        # Once is enough: by the flags of WRITE, or by the FSYNC that follows it.
        if flags == os.O_DSYNC and not grow and delta['flush'] > 1.5:
            raise AssertionError(f'{name}: more than one flush each: {delta}')
        if grow:
            at_least(delta, 'groups', 1, name)
    case(name)(body)


for _flag_name, _flag in (('O_SYNC', os.O_SYNC), ('O_DSYNC', os.O_DSYNC)):
    for _direct in (False, True):
        for _grow in (False, True):
            synchronous_writes(f'{_flag_name} write, {"direct" if _direct else "cached"}, '
                               f'{"new block" if _grow else "overwrite"}', _flag, _direct, _grow)


@case('plain writes: no flush until the commit timer')
def plain():
    fd = open_file('plain', os.O_DIRECT)
    buffer = aligned(b'p')
    os.pwritev(fd, [buffer], 0)
    os.fsync(fd)
    settle()
    delta = difference(lambda: [os.pwritev(fd, [buffer], 0) for _ in range(50)])
    note(f'50 direct overwrites: {delta}')
    equal(delta['flush'] <= 3, True, f'flushes of plain writes: {delta}')
    os.close(fd)


@case('what nobody syncs is durable soon: the timer flushes')
def timer():
    settle()

    def action():
        fd = open_file('timer', os.O_DIRECT)
        os.pwritev(fd, [aligned(b't')], 0)
        os.close(fd)
        time.sleep(4)
    delta = difference(action)
    note(f'one unsynced write and 4 s: {delta}')
    equal(delta['groups'] >= 1 and delta['flush'] >= 1, True, f'commit by the timer: {delta}')


@case('option sync: every change is durable when it returns')
def sync_option():
    state['image'].remount('sync')
    settle()
    delta = difference(lambda: [os.mkdir(f'{state["image"].directory}/sync{i}') for i in range(10)])
    note(f'10 mkdir under -o sync: {delta}')
    equal(delta['groups'] >= 10 and delta['flush'] >= 10, True, f'mkdir under sync: {delta}')


@case('unmount: flushed, clean')
def unmount():
    state['image'].umount()
    state['image'].fsck()


if __name__ == '__main__':
    main()
