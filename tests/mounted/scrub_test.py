# SPDX-License-Identifier: BSD-3-Clause
"""Goal: lanefs scrub, on real mounts: quiet on what is intact, also beside work; what is damaged on the image is found, named
with its path, recorded for the next fsck and repaired by that; it can be watched, cancelled and slowed down; a drive that is
pulled out and an unmount end it. Method: the command on mounts of images and emulated drives; metadata blocks of the image are
found by lanefs dump and damaged in the file under the mount.
"""
import ctypes
import json
import os
import shutil
import signal
import subprocess
import threading
import time

from lanefs_test import FSCK, LANEFS, Image, case, equal, main, run, wait_for


def scrub(image, *options, status=0):
    result = run(LANEFS, 'scrub', image.directory, *options, check=False, timeout=120)
    equal(result.returncode, status, f'scrub {options}: {result.stdout}{result.stderr}')
    return result.stdout


def exchange(one, other):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, one.encode(), -100, other.encode(), 2):
        raise OSError(ctypes.get_errno(), 'exchange')


def state(image):
    return json.loads(run(LANEFS, 'status', image.directory, '--json', check=False).stdout)['scrub']


def populate(directory):
    os.makedirs(f'{directory}/some/where')
    for i in range(3000):
        open(f'{directory}/some/where/{i}', 'wb').close()
    with open(f'{directory}/some/file', 'wb', buffering=0) as file:
        for i in range(200):  # a tree of extents
            os.pwrite(file.fileno(), b'x' * 4096, i * 8192)
        os.fsync(file.fileno())
    os.setxattr(f'{directory}/some/file', 'user.long', b'v' * 10000)


def settle(image):
    """What was done is home on the device."""
    image.remount('ro')
    image.remount('rw')


def inode_block(image, path):
    """Block of the image that holds the inode of this file."""
    ino = os.stat(f'{image.directory}/{path}').st_ino
    super_block = open(image.path, 'rb', buffering=0)
    os.lseek(super_block.fileno(), 4096, os.SEEK_SET)
    data = super_block.read(4096)
    super_block.close()
    first = int.from_bytes(data[160:168], 'little')
    ag_blocks = int.from_bytes(data[168:172], 'little')
    return first + (ino >> 24) * ag_blocks + (ino >> 4 & 0xfffff)


def flip(image, block, at=2000):
    with open(image.path, 'r+b', buffering=0) as file:
        byte = os.pread(file.fileno(), 1, block * 4096 + at)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), block * 4096 + at)


@case('an intact filesystem: nothing is found, with data too, and the figures say what was read')
def _():
    image = Image('scrub', '256M')
    image.mount('reactors=2')
    equal(run(LANEFS, 'scrub', image.directory, '--status').stdout, f'{image.directory}: no scrub since it was mounted\n', 'never')
    populate(image.directory)
    text = scrub(image, '--data')
    equal('finished' in text and ' 0 findings' in text, True, text)
    now = state(image)
    equal((now['state'], now['findings'], now['inodes'] >= 3003, now['data_bytes'] >= 200 * 4096), ('finished', 0, True, True), now)
    equal('scrub' in run(LANEFS, 'status', image.directory).stdout, True, 'lanefs status speaks of it')
    equal(scrub(image, '--status'), text, 'the last one')
    for arguments, code in (([], 2), ([image.directory, '-r', 'x'], 2), ([image.directory, '-q'], 2), (['/proc'], 3),
                            ([image.directory, '--status', '--cancel'], 2), ([image.directory, '--cancel'], 1)):
        result = run(LANEFS, 'scrub', *arguments, check=False)
        equal((result.returncode, result.stderr.count('\n')), (code, 1), f'{arguments}: {result.stderr}')
    image.umount()
    image.fsck()


