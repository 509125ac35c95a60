#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A daemon that is stopped for a while, as on a laptop that sleeps: programs wait, then all goes on, and nobody complains; and
processes that wait for a daemon can be killed. LANEFS_STOP_SECONDS: for how long (default 2; try 65)."""
import os
import signal
import subprocess
import threading
import time

from lanefs_test import LANEFS, Image, case, equal, main, note, run, wait_for

SECONDS = float(os.environ.get('LANEFS_STOP_SECONDS', '2'))


def worker(directory, number, stop, done):
    """Files written, synced, read back, removed."""
    i = 0
    while not stop.is_set():
        path = f'{directory}/w{number}-{i % 20}'
        content = bytes([i % 251]) * 100000
        with open(path, 'wb') as file:
            file.write(content)
            os.fsync(file.fileno())
        with open(path, 'rb') as file:
            equal(file.read() == content, True, path)
        if i % 3 == 0:
            os.unlink(path)
        i += 1
        done[number] = i


def stopped_for_a_while(name, target, options):
    image = Image(name, '128M')
    if target:
        image.target = target.replace('IMAGE', image.path)
    image.mount(options)
    with open(image.log) as file:
        said = file.read()
    stop, done, errors = threading.Event(), [0, 0, 0], []

    def run_worker(number):
        try:
            worker(image.directory, number, stop, done)
        except Exception as error:  # shown below
            errors.append(error)
    threads = [threading.Thread(target=run_worker, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: min(done) > 2, 'working')
    os.kill(image.pid, signal.SIGSTOP)
    time.sleep(SECONDS)
    at_stop = list(done)
    os.kill(image.pid, signal.SIGCONT)
    wait_for(lambda: all(now > then + 2 for now, then in zip(done, at_stop)), 'working again')
    stop.set()
    for thread in threads:
        thread.join()
    equal(errors, [], 'errors of the workers')
    device, status = image.status()['device'], image.status()
    equal([device.get(key, 0) for key in ('resets', 'timeouts', 'aborts', 'retries', 'errors', 'holds')], [0] * 6, device)
    equal(status['errors']['stopped'], 0)
    with open(image.log) as file:
        equal(file.read(), said, 'the log')
    image.umount()
    image.fsck()
    note(f'{sum(done)} files, {sum(at_stop)} before')


@case('a stopped daemon of an image file goes on as if nothing had been')
def image_file():
    stopped_for_a_while('stopped', None, 'reactors=2')


@case('the same over an emulated drive, with on_removal=wait: no command counts as late')
def drive():
    stopped_for_a_while('stopped-drive', 'emu:IMAGE,cache=16M,latency=2ms', 'on_removal=wait=30')


@case('while the daemon is stopped: lanefs says that it does not answer, and waiting processes can be killed')
def told():
    image = Image('told', '128M')
    image.mount(foreground=False)
    with open(f'{image.directory}/f', 'w') as file:
        file.write('text')
    os.kill(image.pid, signal.SIGSTOP)
    try:
        waiting = [subprocess.Popen(['dd', 'if=/dev/zero', f'of={image.directory}/g', 'bs=4k', 'count=1', 'status=none']),
                   subprocess.Popen(['ls', f'{image.directory}/missing'], stderr=subprocess.DEVNULL)]
        begin = time.monotonic()
        result = run(LANEFS, 'status', image.directory, check=False, timeout=30)
        equal((result.returncode != 0, result.stdout, result.stderr.count('\n')), (True, '', 1), result.stderr)
        note(f'{result.stderr.strip()} ({time.monotonic() - begin:.1f} s)')
        for process in waiting:
            equal(process.poll(), None, 'it waits')
            process.kill()
        for process in waiting:  # what the daemon has not read yet is taken back
            equal(process.wait(5), -signal.SIGKILL)
    finally:
        os.kill(image.pid, signal.SIGCONT)
    with open(f'{image.directory}/f') as file:
        equal(file.read(), 'text')
    image.umount()
    image.fsck()


READ = """
import mmap, os, signal, sys
hits = []
signal.signal(signal.SIGALRM, lambda number, frame: hits.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
got = os.preadv(fd, [mmap.mmap(-1, 4096)], 0)
sys.exit(0 if got == 4096 and hits else 1)
"""


@case('processes that wait for a slow device can be killed; other signals do not disturb what they asked for')
def slow_device():
    image = Image('slow', '128M')
    image.target = f'emu:{image.path},latency=1ms'
    image.mount(foreground=False)
    directory = image.directory
    os.mkdir(f'{directory}/d')
    for i in range(10):
        with open(f'{directory}/d/f{i}', 'wb') as file:
            file.write(bytes([i]) * 100000)
    image.remount()  # nothing is in the daemon's memory
    image.pid = image.status()['pid']
    os.listdir(directory)
    with open(f'{directory}/d/f9', 'rb') as file:
        file.read(1)
    run(LANEFS, 'emu', directory, 'rule', 'read:delay=6s')
    run(LANEFS, 'emu', directory, 'rule', 'flush:delay=6s')
    waiting = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in (
        ['dd', f'if={directory}/d/f9', 'iflag=direct', 'bs=4k', 'count=1', 'of=/dev/null'],
        ['dd', 'if=/dev/zero', f'of={directory}/new', 'bs=4k', 'count=1', 'conv=fsync'],
        ['cat', f'{directory}/d/f9'])]
    patient = subprocess.Popen(['python3', '-c', READ, f'{directory}/d/f9'])
    time.sleep(1)
    for process, number in zip(waiting, (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)):
        equal(process.poll(), None, f'{process.args} waits')
        begin = time.monotonic()
        process.send_signal(number)
        equal(process.wait(20), -number, process.args)
        took = time.monotonic() - begin
        note(f'{process.args[0]} {process.args[1]}: ended after {took:.2f} s')
        equal(took < 2, True, f'{process.args}: {took:.1f} s')
    equal(patient.wait(30), 0, 'a read that signals hit is whole')
    equal(image.status()['fuse']['interrupted'] >= 2, True, 'answered early')
    run(LANEFS, 'emu', directory, 'clear')
    with open(f'{directory}/d/f9', 'rb') as file:
        equal(file.read(), bytes([9]) * 100000)
    image.umount()
    image.fsck()


if __name__ == '__main__':
    main()
