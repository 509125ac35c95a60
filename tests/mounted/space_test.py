#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Space that is given back and added: discard and FITRIM shrink what the image file takes, a mounted filesystem grows when its
image, loop device or emulated drive did, and nothing of that is lost by the next mount or by kill -9."""
import errno
import fcntl
import glob
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

from lanefs_test import MIB, MKFS, Image, case, equal, fails, loop_device, main, run, sha256, wait_for

FITRIM = 0xc0185879


def rpc(image, method, **parameters):
    """The result, or the error's text as a string."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(glob.glob(f'/run/lanefs/{image.pid}.sock')[0])
        client.sendall(json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': method, 'params': parameters}).encode() + b'\n')
        answer = json.loads(client.makefile().readline())
    return answer['result'] if 'result' in answer else answer['error']['message']


def trim(path, start=0, length=(1 << 64) - 1, least=0):
    handle = os.open(path, os.O_RDONLY)
    try:
        answer = fcntl.ioctl(handle, FITRIM, struct.pack('QQQ', start, length, least))
    finally:
        os.close(handle)
    return struct.unpack('QQQ', answer)[1]


def taken(image):
    return os.stat(image.path).st_blocks * 512


def fill(path, mib):
    with open(path, 'wb') as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


@case('discard: what is removed is given back to the image, and what is not stays')
def discard():
    image = Image('discard', '400M')
    top = image.mount('discard')
    fill(f'{top}/stays', 20)
    fill(f'{top}/goes', 100)
    digest, full = sha256(f'{top}/stays'), taken(image)
    os.unlink(f'{top}/goes')
    wait_for(lambda: taken(image) < full - 95 * MIB, 'given back')
    status = rpc(image, 'status')['discard']
    equal(status['bytes'] >= 100 * MIB and status['failed'] == 0, True, status)
    fill(f'{top}/goes', 50)
    os.unlink(f'{top}/goes')
    image.umount()  # discards the rest
    equal(taken(image) < full - 95 * MIB, True, 'after the unmount')
    image.fsck()
    image.mount()
    equal(sha256(f'{top}/stays'), digest, 'the other file')
    image.umount()


@case('FITRIM: fstrim gives free space back, once; the rules for its arguments')
def fitrim():
    image = Image('fitrim', '400M')
    top = image.mount()
    fill(f'{top}/stays', 20)
    fill(f'{top}/goes', 100)
    digest, full = sha256(f'{top}/stays'), taken(image)
    os.unlink(f'{top}/goes')
    out = run('fstrim', '-v', top).stdout
    equal('MiB' in out and taken(image) < full - 95 * MIB, True, out)
    equal(trim(top), 0, 'a second time')
    fails(errno.EINVAL, trim, top, start=1 << 40)
    fails(errno.EINVAL, trim, top, length=100)
    fails(errno.EINVAL, trim, top, least=1 << 33)
    equal(rpc(image, 'trim'), {'trimmed': 0}, 'RPC')
    equal(rpc(image, 'trim', offset='x').startswith('parameter "offset"'), True, 'a bad parameter')
    image.umount()
    image.mount('ro')
    fails(errno.EROFS, trim, top)
    equal('read-only' in rpc(image, 'trim'), True, 'RPC of a read-only mount')
    equal(sha256(f'{top}/stays'), digest, 'the other file')
    image.umount()
    image.fsck()


@case('fstrim while files come and go on a full filesystem')
def company():
    image = Image('company', '200M')
    top = image.mount()
    free = os.statvfs(top)
    fill(f'{top}/ballast', free.f_bavail * 4096 // MIB - 12)
    end = threading.Event()
    trims = []

    def trims_for_ever():
        while not end.is_set():
            for start in range(0, 200 * MIB, 8 * MIB):  # no whole group: none is passed over
                trims.append(trim(top, start, 8 * MIB))

    thread = threading.Thread(target=trims_for_ever)
    thread.start()
    try:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            fill(f'{top}/comes', 9)
            os.unlink(f'{top}/comes')
    finally:
        end.set()
        thread.join()
    equal(len(trims) > 25, True, f'{len(trims)} trims')
    image.umount()
    image.fsck()


def grow_image(image, enlarge, before_mib, after_mib):
    """Enlarges, grows, fills what was added, and finds everything again."""
    top = image.directory
    fill(f'{top}/old', before_mib // 2)
    digest = sha256(f'{top}/old')
    blocks = os.statvfs(top).f_blocks
    equal('has that size' in rpc(image, 'grow'), True, 'before the device has grown')
    enlarge()
    answer = rpc(image, 'grow')
    equal(answer, {'old': before_mib * MIB, 'new': after_mib * MIB}, 'grow')
    now = os.statvfs(top)
    equal((now.f_blocks - blocks) * 4096 > (after_mib - before_mib) * MIB * 95 // 100, True, 'df: size')
    equal(now.f_bavail * 4096 > (after_mib - before_mib) * MIB * 95 // 100, True, 'df: free')
    fill(f'{top}/new', before_mib + 20)
    digests = [digest, sha256(f'{top}/new')]
    equal(rpc(image, 'status')['filesystem']['blocks'], after_mib * 256, 'status')
    image.umount()
    image.fsck()
    image.mount()
    equal([sha256(f'{top}/old'), sha256(f'{top}/new')], digests, 'contents')
    equal(os.statvfs(top).f_blocks, now.f_blocks, 'df after another mount')
    image.umount()


@case('an image that became larger: the mounted filesystem grows into it')
def grow():
    image = Image('grow', '100M')
    image.mount()
    equal('cannot shrink' in rpc(image, 'grow', bytes=50 * MIB), True, 'shrinking')
    equal('enlarge it first' in rpc(image, 'grow', bytes=200 * MIB), True, 'past the device')
    grow_image(image, lambda: run('truncate', '-s', '2G', image.path), 100, 2048)


@case('growing in steps, under work, and kill -9 right behind it')
def steps():
    image = Image('steps', '72M')
    top = image.mount()
    run('truncate', '-s', '1G', image.path)
    end = threading.Event()
    counts = []

    def work():
        number = 0
        while not end.is_set():
            with open(f'{top}/work{number % 50}', 'wb') as file:
                file.write(b'%d' % number * 20000)
            number += 1
        counts.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for mib in (80, 100, 300, 301, 1000):
            equal(rpc(image, 'grow', bytes=mib * MIB)['new'], mib * MIB, f'to {mib} MiB')
    finally:
        end.set()
        thread.join()
    image.kill()
    image.fsck()
    image.mount()
    equal(rpc(image, 'grow'), {'old': 1000 * MIB, 'new': 1024 * MIB}, 'the rest')
    equal(counts[0] > 10 and len(os.listdir(top)) > 0, True, f'{counts} files made, {len(os.listdir(top))} found')
    image.umount()
    image.fsck()


@case('a loop device that became larger (losetup -c)')
def loop():
    with loop_device('growloop', '100M') as image:
        run(MKFS, image.path)
        image.mount()

        def enlarge():
            backing = run('losetup', '-n', '-O', 'BACK-FILE', image.path).stdout.strip()
            run('truncate', '-s', '600M', backing)
            run('losetup', '-c', image.path)
        grow_image(image, enlarge, 100, 600)


@case('an emulated drive whose image became larger')
def drive():
    image = Image('growdrive', '100M', format=False)
    image.target = f'emu:{image.path}'
    run(MKFS, image.target)
    image.mount()
    grow_image(image, lambda: run('truncate', '-s', '600M', image.path), 100, 600)


@case('fstrim that is interrupted ends')
def interrupted():
    image = Image('interrupted', '300G', format=False)
    image.target = f'emu:{image.path},rule=dsm:delay=20ms'
    run(MKFS, '--no-discard', image.target)
    top = image.mount()
    process = subprocess.Popen(['fstrim', top], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    equal(process.poll(), None, 'fstrim, so soon')
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(30)
    equal(time.monotonic() - begin < 3, True, 'how long it went on')
    before = rpc(image, 'stats')['device']['unmap']['count']
    time.sleep(0.5)
    equal(rpc(image, 'stats')['device']['unmap']['count'] - before <= 1, True, 'the trim has ended')
    equal(os.listdir(top), [], 'the mount works')
    image.umount()
    image.fsck()


main()
