#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""How mounts come and go: through mount(8) and fstab, signals, lazily, while in use, by abort, by kill; and a control
socket that survives whatever is sent to it."""
import errno
import json
import mmap
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time

from lanefs_test import (BUILD, LANEFS, MOUNT, UMOUNT, Image, alive, case, equal, in_namespace, main, need, note, run,
                         wait_for, work_dir)


# ---- mount(8) and umount(8) ------------------------------------------------------------------------------------------
@case('mount -t lanefs and plain umount, which waits until the image is clean')
def mount8():
    image = Image('mount8', '256M')
    output = in_namespace(
        'mount -t lanefs "$1" "$2" -o noatime; findmnt -n -o FSTYPE,SOURCE,OPTIONS "$2"; cat /run/mount/utab; '
        'cp -a /usr/include/linux "$2"/; umount "$2"; "$3"/mkfs/fsck.lanefs -n "$1"; ! findmnt "$2"; '
        '! grep -q "$2" /run/mount/utab', image.path, image.directory, BUILD)
    note(output)
    equal('fuse.lanefs' in output, True, 'type')
    equal('noatime' in output, True, 'noatime')


@case('an fstab line: mount DIR, mount -a, umount DIR')
def fstab():
    image = Image('fstab', '256M')
    with open(f'{work_dir()}/etc-fstab', 'w') as file:
        file.write(f'{image.path} {image.directory} lanefs noatime,nofail,_netdev,x-systemd.automount,defaults 0 2\n')
    in_namespace('mount --bind "$3" /etc/fstab; mount "$2"; findmnt "$2"; touch "$2"/f; umount "$2"; mount -a; '
                 'test -e "$2"/f; umount "$2"; "$4"/mkfs/fsck.lanefs -n "$1"', image.path, image.directory,
                 f'{work_dir()}/etc-fstab', BUILD)


@case('mount -f only pretends; a failed mount gives its status through mount(8)')
def fake():
    image = Image('fake', '128M')
    in_namespace('mount -f -t lanefs "$1" "$2"; ! findmnt "$2"; status=0; '
                 'mount -t lanefs "$1" "$2" -o nonsense || status=$?; test $status = 1; status=0; '
                 'mount -t lanefs "$1"x "$2" || status=$?; test $status = 32', image.path, image.directory)


@case('umount and mount again, twenty times without a pause')
def again():
    image = Image('again', '256M')
    for i in range(20):
        run(MOUNT, image.path, image.directory)
        with open(f'{image.directory}/f{i}', 'w') as file:
            file.write(str(i))
        image.pid = image.status()['pid']
        # The kernel's own umount returns early: the next mount has to wait for the daemon.
        run('umount', '-i', image.directory) if i % 2 else run(UMOUNT, image.directory)
    wait_for(lambda: not alive(image.pid), 'ended')
    image.fsck()
    image.mount(foreground=False)
    equal(len(os.listdir(image.directory)), 20)
    image.umount()


# ---- signals ---------------------------------------------------------------------------------------------------------
def signalled(number):
    image = Image(f'signal{number}', '256M')
    image.mount()
    with open(f'{image.directory}/f', 'w') as file:
        file.write('written')
    os.kill(image.pid, number)
    equal(image.process.wait(20), 0, 'exit status')
    image.process, image.pid = None, 0
    equal(image.mounted(), False, 'mounted')
    image.fsck()
    image.mount(foreground=False)
    with open(f'{image.directory}/f') as file:
        equal(file.read(), 'written')
    image.umount()


@case('SIGTERM unmounts cleanly')
def sigterm():
    signalled(signal.SIGTERM)


@case('SIGINT unmounts cleanly')
def sigint():
    signalled(signal.SIGINT)


@case('SIGTERM while files are open: detached, ends when they are closed')
def sigterm_busy():
    image = Image('busy', '256M')
    image.mount()
    file = open(f'{image.directory}/f', 'w+')
    file.write('before')
    file.flush()
    os.kill(image.pid, signal.SIGTERM)
    wait_for(lambda: not image.mounted(), 'detached')
    file.write(' after')
    file.flush()
    os.fsync(file.fileno())
    equal(image.process.poll(), None, 'still serving')
    states = {status['directory']: status['state'] for status in json.loads(run(LANEFS, 'status', '--json').stdout)}
    equal(states[image.directory], 'detached', 'state')
    file.close()
    equal(image.process.wait(20), 0, 'exit status')
    image.process, image.pid = None, 0
    image.fsck()
    image.mount(foreground=False)
    with open(f'{image.directory}/f') as file:
        equal(file.read(), 'before after')
    image.umount()


@case('a second SIGTERM ends at once; the image is consistent')
def sigterm_twice():
    image = Image('twice', '256M')
    image.mount()
    file = open(f'{image.directory}/f', 'w+')
    file.write('synced')
    file.flush()
    os.fsync(file.fileno())
    os.kill(image.pid, signal.SIGTERM)
    wait_for(lambda: not image.mounted(), 'detached')
    os.kill(image.pid, signal.SIGTERM)
    equal(image.process.wait(20), 67, 'exit status: forced')
    image.process, image.pid = None, 0
    try:
        file.seek(0)
        file.read()
        raise AssertionError('the open file still works')
    except OSError as error:
        note(f'the open file says {error.strerror}')
    image.fsck()
    image.mount(foreground=False)
    with open(f'{image.directory}/f') as again_file:
        equal(again_file.read(), 'synced')
    image.umount()


@case('umount -l and umount -f by root')
def umount_flags():
    image = Image('flags', '256M')
    image.mount(foreground=False)
    file = open(f'{image.directory}/f', 'w')
    run(UMOUNT, '-l', image.directory)
    equal(image.mounted(), False)
    equal(alive(image.pid), True, 'serving the open file')
    file.write('late')
    file.close()
    wait_for(lambda: not alive(image.pid), 'ended')
    image.fsck()
    image.mount(foreground=False)
    with open(f'{image.directory}/f') as again_file:
        equal(again_file.read(), 'late')
    run(UMOUNT, '-f', image.directory)
    wait_for(lambda: not alive(image.pid), 'ended')
    image.fsck()


@case('a dead mount makes room for a new one')
def dead_mount():
    image = Image('dead', '256M')
    image.mount(foreground=False)
    with open(f'{image.directory}/f', 'w') as file:
        file.write('content')
        file.flush()
        os.fsync(file.fileno())
    os.kill(image.pid, signal.SIGKILL)
    wait_for(lambda: not alive(image.pid), 'dead')

    def not_connected():
        try:
            os.stat(image.directory)
        except OSError as error:  # ECONNABORTED: it is dying
            return error.errno == errno.ENOTCONN
        raise AssertionError('a mount without a daemon answers')
    wait_for(not_connected, 'not connected: nobody writes under the mount point by mistake')
    result = run(LANEFS, 'status', image.directory, check=False)
    equal(result.returncode, 3, 'exit status of lanefs status')
    image.mount(foreground=False)
    with open(f'{image.directory}/f') as file:
        equal(file.read(), 'content')
    with open('/proc/self/mountinfo') as file:
        equal(sum(line.split()[4] == image.directory for line in file), 1, 'mounts at this place')
    image.umount()
    image.fsck()


@case('an aborted connection ends the daemon, the image clean')
def abort():
    image = Image('abort', '256M')
    image.mount(foreground=False)
    with open(f'{image.directory}/f', 'w') as file:
        file.write('x')
    folder = '/sys/fs/fuse/connections'
    connection = f'{folder}/{os.minor(os.stat(image.directory).st_dev)}/abort'
    ours = not os.path.exists(connection)
    if ours:
        run('mount', '-t', 'fusectl', 'fusectl', folder)
    try:
        with open(connection, 'w') as file:
            file.write('1')
    finally:
        if ours:
            run('umount', folder)
    wait_for(lambda: not alive(image.pid), 'ended')
    run('umount', '-l', image.directory, check=False)
    image.fsck()


@case('unmounting while programs work')
def unmount_under_load():
    image = Image('load', '512M')
    image.mount('reactors=2', foreground=False)
    stop = threading.Event()

    def work(number):
        i = 0
        while not stop.is_set():
            i += 1
            try:
                os.makedirs(f'{image.directory}/w{number}', exist_ok=True)
                with open(f'{image.directory}/w{number}/f{i % 100}', 'wb') as file:
                    file.write(bytes(i % 50000))
            except OSError:
                return
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    run(UMOUNT, '-l', image.directory)
    # Whoever still writes now writes under the mount point.
    stop.set()
    for thread in threads:
        thread.join()
    wait_for(lambda: not alive(image.pid), 'ended')
    image.fsck()
    for number in range(4):
        shutil.rmtree(f'{image.directory}/w{number}', ignore_errors=True)


# ---- the control socket ----------------------------------------------------------------------------------------------
def connect(pid):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f'/run/lanefs/{pid}.sock')
    connection.settimeout(10)
    return connection


def ask(connection, request):
    connection.sendall((request if isinstance(request, bytes) else json.dumps(request).encode()) + b'\n')
    answer = b''
    while not answer.endswith(b'\n'):
        got = connection.recv(65536)
        if not got:
            return None
        answer += got
    return json.loads(answer)


@case('control socket: methods, errors, permissions')
def control():
    image = Image('control', '256M')
    image.mount(foreground=False)
    path = f'/run/lanefs/{image.pid}.sock'
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, 'mode of the socket')
    equal(stat.S_IMODE(os.stat('/run/lanefs').st_mode), 0o700, 'mode of the folder')
    connection = connect(image.pid)
    call = {'jsonrpc': '2.0', 'id': 7}
    answer = ask(connection, dict(call, method='status'))
    equal((answer['id'], answer['result']['directory']), (7, image.directory))
    equal(len(answer['result']['fuse']['features']) > 5, True, 'negotiated features are shown')
    equal(ask(connection, dict(call, id='text', method='version'))['id'], 'text')
    equal('device' in ask(connection, dict(call, method='stats'))['result'], True)
    equal(ask(connection, dict(call, method='nonsense'))['error']['code'], -32601)
    equal(ask(connection, dict(call, method='log_level', params={'level': 'loud'}))['error']['code'], -32602)
    equal(ask(connection, dict(call, method='log_level', params={'level': 'debug'}))['result']['level'], 'debug')
    equal(ask(connection, b'{"jsonrpc": "2.0", "id": 1')['error']['code'], -32700)
    equal(ask(connection, b'[1, 2]')['error']['code'], -32600)
    equal(ask(connection, b'{"id": 1, "method": "status"}')['error']['code'], -32600)
    equal(ask(connection, b'[' * 100 + b']' * 100)['error']['code'], -32700)
    equal(ask(connection, b'\xff\xfe\x00')['error']['code'], -32700)
    # A notification is not answered; the next request is.
    connection.sendall(b'{"jsonrpc": "2.0", "method": "version"}\n')
    equal(ask(connection, dict(call, method='version'))['id'], 7)
    # Several lines at once are answered in order.
    connection.sendall(b''.join(json.dumps(dict(call, id=i, method='version')).encode() + b'\n' for i in range(50)))
    answers = connection.makefile()
    equal([json.loads(answers.readline())['id'] for _ in range(50)], list(range(50)))
    connection.close()
    image.umount()
    equal(os.path.exists(path), False, 'the socket goes with the daemon')


@case('control socket: floods, endless lines and slow clients do no harm')
def control_abuse():
    image = Image('abuse', '256M')
    image.mount(foreground=False)
    memory = run('grep', 'VmRSS', f'/proc/{image.pid}/status').stdout
    endless = connect(image.pid)
    try:
        for _ in range(100):
            endless.sendall(b'x' * 65536)
        raise AssertionError('a line without an end was taken')
    except OSError:
        pass  # dropped
    idle = [connect(image.pid) for _ in range(40)]
    equal(ask(connect(image.pid), {'jsonrpc': '2.0', 'id': 1, 'method': 'version'})['id'], 1)
    deaf = connect(image.pid)
    deaf.settimeout(1)
    request = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'stats'}).encode() + b'\n'
    try:
        for _ in range(5000):
            deaf.sendall(request)
    except OSError:
        pass  # blocked: we never read
    for _ in range(300):
        connection = connect(image.pid)
        connection.sendall(os.urandom(200) + b'\n')
        connection.close()
    equal(image.status()['state'], 'mounted', 'after all that')
    with open(f'{image.directory}/f', 'w') as file:
        file.write('the mount works')
    note(f'{memory.strip()} before, {run("grep", "VmRSS", f"/proc/{image.pid}/status").stdout.strip()} after')
    for connection in idle + [deaf, endless]:
        connection.close()
    image.umount()
    image.fsck()


@case('lanefs: status, stats, log-level, version, help, unknown commands')
def command():
    image = Image('command', '256M', mkfs=('-L', 'mylabel'))
    image.mount('reactors=2', foreground=False)
    text = run(LANEFS, 'status', image.directory).stdout
    note(text)
    for word in (image.path, image.directory, 'mylabel', 'journal', 'cache', 'reactor 1', 'features', 'errors', 'none'):
        equal(word in text, True, f'{word!r} in lanefs status')
    equal(image.directory in run(LANEFS, 'status').stdout, True, 'without DIR: all mounts')
    text = run(LANEFS, 'stats', image.directory).stdout
    note(text)
    equal('GETATTR' in text or 'INIT' in text, True, 'operations in lanefs stats')
    equal(run(LANEFS, 'log-level', image.directory, 'debug').stdout, 'debug\n')
    equal(run(LANEFS, 'log-level', image.directory).stdout, 'debug\n')
    for arguments, status in ((['nonsense'], 2), ([], 2), (['status', '--wrong'], 2), (['status', '/proc'], 3),
                              (['log-level', image.directory, 'loud'], 1)):
        result = run(LANEFS, *arguments, check=False)
        equal(result.returncode, status, f'lanefs {arguments}: {result.stderr}')
    equal(run(LANEFS, 'unmount', image.directory).returncode, 0)
    wait_for(lambda: not alive(image.pid), 'ended')
    image.fsck()
    equal(run(LANEFS, 'version').returncode, 0)


@case('mount options take effect')
def mount_options():
    image = Image('options', '256M')

    def kernel_flags():
        with open('/proc/self/mounts') as file:
            return next(line.split()[3].split(',') for line in file if line.split()[1] == image.directory)

    image.mount('reactors=2,cache=8M,max_background=128,commit=5,noatime,nosuid,nodev,noexec,x-anything=1,nofail,comment=a b')
    status = image.status()
    equal(len(status['reactors']), 2)
    equal(status['cache']['limit_bytes'], 8 << 20)
    equal(status['fuse']['max_background'], 128)
    for flag in ('rw', 'noatime', 'nosuid', 'nodev', 'noexec', 'allow_other', 'default_permissions'):
        equal(flag in kernel_flags(), True, f'{flag} in {kernel_flags()}')
    with open('/run/mount/utab') as file:
        equal('x-anything=1' in file.read(), True, 'x- options are kept for others')
    shutil.copy2('/bin/true', image.directory)
    equal(run('sh', '-c', f'{image.directory}/true', check=False).returncode, 126, 'noexec')
    image.remount('lcores="0@0,1@0,2@0"')
    equal([reactor['core'] for reactor in image.status()['reactors']], [0, 0, 0])
    run(f'{image.directory}/true')
    image.remount('ro,poll')
    equal('ro' in kernel_flags(), True)
    equal(image.status()['filesystem']['read_only'], True)
    equal(image.status()['reactors'][0]['sleeps'], 0, 'poll: no sleep')
    image.umount()
    image.fsck()


@case('access times: relatime, noatime, strictatime')
def access_times():
    image = Image('atime', '256M')
    path = f'{image.directory}/f'

    def atime_after_read(options):
        image.mount(options)
        with open(path, 'wb') as file:
            file.write(b'x')
        old = time.time_ns() - 3 * 86400 * 10 ** 9
        later = time.time_ns() + 3600 * 10 ** 9  # than mtime and ctime: utime moves ctime to now
        moved = []
        for atime, mtime in ((old, old - 10 ** 9), (later, old)):
            os.utime(path, ns=(atime, mtime))
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            os.preadv(fd, [mmap.mmap(-1, 4096)], 0)
            os.close(fd)
            moved.append(os.stat(path).st_atime_ns != atime)
        image.umount()
        return moved
    # [not read for days, read since it last changed]
    equal(atime_after_read(''), [True, False], 'relatime')
    equal(atime_after_read('noatime'), [False, False], 'noatime')
    equal(atime_after_read('strictatime'), [True, True], 'strictatime')


# ---- ordinary users ---------------------------------------------------------------------------------------------------
@case('an ordinary user mounts and unmounts through fusermount3')
def user():
    need('fusermount3', 'setpriv')
    image = Image('user', '256M')
    os.chmod(work_dir(), 0o755)
    programs = f'{work_dir()}/programs'
    os.mkdir(programs)
    for program in (MOUNT, UMOUNT, LANEFS):
        shutil.copy2(program, programs)
    for path in (image.path, image.directory):
        os.chown(path, 65534, 65534)
    nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all', 'env', '-u',
              'XDG_RUNTIME_DIR']
    run(*nobody, f'{programs}/mount.lanefs', image.path, image.directory)
    image.pid = json.loads(run(*nobody, f'{programs}/lanefs', 'status', image.directory, '--json').stdout)['pid']
    run(*nobody, 'sh', '-c', f'ls -la {image.directory}; df {image.directory}')
    run(*nobody, f'{programs}/umount.lanefs', image.directory)
    wait_for(lambda: not alive(image.pid), 'ended')
    image.fsck()


if __name__ == '__main__':
    main()
