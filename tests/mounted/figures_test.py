# SPDX-License-Identifier: BSD-3-Clause
"""Goal: the figures that an administrator sees are those of the work that was done.
Method: known work on a mount; lanefs top (as text, and on a pseudo terminal), stats (JSON, Prometheus) and status are read
and compared with it, also while the daemon stands still, and when it dies.
"""
import errno
import fcntl
import json
import math
import os
import re
import signal
import subprocess
import time

from lanefs_test import LANEFS, MIB, SOURCE, UMOUNT, Image, case, equal, fails, main, run, wait_for
from terminal import Terminal


def top_start(*arguments):
    return subprocess.Popen([LANEFS, 'top', '--batch', *map(str, arguments)], stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def of_all(*arguments):
    """Of every mount: others that are there may stand still or be broken, which gives another status."""
    return run(LANEFS, *arguments, check=False).stdout


def create(directory, count, prefix='f'):
    for i in range(count):
        os.close(os.open(f'{directory}/{prefix}{i}', os.O_CREAT | os.O_WRONLY))


def table(text, title):
    """The rows below this heading, every cell by the title of its column. Names may have blanks, other cells only units."""
    rows, titles = [], None
    for line in text.split('\n'):
        if line.startswith(title):
            titles = re.findall(r'[A-Z][A-Z0-9/]*(?: SEC)?', line)
        elif titles and (not line or line.split()[0].isupper() and titles[0] != 'REQUEST'):
            titles = None
        elif titles:
            cells = re.findall(r'(?:[0-9.]+[kMGT]?%?|-)(?: (?:[KMGT]?i?B|ns|us|ms|s)\b)?(?= |$)', line)[-(len(titles) - 1):]
            rows.append(dict(zip(titles, [line.split()[0], *cells])))
    return rows


@case('top --batch sees 1000 creates, and who made them')
def _():
    image = Image('top')
    other = Image('other', '128M')
    image.mount('reactors=2')
    other.mount()
    top = top_start('--interval', 0.5, '--count', 8)
    before = ''
    while not before.endswith('\n\n'):  # the first look is over
        line = top.stdout.readline()
        equal(bool(line), True, 'lanefs top goes on')
        before += line
    create(image.directory, 1000)
    with open(f'{image.directory}/data', 'wb', buffering=0) as file:
        for _ in range(20):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    out = before + top.stdout.read()  # communicate() would lose what readline has read ahead
    equal((top.wait(60), top.stderr.read()), (0, ''), 'lanefs top --batch')
    lines = [line.split() for line in out.split('\n')]
    created = [int(words[2]) for words in lines if words[:2] == ['CREATE', image.directory]]
    equal(sum(created), 1001, 'CREATE requests that top saw')
    equal(['CREATE', other.directory] in [words[:2] for words in lines], False, 'creates on the other mount')
    equal(len(re.findall(r'^MOUNT ', out, re.M)), 8, 'looks')
    equal(len(re.findall(rf'^{image.directory} #1 ', out, re.M)), 8, 'rows of the second reactor')
    rates = [row['WRITE/S'] for row in table(out, 'MOUNT') if row['MOUNT'] == image.directory]
    equal(any('MiB' in rate for rate in rates), True, f'bandwidth: {rates}')
    writes = [row for row in table(out, 'DEVICE') if row['DEVICE'] == image.target]
    equal((len(writes), any(row['WRITES/S'] != '0' for row in writes)), (8, True), 'writes of the device')
    busy = [row['WRITE/S'] for row in table(out, 'MOUNT') if row['MOUNT'] == other.directory]
    equal(set(busy), {'0 B'}, 'bandwidth of the idle mount')
    text = run(LANEFS, 'top', '--batch', '--count', 1, '--interval', 0.1, '--view', 'mounts', image.directory).stdout
    equal((image.directory in text, other.directory in text, 'REACTOR' in text), (True, False, False), 'one mount, one view')
    other.umount()
    image.umount()


@case('top: wrong usage, no terminal, nothing mounted there')
def _():
    image = Image('usage', '128M')
    image.mount()
    for arguments, status in ((['--interval', '0'], 2), (['--interval'], 2), (['--count', 'x'], 2), (['--view', 'all'], 2),
                              (['--nonsense'], 2), (['a', 'b'], 2), ([], 2), (['--batch', '/proc'], 3), (['--batch', '/none'], 3)):
        result = run(LANEFS, 'top', *arguments, check=False)
        equal((result.returncode, result.stderr.count('\n')), (status, 1), f'{arguments}: {result.stderr}')
    image.umount()


@case('top --batch: a daemon that stands still is shown so, one that dies ends the watch of its mount')
def _():
    image = Image('still', '128M')
    image.mount()
    os.kill(image.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        out = run(LANEFS, 'top', '--batch', '--count', 2, '--interval', 0.1, '--view', 'mounts').stdout
        took = time.monotonic() - began
    finally:
        os.kill(image.pid, signal.SIGCONT)
    equal(f'process {image.pid} (no answer)' in out, True, out)
    equal(took < 5, True, f'{took} s for two looks')
    top = top_start('--interval', 0.2, image.directory)
    time.sleep(0.6)
    os.kill(image.pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(image.pid, signal.SIGCONT)
    time.sleep(0.6)
    image.kill()
    out, err = top.communicate(timeout=30)
    equal((top.returncode, err.count('\n')), (3, 1), err)
    for words in (f'{image.directory} (no answer)', f'{image.directory} (ended)'):
        equal(words in out, True, f'{words} in: {out}')


def on_screen(columns, lines):
    image = Image(f'screen{columns}', '128M')
    image.mount('reactors=2')
    terminal = Terminal([LANEFS, 'top', '--interval', '0.2', image.directory], columns, lines)
    try:
        terminal.wait_for('every 0.2 s')
        terminal.wait_for(lambda text: 'MOUNT' in text and image.directory[-8:] in text)
        equal(max(map(len, terminal.text().split('\n'))) < columns, True, 'the last column is left free')
        equal('P99' in terminal.text(), columns > 60, 'columns that fit')
        terminal.press('3')
        terminal.wait_for(lambda text: 'REACTOR' in text and '#1' in text)
        terminal.press('2')
        terminal.wait_for(lambda text: 'DEVICE' in text and image.path[-8:] in text)
        create(image.directory, 50)
        terminal.press('4')
        terminal.wait_for('REQUEST')
        wait_for(lambda: [create(image.directory, 20, f'x{time.monotonic()}'), terminal.read(0.1)] and
                 'CREATE' in terminal.text(), 'creates on the screen')
        terminal.press('1ssss')
        terminal.wait_for('mounts by P99')
        terminal.press('+')
        terminal.wait_for('every 0.5 s')
        terminal.resize(60, 15)
        terminal.wait_for('MOUNT')
        terminal.resize(7, 2)
        terminal.read(1)
        terminal.resize(columns, lines)
        terminal.wait_for(lambda text: 'MOUNT' in text and image.directory[-8:] in text)
        image.umount()
        terminal.wait_for('the daemon has ended')
        terminal.press('q')
        equal(terminal.wait_end(), 0, 'status of lanefs top')
    finally:
        terminal.close()


for size in ((80, 24), (40, 10)):
    case(f'top on a terminal of {size[0]}x{size[1]}: views, order, interval, new sizes, a mount that goes')(
        lambda size=size: on_screen(*size))


# ---- Prometheus -----------------------------------------------------------------------------------------------------
_NAME = r'[a-zA-Z_:][a-zA-Z0-9_:]*'
_SAMPLE = re.compile(rf'({_NAME})(?:\{{(.*)\}})? (\S+)$')
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def exposition(text):
    """The text format 0.0.4, strictly: {family: (type, {(name, labels): value})}."""
    families, current = {}, None
    equal(text.endswith('\n'), True, 'last line ends')
    for line in text.split('\n')[:-1]:
        if line.startswith('# HELP '):
            current = line.split(' ')[2]
            equal(current in families, False, f'second HELP of {current}')
            families[current] = [None, {}]
        elif line.startswith('# TYPE '):
            name, kind = line.split(' ')[2:]
            equal(name, current, 'TYPE follows HELP')
            equal(kind in ('counter', 'gauge', 'histogram'), True, line)
            families[name][0] = kind
        else:
            match = _SAMPLE.match(line)
            equal(bool(match), True, f'sample: {line}')
            name, inside, value = match.groups()
            labels, place = {}, 0
            while inside and place < len(inside):
                label = _LABEL.match(inside, place)
                equal(bool(label), True, f'labels: {line}')
                labels[label.group(1)] = label.group(2)
                place = label.end()
            kind, samples = families[current]
            base = re.sub(r'_(bucket|sum|count)$', '', name) if kind == 'histogram' else name
            equal(base, current, 'samples stand below their family')
            key = (name, tuple(sorted(labels.items())))
            equal(key in samples, False, f'twice: {line}')
            samples[key] = float(value.replace('+Inf', 'inf'))
    return families


def check_histogram(name, samples):
    series = {}
    for (sample, labels), value in samples.items():
        rest = tuple(pair for pair in labels if pair[0] != 'le')
        part = series.setdefault(rest, {'buckets': []})
        if sample.endswith('_bucket'):
            part['buckets'].append((float(dict(labels)['le'].replace('+Inf', 'inf')), value))
        else:
            part[sample[len(name) + 1:]] = value
    for labels, part in series.items():
        edges, counts = zip(*part['buckets'])
        equal(list(edges), sorted(edges), f'{name}{labels}: edges')
        equal(list(counts), sorted(counts), f'{name}{labels}: counts are cumulative')
        equal((edges[-1], counts[-1]), (math.inf, part['count']), f'{name}{labels}: +Inf is the count')
        equal(part['sum'] >= 0 and part['count'] >= 0, True, f'{name}{labels}: sum')


@case('stats --prometheus: strictly the text format; base units; the work that was done')
def _():
    image = Image('prom', '256M')
    odd = Image('odd"na\\me', '128M')
    image.mount('reactors=2')
    odd.mount()
    create(image.directory, 100)
    with open(f'{image.directory}/data', 'wb', buffering=0) as file:
        file.write(b'x' * 3 * MIB)
        os.fsync(file.fileno())
    families = exposition(of_all('stats', '--prometheus'))
    for name, (kind, samples) in families.items():
        equal(re.match(rf'lanefs_{_NAME}$', name) is not None, True, name)
        equal(name.endswith('_total'), kind == 'counter', f'{name}: counters, and only they, end in _total')
        equal(bool(samples), True, f'{name} has samples')
        equal(re.search('_(ns|ms|us|kb|mb|milliseconds)(_|$)', name), None, f'{name}: base units')
        if kind == 'histogram':
            check_histogram(name, samples)
        for (_, labels), value in samples.items():
            equal({'mount', 'device'} <= {pair[0] for pair in labels}, True, f'{name}{labels}')
            equal(value >= 0, True, f'{name}{labels} = {value}')

    def value(name, **labels):
        labels.update(mount=image.directory, device=image.target)
        return families[re.sub('_(count|sum|bucket)$', '', name)][1][name, tuple(sorted(labels.items()))]

    equal(value('lanefs_requests_total', request='CREATE'), 101)
    equal(value('lanefs_request_bytes_total', request='WRITE'), 3 * MIB)
    equal(value('lanefs_request_latency_seconds_count', request='CREATE'), 101)
    creates = image.stats()['fuse']['CREATE']
    equal(abs(value('lanefs_request_latency_seconds_sum', request='CREATE') - creates['total_ns'] / 1e9) < 1e-8, True, 'seconds')
    for edge in (10, 16, 34):
        below = sum(count for upper, count in creates['latency_ns'] if upper <= 1 << edge)
        equal(value('lanefs_request_latency_seconds_bucket', request='CREATE', le=f'{(1 << edge) / 1e9:.9g}'), below, edge)
    equal(value('lanefs_filesystem_size_bytes'), 256 * MIB)
    equal(value('lanefs_device_bytes_total', operation='write') >= 3 * MIB, True)
    equal(value('lanefs_reactor_turns_total', reactor='1') > 0, True)
    equal(any(dict(labels)['mount'] == odd.directory.replace('\\', '\\\\').replace('"', '\\"')
              for _, labels in families['lanefs_uptime_seconds'][1]), True, 'names are quoted')
    one = exposition(run(LANEFS, 'stats', '--prometheus', image.directory).stdout)
    equal(len(one['lanefs_uptime_seconds'][1]), 1, 'with DIR: one mount')
    odd.umount()
    image.umount()


# ---- stats and status -----------------------------------------------------------------------------------------------
@case('stats: histograms hold every operation, and their mean')
def _():
    image = Image('hist', '256M')
    image.mount()
    create(image.directory, 200)
    for name, operation in image.stats()['fuse'].items():
        pairs = operation['latency_ns']
        if name in ('FORGET', 'BATCH_FORGET', 'INTERRUPT'):
            continue  # they have no answer, and so no latency
        equal(sum(count for _, count in pairs), operation['count'], f'{name}: counts in the histogram')
        equal([edge for edge, _ in pairs], sorted({edge for edge, _ in pairs}), f'{name}: edges rise')
        upper = sum(edge * count for edge, count in pairs)
        equal(operation['total_ns'] <= upper, True, f'{name}: total below the upper edges')
        equal(operation['total_ns'] * 1.34 + 4 * operation['count'] >= upper, True, f'{name}: and near to them')
    image.umount()


def fields(value):
    """Names of fields, at any depth, but for those of kernel requests."""
    if isinstance(value, list):
        return set().union(*map(fields, value)) if value else set()
    if isinstance(value, dict):
        return set(value).union(*map(fields, value.values())) if value else set()
    return set()


@case('lanefs-rpc(7) names every field of status and stats')
def _():
    image = Image('fields', '256M')
    image.target = f'emu:{image.path}'
    image.mount()
    create(image.directory, 3)
    with open(f'{SOURCE}/doc/man/lanefs-rpc.7') as file:
        text = file.read()
    known = set(re.findall(r'\\fB([a-z_]+)\\fR', text))
    for line in re.findall(r'^\.B (.*)', text, re.M):
        known |= set(re.split('[ ,.]+', line))
    known |= set(re.findall(r'^\.SS ([a-z]+)', text, re.M))
    for answer in (image.status(), image.stats()):
        missing = sorted(name for name in fields(answer) - known if not name.isupper() and not name.startswith('COPY_'))
        equal(missing, [], 'fields that the manual does not name')
    image.umount()


@case('status: files open, requests, reserved space, options; a line per mount without DIR')
def _():
    image = Image('status', '256M')
    image.mount('lcores=0@0:1@0,noatime,discard,commit=7,cache=8M')
    files = [open(f'{image.directory}/open{i}', 'w') for i in range(5)]
    status = image.status()
    equal(status['fuse']['open_files'], 5)
    for file in files[:3]:
        file.close()
    wait_for(lambda: image.status()['fuse']['open_files'] == 2, 'two files open')
    options = set(status['options'].split(','))
    equal({'rw', 'noatime', 'discard', 'commit=7', 'cache=8192K', 'lcores=0@0:1@0', 'allow_other'} <= options, True, options)
    equal('relatime' in options, False, 'relatime under noatime')
    figures = os.statvfs(image.directory)
    filesystem = status['filesystem']
    equal(filesystem['free_blocks'], figures.f_bfree, 'free blocks')
    equal(filesystem['free_blocks'] - filesystem['reserved_blocks'], figures.f_bavail, 'less the reserved ones')
    equal(filesystem['used_inodes'], 6)
    equal(status['device']['kind'], 'emulated NVMe' if image.target.startswith('emu:') else 'file')
    equal(status['errors']['error'], 0)
    text = run(LANEFS, 'status', image.directory).stdout
    for word in ('2 files open', 'reserved', 'commit=7', 'errors     none', 'durable to', 'core '):
        equal(word in text, True, f'{word!r} in {text}')
    lines = [line for line in of_all('status').split('\n') if f' on {image.directory}: ' in line]
    equal(len(lines), 1, 'lines of this mount')
    equal('mounted' in lines[0] and 'used' in lines[0] and str(image.pid) in lines[0], True, lines[0])
    files[3].close()
    files[4].close()
    image.umount()


@case('status shows when a filesystem stopped, and why, also to the next mount')
def _():
    image = Image('earlier', '256M')
    image.target = f'emu:{image.path}'
    image.mount()
    before = int(time.time())
    run(LANEFS, 'emu', image.directory, 'rule', 'flush:status=0x4006')
    create(image.directory, 10)
    fd = os.open(image.directory, os.O_RDONLY)
    fails(errno.EIO, os.fsync, fd)
    os.close(fd)
    wait_for(lambda: run(LANEFS, 'status', image.directory, check=False).returncode == 1, 'stopped')
    run(LANEFS, 'emu', image.directory, 'clear')
    run(UMOUNT, image.directory, check=False)
    equal(image.process.wait(30), 65, 'exit status of the daemon')
    image.process, image.pid = None, 0
    image.mount()
    result = run(LANEFS, 'status', image.directory, check=False)
    equal((result.returncode, 'on record from' in result.stdout), (1, True), result.stdout)
    errors = json.loads(run(LANEFS, 'status', image.directory, '--json', check=False).stdout)['errors']
    equal((errors['stopped'], errors['earlier'], errors['count'], before <= errors['time'] <= time.time() + 1),
          (0, True, 1, True), errors)
    image.umount()


@case('status shows that a filesystem was shut down')
def _():
    image = Image('stopped', '256M')
    image.mount()
    before = int(time.time())
    create(image.directory, 10)
    fd = os.open(image.directory, os.O_RDONLY)
    fcntl.ioctl(fd, 0x8004587d, b'\0\0\0\0')  # FS_IOC_SHUTDOWN
    os.close(fd)
    result = run(LANEFS, 'status', image.directory, check=False)
    equal(result.returncode, 1, 'exit status of lanefs status')
    equal('ERRORS' in result.stdout and 'stopped' in result.stdout, True, result.stdout)
    errors = json.loads(run(LANEFS, 'status', image.directory, '--json', check=False).stdout)['errors']
    equal(errors['stopped'] != 0 and before <= errors['time'] <= time.time() + 1, True, errors)
    equal('STOPPED' in run(LANEFS, 'status', check=False).stdout, True, 'in the line of the mount')
    image.kill()


@case('trim: gives back what was deleted, in a range, and refuses what makes no sense')
def _():
    image = Image('trim', '512M')
    image.mount()
    with open(f'{image.directory}/data', 'wb', buffering=0) as file:
        file.write(os.urandom(64 * MIB))
        os.fsync(file.fileno())
    full = os.stat(image.path).st_blocks * 512
    os.unlink(f'{image.directory}/data')
    run('sync', '-f', image.directory)
    wait_for(lambda: image.status()['filesystem']['orphans'] == 0, 'the file is freed')
    time.sleep(1.5)  # the group that freed it is durable
    text = run(LANEFS, 'trim', image.directory, '-v').stdout
    left = os.stat(image.path).st_blocks * 512
    equal(full - left > 60 * MIB, True, f'{full} bytes before, {left} after: {text}')
    equal(text.startswith('from 0, 512 MiB: ') and text.strip().endswith('trimmed'), True, text)
    equal(run(LANEFS, 'trim', image.directory, '-o', '1M', '--length=2M', '-m1M').stdout.count('bytes) trimmed'), 1, 'a range')
    for arguments, status in (([], 2), (['-o'], 2), ([image.directory, '-o', '1G'], 2), ([image.directory, 'x'], 2),
                              ([image.directory, '-q'], 2), ([image.directory, '-l', '1Q'], 2), (['/proc'], 3)):
        result = run(LANEFS, 'trim', *arguments, check=False)
        equal((result.returncode, result.stderr.count('\n')), (status, 1), f'{arguments}: {result.stderr}')
    image.remount('ro')
    result = run(LANEFS, 'trim', image.directory, check=False)
    equal((result.returncode, 'read-only' in result.stderr), (1, True), result.stderr)
    image.umount()


@case('grow: to a size, to all of the image, and no further')
def _():
    image = Image('grow', '256M')
    image.mount()
    create(image.directory, 10)
    text = run(LANEFS, 'grow', image.directory, '512M').stdout
    equal(text, f'{image.directory}: 512 MiB, was 256 MiB\n', 'lanefs grow DIR 512M')
    equal(os.stat(image.path).st_size, 512 * MIB, 'size of the image')
    run('truncate', '-s', '1G', image.path)
    text = run(LANEFS, 'grow', image.directory).stdout
    equal(text, f'{image.directory}: 1.00 GiB, was 512 MiB\n', 'lanefs grow DIR')
    equal(image.status()['filesystem']['blocks'], 1 << 18, 'blocks')
    for arguments, status in (([], 2), ([image.directory, 'big'], 2), ([image.directory, '1G', 'x'], 2), (['/proc'], 3),
                              ([image.directory, '100M'], 1)):
        result = run(LANEFS, 'grow', *arguments, check=False)
        equal((result.returncode, result.stderr.count('\n')), (status, 1), f'{arguments}: {result.stderr}')
    image.umount()
    image.fsck()


@case('the log of a mount, ordinary work and its errors, and the unmount is two lines')
def _():
    image = Image('quiet', '128M')
    image.target = f'emu:{image.path}'
    image.mount('reactors=2,discard')
    create(image.directory, 500)
    os.mkdir(f'{image.directory}/directory')
    fails(errno.EISDIR, open, f'{image.directory}/directory', 'w')
    fails(errno.ENAMETOOLONG, open, f'{image.directory}/{"n" * 300}', 'w')
    fails(errno.ENOENT, os.unlink, f'{image.directory}/nothing')
    with open(f'{image.directory}/full', 'wb', buffering=0) as file:
        try:
            while True:
                file.write(os.urandom(MIB))
        except OSError as error:
            equal(error.errno, errno.ENOSPC, 'a full disk')
    os.unlink(f'{image.directory}/full')
    run(LANEFS, 'trim', image.directory)
    run(LANEFS, 'status', image.directory)
    image.umount()
    with open(image.log) as file:
        lines = file.read().strip().split('\n')
    equal(lines, [f'lanefs: {image.target}: mounted at {image.directory}', f'lanefs: {image.target}: unmounted, clean'], 'log')


if __name__ == '__main__':
    main()
