#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A daemon under a service manager is killed in the middle of work, again and again: each time the dead mount makes room, the
mount is there again by itself, and everything that fsync had acknowledged with it. What runs the daemon is a shell loop with
the command and the rules of the systemd unit that we hand out (doc/examples/lanefs-mnt.service).
"""
import errno
import os
import random
import re
import signal
import socket
import subprocess
import time

from lanefs_test import LANEFS, MOUNT, SOURCE, UMOUNT, Image, Skip, alive, case, equal, fails, main, need, note, run, wait_for, \
    work_dir
from promises import await_promises, end_writers, judge, start_writers

UNIT = f'{SOURCE}/doc/examples/lanefs-mnt.service'
ROUNDS = int(os.environ.get('LANEFS_RESTARTS', '10'))


def unit(image):
    """Keys of the unit, with this test's programs, image and directory in place of theirs."""
    with open(UNIT) as file:
        text = file.read()
    for old, new in (('/usr/sbin/mount.lanefs', MOUNT), ('/usr/sbin/umount.lanefs', UMOUNT), ('/usr/bin/lanefs', LANEFS),
                     ('/srv/lanefs/disk.img', image.path), ('/mnt/lanefs', image.directory)):
        equal(old in text, True, f'{old} in the unit')
        text = text.replace(old, new)
    return text, dict(re.findall(r'^(\w+)=(.*)$', text, re.M))


class Manager:
    """What systemd does with the unit: Type=notify, Restart=on-failure, RestartPreventExitStatus. ExecStop is run whenever the
    daemon has ended, by whatever; unless it begins with "-", its failure is the service's."""

    def __init__(self, image, keys):
        self.image, self.keys = image, keys
        self.address = f'{image.path}.notify'
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.settimeout(30)
        stop = keys['ExecStop']
        script = (f'while :; do {keys["ExecStart"]}; status=$?; echo $status >>"$1.statuses"; '
                  f'{stop.lstrip("-")} 2>/dev/null || [ $status != 0 ] || status={0 if stop[0] == "-" else "stop-failed"}; '
                  f'case " 0 {keys["RestartPreventExitStatus"]} " in *" $status "*) exit $status;; esac; '
                  f'sleep {int(keys["RestartSec"][:-2]) / 1000}; done')
        equal(keys['Restart'], 'on-failure')
        self.process = subprocess.Popen(['sh', '-c', script, 'sh', image.path], stdin=subprocess.DEVNULL,
                                        stderr=open(image.log, 'a'), env=dict(os.environ, NOTIFY_SOCKET=self.address))

    def told(self, what):
        equal(self.socket.recv(100).decode(), what, 'what the daemon tells its manager')

    def ready(self):
        self.told('READY=1')
        self.image.pid = self.image.status()['pid']

    def statuses(self):
        with open(f'{self.image.path}.statuses') as file:
            return [int(line) for line in file]


def kill_in_work(image, manager, ledger, number, randomness):
    writers = start_writers(image.directory, ledger, number)
    held = os.open(image.directory, os.O_RDONLY)
    try:
        await_promises(ledger, 12)
        time.sleep(randomness.uniform(0, 0.7))
        begin = time.monotonic()
        os.kill(image.pid, signal.SIGKILL)
        manager.ready()
        gap = time.monotonic() - begin
    finally:
        for writer in writers:  # one that noticed nothing goes on with the new mount
            writer.kill()
        end_writers(writers)
    fails(errno.ENOTCONN, os.listdir, held)  # what was open stays dead
    os.close(held)
    return judge(image.directory, ledger), gap


@case(f'kill -9 and restart, {ROUNDS} times under load: served again by itself, and what was synced is there')
def restart():
    image = Image('restart', '512M')
    ledger = f'{work_dir()}/ledger'
    open(ledger, 'w').close()
    manager = Manager(image, unit(image)[1])
    manager.ready()
    try:
        randomness = random.Random()
        results = [kill_in_work(image, manager, ledger, number, randomness) for number in range(1, ROUNDS + 1)]
        with open('/proc/self/mounts') as file:
            equal(sum(image.directory in line for line in file), 1, 'mounts: the dead ones are gone')
        note(f'{results[-1][0]} promises held; ms without service: {[round(gap * 1000) for _, gap in results]}')
        equal(results[-1][0] > 5 * ROUNDS, True, 'enough was promised to make the test matter')
        run(UMOUNT, image.directory)
        equal(manager.process.wait(30), 0, 'an unmount ends the service')
    finally:
        manager.process.kill()
    equal(manager.statuses(), [137] * ROUNDS + [0], 'statuses of the daemons')
    image.fsck()


@case('reload of the service: the manager is told of the successor, and an unmount of it is no failure')
def reload():
    image = Image('reload', '96M')
    keys = unit(image)[1]
    manager = Manager(image, {**keys, 'ExecStop': '-true'})  # it knows a new main process before the old one ends
    manager.ready()
    old = image.pid
    for _ in range(2):  # the second time it is the successor that tells
        run(*keys['ExecReload'].split())
        pid = image.status()['pid']
        equal(pid != old, True, 'another process')
        wait_for(lambda: not alive(old), 'ended: the daemon of before')
        messages = {manager.socket.recv(100).decode() for _ in range(2)}
        equal(messages, {f'MAINPID={pid}', 'READY=1'})
        old = pid
    equal(manager.process.wait(30), 0, 'the first daemon ends without a failure')
    run(*keys['ExecStop'].lstrip('-').split())
    image.fsck()


@case('a dead mount whose device cannot be mounted stays, and the line says why')
def refused():
    image = Image('refused', '96M')
    image.mount()
    os.kill(image.pid, signal.SIGKILL)
    image.process.wait()
    image.process = None
    fails(errno.ENOTCONN, os.statvfs, image.directory)
    os.rename(image.path, f'{image.path}.away')
    result = run(MOUNT, image.path, image.directory, check=False)
    equal((result.returncode, result.stderr.count('\n')), (32, 1), result.stderr)
    equal('no such file' in result.stderr, True, result.stderr)
    fails(errno.ENOTCONN, os.statvfs, image.directory)
    os.rename(f'{image.path}.away', image.path)
    image.mount()
    os.listdir(image.directory)
    image.umount()


@case('the unit is accepted by systemd-analyze')
def verify():
    need('systemd-analyze')
    image = Image('verify', '96M', format=False)
    path = f'{work_dir()}/lanefs-mnt.service'
    with open(path, 'w') as file:
        file.write(unit(image)[0])
    result = run('systemd-analyze', '--man=no', 'verify', path, check=False, timeout=60)
    if 'Failed to' in result.stderr:
        raise Skip(result.stderr.strip())
    equal((result.returncode, result.stderr), (0, ''), 'systemd-analyze verify')


if __name__ == '__main__':
    main()
