#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Devices that leave under a real mount, pulled out or asked for, and come back or do not: on emulated drives. What
programs see, how long it takes, what is left on the image, and that nobody is unkillable meanwhile."""
import errno
import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

from lanefs_test import (FSCK, LANEFS, MKFS, MOUNT, UMOUNT, Image, case, equal, fails, main, note, run, wait_for, work_dir)


class Drive(Image):
    """An image as the medium of an emulated drive."""

    def __init__(self, name, options=''):
        super().__init__(name, '256M', format=False)
        self.target = f'emu:{self.path}' + (f',{options}' if options else '')
        run(MKFS, '-q', self.target)

    def lanefs(self, command, *arguments, **keywords):
        return run(LANEFS, command, self.directory, *arguments, **keywords)

    def emu(self, *action, **keywords):
        return run(LANEFS, 'emu', self.directory, *action, **keywords)

    def pull(self):
        return run(LANEFS, 'detach', '--surprise', self.directory)

    def state(self):
        return self.status()['state']

    def ends(self, wanted, seconds):
        """The daemon ends by itself with this status, within this time."""
        begin = time.monotonic()
        equal(self.process.wait(seconds), wanted, 'exit status of the daemon')
        self.process, self.pid = None, 0
        equal(self.mounted(), False, 'still in the mount table')
        return time.monotonic() - begin

    def said(self, text):
        with open(self.log) as log:
            return text in log.read()


def write(path, content='content', sync=False):
    with open(path, 'w') as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def read(path):
    with open(path) as file:
        return file.read()


def background(*command):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


# ---- on_removal=unmount ----------------------------------------------------------------------------------------------
@case('pulled out: EIO, then ENOTCONN, the mount is gone within seconds, the daemon says why; what was synced is there')
def surprise():
    drive = Drive('surprise')
    drive.mount()
    write(f'{drive.directory}/synced', 'synced', sync=True)
    file = os.open(f'{drive.directory}/open', os.O_RDWR | os.O_CREAT)
    folder = os.open(drive.directory, os.O_RDONLY | os.O_DIRECTORY)
    drive.emu('rule', 'any:vanish')
    try:
        os.pwrite(file, b'x' * 4096, 0)
        os.fsync(file)
        raise AssertionError('fsync on a device that is gone succeeded')
    except OSError as error:
        equal(error.errno in (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED), True, f'errno {error.errno}')
    took = drive.ends(66, 15)
    note(f'the daemon ended {took:.1f} s after the device had gone')
    fails(errno.ENOTCONN, os.pwrite, file, b'x', 0)
    fails(errno.ENOTCONN, os.open, 'new', os.O_CREAT | os.O_RDWR, dir_fd=folder)
    os.close(file)
    os.close(folder)
    equal(drive.said('the device is gone'), True, 'the log says why')
    run(FSCK, '-n', drive.path)
    drive.mount()
    equal(read(f'{drive.directory}/synced'), 'synced')
    drive.umount()
    drive.fsck()


@case('pulled out while nothing is open: everything ends at once')
def surprise_idle():
    drive = Drive('idle')
    drive.mount()
    write(f'{drive.directory}/f')
    drive.pull()
    drive.ends(66, 10)


@case('pulled out under load, ten times: the image is clean after replay every time')
def surprise_load():
    drive = Drive('load')
    for round_number in range(10):
        drive.mount(f'reactors={1 + round_number % 2}')
        stop = threading.Event()
        synced = []

        def load(number, folder):
            """By the folder that was opened: a path would lead below the mount point, once the mount is detached."""
            count = 0
            try:
                while not stop.is_set():
                    name = f'r{round_number}.{number}.{count}'
                    with open(name, 'w', opener=lambda path, flags: os.open(path, flags, dir_fd=folder)) as file:
                        file.write(name * 50)
                        file.flush()
                        os.fsync(file.fileno())
                    synced.append(name)
                    count += 1
                    if count % 5 == 0:
                        synced.remove(name)
                        os.rename(name, f'{name}.moved', src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT, errno.EROFS):
                    raise

        folder = os.open(drive.directory, os.O_RDONLY | os.O_DIRECTORY)
        threads = [threading.Thread(target=load, args=(number, folder)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2 + round_number * 0.05)
        drive.pull()
        drive.ends(66, 20)
        stop.set()
        for thread in threads:
            thread.join()
        os.close(folder)
        drive.fsck()
        drive.mount()
        for name in synced:
            equal(read(f'{drive.directory}/{name}'), name * 50, name)
        equal(os.listdir(drive.directory) != [], True)
        drive.umount()
        equal(os.listdir(drive.directory), [], 'written below the mount point')
        drive.fsck()
        note(f'round {round_number}: {len(synced)} synced files, all there')


@case('asked for in an orderly way: synced, unmounted, clean, nothing to replay')
def orderly():
    drive = Drive('orderly')
    drive.mount()
    write(f'{drive.directory}/f', 'not synced by anybody')
    result = drive.lanefs('detach')
    equal('clean' in result.stdout, True, result.stdout)
    drive.ends(66, 5)
    equal(drive.said('removed in an orderly way'), True, 'the log says so')
    equal('replayed' in drive.fsck().stdout, False, 'a journal to replay')
    drive.mount()
    equal(read(f'{drive.directory}/f'), 'not synced by anybody')
    # The same by the attention button, with a file open that then answers errors.
    file = os.open(f'{drive.directory}/f', os.O_RDWR)
    os.write(file, b'NOT')
    drive.emu('request')
    drive.ends(66, 10)
    fails(errno.ENOTCONN, os.write, file, b'x')
    os.close(file)
    equal('replayed' in drive.fsck().stdout, False, 'a journal to replay')
    drive.mount()
    equal(read(f'{drive.directory}/f'), 'NOT synced by anybody')
    drive.umount()


@case('a second mount of another drive is not concerned')
def others():
    first, second = Drive('first'), Drive('second')
    first.mount()
    second.mount()
    write(f'{second.directory}/f')
    first.pull()
    first.ends(66, 10)
    equal(read(f'{second.directory}/f'), 'content')
    write(f'{second.directory}/g', sync=True)
    equal(second.state(), 'mounted')
    second.umount()


@case('a power cut is a removal: what was synced survives')
def power_cut():
    drive = Drive('power', 'cache=4M')
    drive.mount()
    write(f'{drive.directory}/synced', 'synced', sync=True)
    for i in range(200):
        write(f'{drive.directory}/f{i}')
    drive.emu('cut', 'random', '7')
    drive.emu('power-cut')
    drive.ends(66, 30)
    drive.fsck()
    drive.mount()
    equal(read(f'{drive.directory}/synced'), 'synced')
    drive.umount()


# ---- on_removal=wait -------------------------------------------------------------------------------------------------
@case('pulled out and put back: programs only wait; status says so')
def wait():
    for reactors in (1, 2):
        drive = Drive(f'wait{reactors}')
        drive.mount(f'on_removal=wait=30,reactors={reactors}')
        write(f'{drive.directory}/before')
        os.mkdir(f'{drive.directory}/dir')
        drive.pull()
        status = drive.status()
        equal(status['state'], 'waiting')
        equal(status['device']['held'], True)
        equal(status['device']['state'], 'held')
        equal(status['device']['seconds_left'] <= 30, True)
        equal('WAITING' in drive.lanefs('status').stdout, True, 'for people')
        equal(read(f'{drive.directory}/before'), 'content')  # the kernel's, or the metadata cache's
        equal(os.listdir(f'{drive.directory}/dir'), [])
        writer = background('sh', '-c', 'echo during > "$1"/during && sync "$1"/during && mv "$1"/during "$1"/dir/moved', 'sh',
                            drive.directory)
        time.sleep(0.5)
        equal(writer.poll(), None, 'the writer waits')
        drive.lanefs('attach')
        equal(writer.wait(10), 0, 'the writer goes on')
        equal(read(f'{drive.directory}/dir/moved'), 'during\n')
        equal(drive.state(), 'mounted')
        equal(drive.status()['device']['holds'], 1)
        drive.umount()
        drive.fsck()


@case('pulled out and put back again and again under load: every byte is right, nothing failed')
def wait_load():
    drive = Drive('waitload')
    drive.mount('on_removal=wait=30,reactors=2')
    stop = threading.Event()
    failures = []
    progress = [0] * 4

    def load(number):
        path = f'{drive.directory}/load{number}'
        try:
            with open(path, 'w+b', buffering=0) as file:
                while not stop.is_set():
                    block = bytes([progress[number] % 251]) * 65536
                    os.pwrite(file.fileno(), block, (progress[number] % 64) * 65536)
                    if progress[number] % 8 == 0:
                        os.fsync(file.fileno())
                    if progress[number] % 16 == 5:
                        write(f'{path}.{progress[number]}', path)
                        os.rename(f'{path}.{progress[number]}', f'{path}.kept')
                    progress[number] += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(12):
        time.sleep(0.25)
        drive.pull()
        time.sleep(0.1)
        drive.lanefs('attach')
    stop.set()
    for thread in threads:
        thread.join(30)
    equal(failures, [])
    note(f'{sum(progress)} writes of 64 KiB through 12 removals')
    drive.umount()
    drive.fsck()
    drive.mount()
    for number in range(4):
        with open(f'{drive.directory}/load{number}', 'rb') as file:
            content = file.read()
        last = progress[number]
        for slot in range(min(last, 64)):
            index = last - 1 - (last - 1 - slot) % 64
            equal(content[slot * 65536:(slot + 1) * 65536], bytes([index % 251]) * 65536, f'file {number}, slot {slot}')
    drive.umount()


@case('who waits for a missing device can be killed; what was killed never happens')
def kill_waiting():
    drive = Drive('kill')
    drive.mount('on_removal=wait=30')
    for i in range(20):
        os.mkdir(f'{drive.directory}/d{i}')
    drive.remount('on_removal=wait=30')  # with a cold cache
    drive.pull()
    writers = [background('sh', '-c', 'echo x > "$1"/d$2/killed', 'sh', drive.directory, str(i)) for i in range(20)]
    readers = [background('ls', f'{drive.directory}/d{i}') for i in range(3)]
    syncers = [background('sync', drive.directory)]
    everybody = writers + readers + syncers
    time.sleep(1)
    waiting = [process for process in everybody if process.poll() is None]
    equal(len(waiting) >= 20, True, f'{len(waiting)} wait')
    for process in waiting:
        process.kill()
    begin = time.monotonic()
    for process in waiting:
        equal(process.wait(10), -signal.SIGKILL, 'killed')
    note(f'{len(waiting)} waiting processes died within {time.monotonic() - begin:.2f} s')
    equal(drive.status()['fuse']['interrupted'] > 0, True, 'requests answered EINTR')
    survivor = background('sh', '-c', 'echo y > "$1"/survivor', 'sh', drive.directory)
    time.sleep(0.3)
    drive.lanefs('attach')
    equal(survivor.wait(10), 0)
    for i in range(20):
        equal(os.listdir(f'{drive.directory}/d{i}'), [], f'd{i}')
    equal(read(f'{drive.directory}/survivor'), 'y\n')
    equal(drive.status()['fuse']['running'], 0, 'requests left')
    drive.umount()
    drive.fsck()


@case('not back in time: as unmount')
def wait_late():
    drive = Drive('late')
    drive.mount('on_removal=wait=2')
    write(f'{drive.directory}/f', 'synced', sync=True)
    drive.pull()
    writer = background('sh', '-c', 'echo x > "$1"/g', 'sh', drive.directory)
    took = drive.ends(66, 20)
    equal(2 <= took + 0.5 and took < 10, True, f'{took:.1f} s')
    equal(writer.wait(10) != 0, True, 'the writer got an error')
    drive.fsck()


@case('umount.lanefs, SIGTERM, lanefs unmount and lanefs detach end the wait at once')
def wait_ended():
    drive = Drive('ended')

    def umount():
        equal(run(UMOUNT, drive.directory, check=False, timeout=10).returncode, 2)

    def sigterm():
        os.kill(drive.pid, signal.SIGTERM)

    def unmount():
        equal(run(LANEFS, 'unmount', drive.directory, check=False, timeout=10).returncode, 1)

    def detach():
        equal(run(LANEFS, 'detach', drive.directory, check=False, timeout=10).returncode, 1)

    for end in (umount, sigterm, unmount, detach):
        drive.mount('on_removal=wait=60')
        write(f'{drive.directory}/f')
        file = os.open(f'{drive.directory}/f', os.O_RDWR)
        drive.pull()
        writer = background('sh', '-c', 'echo x > "$1"/g', 'sh', drive.directory)
        time.sleep(0.3)
        end()
        took = drive.ends(66, 10)
        equal(writer.wait(10) != 0, True, 'the writer got an error')
        os.close(file)
        note(f'{end.__name__}: {took:.1f} s')
        drive.fsck()


@case('an orderly removal under wait: detach, attach; nobody notices')
def wait_orderly():
    drive = Drive('waitorderly')
    drive.mount('on_removal=wait=30')
    write(f'{drive.directory}/f', 'before')
    equal('waits' in drive.lanefs('detach').stdout, True)
    equal(drive.state(), 'waiting')
    equal(run(LANEFS, 'attach', drive.directory).returncode, 0)
    write(f'{drive.directory}/g', sync=True)
    drive.emu('request')
    wait_for(lambda: drive.state() == 'waiting', 'waiting')
    drive.lanefs('attach')
    equal(read(f'{drive.directory}/f'), 'before')
    fails(errno.ENOENT, os.stat, f'{drive.directory}/nothing')
    equal(run(LANEFS, 'attach', drive.directory, check=False).returncode, 1, 'nothing is waited for')
    drive.umount()
    drive.fsck()


@case('only the same filesystem is taken back: others, old copies and ones mounted meanwhile are refused, and the wait goes on')
def imposters():
    drive = Drive('true')
    drive.mount('on_removal=wait=60')
    write(f'{drive.directory}/f', 'old', sync=True)
    drive.umount()
    old = f'{work_dir()}/old.img'
    shutil.copy(drive.path, old)
    drive.mount('on_removal=wait=60')
    write(f'{drive.directory}/f', 'new', sync=True)
    drive.pull()
    stranger = Image('stranger', '256M')
    meanwhile = f'{work_dir()}/meanwhile.img'
    shutil.copy(drive.path, meanwhile)
    folder = f'{work_dir()}/elsewhere'
    os.mkdir(folder)
    run(MOUNT, meanwhile, folder)
    run(UMOUNT, folder)
    for target, why in ((stranger.path, 'another filesystem'), (old, 'older'), (meanwhile, 'mounted elsewhere'),
                        (f'{work_dir()}/missing', 'no such file')):
        result = drive.lanefs('attach', f'emu:{target}', check=False)
        equal(result.returncode, 1, target)
        equal(why in result.stderr, True, result.stderr)
        equal(drive.state(), 'waiting')
    stranger.fsck()  # nobody has it any more
    copy = f'{work_dir()}/copy.img'
    shutil.copy(drive.path, copy)
    drive.lanefs('attach', f'emu:{copy}')  # the very same content elsewhere is the same device
    equal(read(f'{drive.directory}/f'), 'new')
    write(f'{drive.directory}/g', sync=True)
    drive.umount()
    run(FSCK, '-n', copy)
    for path in (old, meanwhile, copy):
        os.unlink(path)
    os.rmdir(folder)


@case('a bad spot of the medium is an EIO for what needs it')
def media_error():
    drive = Drive('media')
    drive.mount()
    write(f'{drive.directory}/f', 'x' * 8192, sync=True)
    drive.emu('rule', 'read:status=0x281:count=1')
    fd = os.open(f'{drive.directory}/f', os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 8192)
    fails(errno.EIO, os.preadv, fd, [buffer], 0)
    equal(os.preadv(fd, [buffer], 0), 8192)
    os.close(fd)
    drive.umount()
    drive.fsck()


@case('a controller that fails or is reset: nothing is lost, nothing ends')
def troubles():
    drive = Drive('troubles')
    drive.mount('on_removal=wait=30')
    for rule in ('any:fatal:count=1', 'write:delay=100ms:count=5'):
        drive.emu('rule', rule)
    equal('resets' not in drive.emu('rules').stdout, True)
    for i in range(5):
        write(f'{drive.directory}/f{i}', f'content {i}' * 1000)
        drive.lanefs('reset')
    os.sync()
    drive.emu('clear')
    for i in range(5):
        equal(read(f'{drive.directory}/f{i}'), f'content {i}' * 1000)
    device = drive.status()['device']
    equal(device['resets'] >= 5, True, f'{device}')
    identity = json.loads(drive.lanefs('identify', '--json').stdout)
    equal(identity['model'], 'lanefs emulated NVMe')
    equal(identity['cache_on'], False, 'the write cache is off under wait')
    drive.emu('health', '4')
    equal(drive.lanefs('health', check=False).returncode, 1, 'a critical warning')
    drive.umount()
    drive.fsck()


@case('the same option without such a device is a warning; commands about the device say that there is none')
def no_device():
    image = Image('plain', '128M')
    image.mount('on_removal=wait')
    with open(image.log) as log:
        equal('no effect' in log.read(), True, 'warned')
    for command in ('identify', 'health', 'reset', 'detach', 'attach'):
        result = run(LANEFS, command, image.directory, check=False)
        equal(result.returncode, 1, command)
        equal('NVMe driver' in result.stderr, True, result.stderr)
    equal(run(LANEFS, 'emu', image.directory, 'stats', check=False).returncode, 1)
    image.umount()


@case('commands and methods about the device say what is wrong, and by which status')
def wrong():
    drive = Drive('wrong')
    drive.mount()
    for words, status, text in ((('rule', 'nonsense'), 1, 'nonsense'), (('cut', 'sideways'), 1, 'mode is one of'),
                                (('resize', '0', '5'), 1, 'from 1 on'), (('resize', 'x', '5'), 1, 'nsid'),
                                (('health', '256'), 1, 'eight bits'), (('nothing',), 2, 'no such action'),
                                (('rule',), 2, 'words'), ((), 2, 'wanted')):
        result = drive.emu(*words, check=False)
        equal(result.returncode, status, words)
        equal(text in result.stderr, True, result.stderr)
    for command in ('attach', 'detach', 'identify', 'health', 'reset', 'emu'):
        equal('Usage' in run(LANEFS, command, '--help').stdout, True, command)
        equal(run(LANEFS, command, check=False).returncode, 2, command)
        equal(run(LANEFS, command, work_dir(), *(['stats'] if command == 'emu' else []), check=False).returncode, 3, command)
    for i in range(16):
        drive.emu('rule', f'read:delay=1us:skip={i}')
    equal('16 rules' in drive.emu('rule', 'flush:lie', check=False).stderr, True, 'full')
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f'/run/lanefs/{drive.pid}.sock')
        lines = connection.makefile('rw')
        # Pipelined: answers come in order although each waits for reactor 0.
        for number, (method, params) in enumerate((('emu_rule_add', {}), ('emu_rule_add', []), ('emu_rule_add', {'rule': 5}),
                                                   ('bdev_attach', {'target': 'x' * 200}), ('emu_set_cut', None),
                                                   ('nvme_health', {'what': 'ever'}), ('emu_stats', 7), ('bdev_list', {}))):
            lines.write(json.dumps({'jsonrpc': '2.0', 'id': number, 'method': method, 'params': params}) + '\n')
        lines.flush()
        for number in range(8):
            answer = json.loads(lines.readline())
            equal(answer['id'], number, 'order')
            equal(answer.get('error', {}).get('code'), -32602 if number < 5 else None, f'{answer}')
    # Whoever asks and leaves harms nobody.
    for _ in range(40):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f'/run/lanefs/{drive.pid}.sock')
            connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"nvme_reset"}\n')
    drive.lanefs('health')
    drive.umount()
    drive.fsck()


@case('a mount whose device goes away while it is being mounted fails; it does not wait')
def early():
    drive = Drive('early')
    begin = time.monotonic()
    result = run(MOUNT, f'{drive.target},rule=read:vanish:skip=2', drive.directory, '-o', 'on_removal=wait=60', check=False,
                 timeout=30)
    equal(result.returncode, 32, result.stderr)
    note(f'{time.monotonic() - begin:.1f} s: {result.stderr.strip()}')
    drive.fsck()


@case('mkfs and fsck whose drive vanishes at any command end at once, with an error')
def tools():
    drive = Drive('tools')
    ended = {0: 0, 1: 0, 4: 0, 8: 0}  # 4: the last block of a mkfs, the superblock, was missing
    for skip in range(0, 62, 3):
        for command, rule in (([MKFS, '-f', '-q'], 'any'), ([MKFS, '-f', '-q'], 'write'), ([FSCK, '-n'], 'read')):
            result = run(*command, f'emu:{drive.path},rule={rule}:vanish:skip={skip}', check=False, timeout=30)
            equal(result.returncode in ended, True, f'{command} after {skip} commands: {result.returncode}: {result.stderr}')
            equal(result.returncode == 0 or bool(result.stderr + result.stdout), True, 'it says why')
            ended[result.returncode] += 1
        run(MKFS, '-f', '-q', drive.target)
    note(f'by status: {ended}')
    equal(all(ended[status] for status in (0, 1, 8)), True, f'all ends were seen: {ended}')


if __name__ == '__main__':
    main()