@case('beside work on two reactors: no false alarm, and the work goes on')
def _():
    image = Image('load', '256M')
    image.target = f'emu:{image.path}'
    image.mount('reactors=2,cache=4M')
    populate(image.directory)
    ended, done = threading.Event(), [0, 0]

    def names(directory, turn):
        """Links between directories that come, move, change places and go."""
        here, there = f'{directory}/d{turn % 7}', f'{directory}/d{(turn + 3) % 7}'
        for parent in (here, there):
            os.makedirs(f'{parent}/sub', exist_ok=True)
        with open(f'{here}/sub/file', 'wb') as file:
            try:
                os.link(file.name, f'{there}/link{turn % 5}')
            except FileExistsError:
                os.unlink(f'{there}/link{turn % 5}')
        exchange(f'{here}/sub', f'{there}/sub')
        moved = f'{here}/sub{turn % 20}'
        if os.path.exists(moved):
            shutil.rmtree(moved)
        elif turn % 4 == 0:
            os.rename(f'{there}/sub', moved)

    def work(number):
        directory = f'{image.directory}/work{number}'
        os.mkdir(directory)
        while not ended.is_set():
            name = f'{directory}/{done[number] % 50}'
            with open(name, 'wb', buffering=0) as file:
                file.write(os.urandom(1 + done[number] * 977 % 60000))
            os.setxattr(name, 'user.x', b'v' * (done[number] * 37 % 5000))
            os.rename(name, f'{directory}/moved')
            if done[number] % 3:
                os.unlink(f'{directory}/moved')
            names(directory, done[number])
            done[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    before, rounds, end = list(done), 0, time.time() + 4
    while time.time() < end:
        scrub(image, *(['--data'] if rounds % 2 else []))
        rounds += 1
    ended.set()
    for worker in workers:
        worker.join()
    equal(rounds >= 2 and all(now > then + 20 for now, then in zip(done, before)), True, f'{rounds} rounds, {done}')
    image.umount()
    image.fsck()


@case('damage on the image under the mount is found, named, recorded, and repaired by fsck')
def _():
    image = Image('damage', '256M')
    image.mount()
    populate(image.directory)
    settle(image)
    scrub(image)
    block = inode_block(image, 'some/where/17')
    flip(image, block)
    text = scrub(image, status=1)
    equal(f'inode block {block}: bad' in text and '1 finding' in text and 'fsck.lanefs -y' in text, True, text)
    equal(run(LANEFS, 'status', image.directory, check=False).returncode, 1, 'status of lanefs status')
    equal(os.path.exists(f'{image.directory}/some/where/17'), True, 'what memory knows goes on')
    flip(image, block)
    with open(image.path, 'r+b', buffering=0) as file:  # a node of the file's extents, found by its header
        ino = os.stat(f'{image.directory}/some/file').st_ino
        node = next(i for i in range(os.fstat(file.fileno()).st_size // 4096)
                    if (head := os.pread(file.fileno(), 48, i * 4096))[8:10] == b'\x08\x00'
                    and int.from_bytes(head[32:40], 'little') == ino and int.from_bytes(head[16:24], 'little') == i)
    flip(image, node)
    text = scrub(image, status=1)
    equal(f'inode {ino}: extent' in text and f'inode {ino} is {image.directory}/some/file' in text, True, text)
    image.umount()
    result = run(FSCK, '-p', image.path, check=False)
    equal((result.returncode, 'checked further' in result.stdout), (4, False), f'fsck -p looks: {result.stdout}')
    equal(run(FSCK, '-y', image.path, check=False).returncode, 1, 'fsck -y')
    image.mount()
    scrub(image)
    image.umount()


@case('it keeps to its rate, tells how far it is, and can be cancelled; one at a time; an unmount ends it')
def _():
    image = Image('slow', '256M')
    image.mount()
    populate(image.directory)
    settle(image)
    process = subprocess.Popen([LANEFS, 'scrub', image.directory, '-r', '64K'], stdout=subprocess.PIPE, text=True)
    wait_for(lambda: state(image)['state'] == 'running', 'it runs')
    time.sleep(1)
    now = state(image)
    equal(now['blocks'] <= 16 * 4 and now['total'] > 3000, True, now)
    equal(run(LANEFS, 'scrub', image.directory, check=False).returncode, 1, 'another one')
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=10)[0]
    equal((process.returncode, 'cancelled' in text), (1, True), text)
    scrub(image, '--background', '--rate=64K')
    equal(state(image)['state'], 'running', 'in the background')
    run(LANEFS, 'scrub', image.directory, '--cancel')
    wait_for(lambda: state(image)['state'] == 'cancelled', 'it was cancelled')
    scrub(image, '-b', '-r', '64K')
    image.umount()
    image.fsck()


@case('a drive that is pulled out ends it')
def _():
    image = Image('pulled', '256M')
    image.target = f'emu:{image.path}'
    image.mount('reactors=2')
    populate(image.directory)
    process = subprocess.Popen([LANEFS, 'scrub', image.directory, '-r', '64K'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    wait_for(lambda: state(image)['state'] == 'running', 'it runs')
    run(LANEFS, 'detach', '--surprise', image.directory, check=False)
    process.communicate(timeout=30)
    equal(process.returncode in (1, 3), True, f'{process.returncode}')
    wait_for(lambda: not os.path.ismount(image.directory), 'the mount is gone')


if __name__ == '__main__':
    main()
