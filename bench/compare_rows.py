# SPDX-License-Identifier: BSD-3-Clause
"""The work that bench/compare measures. A row is one figure; rows that come out of one piece of work share a `work`
function, which gets a Place and returns figures by row name. Each piece runs in a process of its own with a deadline,
since a peer may hang."""
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import tarfile
import time

TREE_SOURCES = ('/usr/include', '/usr/share/doc', '/usr/lib/python3')
TREE_FILES_MAX, TREE_BYTES_MAX = 12000, 150 << 20
DBENCH_LOAD = '/usr/share/dbench/client.txt'
MIB = 1 << 20


class Failed(Exception):
    """The work, or the peer that it ran on, failed."""


class Row:
    def __init__(self, name, work, needs=None, seconds=False):
        self.name, self.work, self.needs, self.seconds = name, work, needs, seconds


class Input:
    """What the rows work with: made once, in memory."""

    def __init__(self, directory, options):
        self.directory, self.quick, self.build = directory, options.quick, options.build
        self.archive, self.repository = f'{directory}/tree.tar', f'{directory}/repository'
        self.tree_files = self.tree_bytes = 0

    def scaled(self, count):
        return max(count // 20, 1) if self.quick else count

    def describe(self):
        return f'the tree has {self.tree_files:,} files, {self.tree_bytes / MIB:,.0f} MiB, of {", ".join(TREE_SOURCES)}'


class Place:
    """Where a row works: an empty folder of the peer."""

    def __init__(self, directory, given):
        self.directory, self.input = directory, given


def run(*command, **keywords):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **keywords)
    if done.returncode != 0:
        raise Failed(f'{command[0]}: {(done.stderr or done.stdout).strip()[-300:] or f"status {done.returncode}"}')
    return done.stdout


def seconds(function, *arguments, **keywords):
    begin = time.perf_counter()
    function(*arguments, **keywords)
    return time.perf_counter() - begin


# ---- input ----------------------------------------------------------------------------------------------------------
def tree_files(limit):
    """Regular files of this machine, in a fixed order, as far as both limits reach."""
    count = total = 0
    for source in TREE_SOURCES:
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                size = os.path.getsize(path)
                if count == limit or total + size > TREE_BYTES_MAX:
                    return
                count, total = count + 1, total + size
                yield path, size


def prepare(directory, options):
    given = Input(directory, options)
    os.mkdir(directory)
    with tarfile.open(given.archive, 'w') as archive:
        for path, size in tree_files(given.scaled(TREE_FILES_MAX)):
            archive.add(path, recursive=False)
            given.tree_files += 1
            given.tree_bytes += size
    if shutil.which('git'):
        os.mkdir(given.repository)
        run('tar', '-xf', given.archive, '-C', given.repository)
        git = ('git', '-c', 'user.name=bench', '-c', 'user.email=bench@example.org', '-C', given.repository)
        run(*git, 'init', '-q')
        run(*git, 'add', '-Af', '.')
        run(*git, 'commit', '-q', '-m', 'a tree')
    return given


# ---- names ----------------------------------------------------------------------------------------------------------
NAMES = {'create': 'create and close', 'stat': 'stat, cached', 'open': 'open and close',
         'fill': 'open, write 3000 bytes, close', 'rename': 'rename', 'unlink': 'unlink'}


def names(place):
    output = run(f'{place.input.build}/bench/names', place.directory, str(place.input.scaled(50000)))
    found = dict(line.split() for line in output.splitlines())
    return {name: float(found[word]) for word, name in NAMES.items()}


# ---- trees ----------------------------------------------------------------------------------------------------------
def tree(place):
    target = f'{place.directory}/tree'
    os.mkdir(target)
    untar = seconds(run, 'tar', '-xf', place.input.archive, '-C', target)
    files = place.input.tree_files
    return {'untar, files': files / untar, 'rm -r, files': files / seconds(run, 'rm', '-r', target)}


def git(place):
    target = f'{place.directory}/clone'
    clone = seconds(run, 'git', 'clone', '-q', '--no-hardlinks', place.input.repository, target)
    run('git', '-C', target, 'status')  # the first one writes the index
    return {'git clone': clone, 'git status': seconds(run, 'git', '-C', target, 'status')}


# ---- data -----------------------------------------------------------------------------------------------------------
def make_file(place, name, size):
    block = os.urandom(MIB)
    path = f'{place.directory}/{name}'
    with open(path, 'wb') as file:
        for _ in range(size // MIB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return path


def fio(path, **options):
    command = ['fio', '--name=x', f'--filename={path}', '--output-format=json', '--randseed=42',
               '--random_generator=lfsr']
    command += [f'--{name}={value}' for name, value in options.items()]
    job = json.loads(run(*command))['jobs'][0]
    if job['error']:
        raise Failed(f'fio: error {job["error"]}')
    return job['read' if job['read']['total_ios'] else 'write']


def random_name(direction, way, depth):
    return f'4 KiB random {direction}, {way}, depth {depth}'


def random_data(place):
    """Direct and synced I/O for a fixed time; buffered I/O once over the whole file, so that reads come from below."""
    size = max(place.input.scaled(128), 16) * MIB
    path = make_file(place, 'random', size)
    figures = {}
    timed = {'time_based': 1, 'runtime': '100ms' if place.input.quick else '1500ms'}
    for depth in (1, 16):
        shared = {'bs': '4k', 'size': size, 'ioengine': 'io_uring' if depth > 1 else 'psync', 'iodepth': depth}
        for direction in ('read', 'write'):
            ways = {'buffered': {}, 'O_DIRECT': {'direct': 1, **timed}}
            if direction == 'write':
                ways['fsync each'] = {'fsync': 1, **timed}
            for way, own in ways.items():
                answer = fio(path, rw=f'rand{direction}', **shared, **own)
                figures[random_name(direction, way, depth)] = answer['iops']
    return figures


def sequential_name(direction, way):
    return f'1 MiB sequential {direction}, {way}, MiB/s'


def sequential_data(place):
    """Writes a new file, then reads it: what is buffered is synced at the end of the write, dropped before the read."""
    size = max(place.input.scaled(512), 16) * MIB
    figures = {}
    for way, own in (('buffered', {}), ('O_DIRECT', {'direct': 1})):
        path = f'{place.directory}/sequential'
        for direction, more in (('write', {'end_fsync': 1}), ('read', {})):
            answer = fio(path, rw=direction, bs='1M', size=size, ioengine='psync', **own, **more)
            figures[sequential_name(direction, way)] = answer['bw'] / 1024
        os.unlink(path)
    return figures


# ---- programs -------------------------------------------------------------------------------------------------------
def commits(place, journal, count):
    path = f'{place.directory}/{journal}.db'
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f'pragma journal_mode={journal}')
        database.execute('pragma synchronous=full')
        database.execute('create table t (id integer primary key, text)')

        def work():
            for i in range(count):
                database.execute('insert into t (text) values (?)', (f'row {i} ' * 12,))
        return count / seconds(work)


def sqlite(place):
    return {'sqlite commits, WAL': commits(place, 'wal', place.input.scaled(2000)),
            'sqlite commits, rollback journal': commits(place, 'delete', place.input.scaled(1000))}


def dbench(place):
    output = run('dbench', '-t', '2' if place.input.quick else '5', '-c', DBENCH_LOAD, '-D', place.directory, '4')
    return {'dbench, 4 clients, MB/s': float(output.rsplit('Throughput', 1)[1].split()[0])}


ROWS = [
    *(Row(name, names) for name in NAMES.values()),
    Row('untar, files', tree), Row('rm -r, files', tree),
    Row('git clone', git, 'git', seconds=True), Row('git status', git, 'git', seconds=True),
    *(Row(random_name(direction, way, depth), random_data, 'fio') for way in ('buffered', 'O_DIRECT')
      for direction in ('read', 'write') for depth in (1, 16)),
    *(Row(random_name('write', 'fsync each', depth), random_data, 'fio') for depth in (1, 16)),
    *(Row(sequential_name(direction, way), sequential_data, 'fio') for way in ('buffered', 'O_DIRECT')
      for direction in ('read', 'write')),
    Row('sqlite commits, WAL', sqlite), Row('sqlite commits, rollback journal', sqlite),
    Row('dbench, 4 clients, MB/s', dbench, 'dbench'),
]


# ---- running --------------------------------------------------------------------------------------------------------
def group(rows):
    """Rows by the work that they come out of (its first row), and why some are left out."""
    works, left_out = {}, set()
    for row in rows:
        if row.needs and not shutil.which(row.needs):
            left_out.add(f'rows of {row.needs}: left out, {row.needs} is not installed')
        else:
            works.setdefault(row.work, []).append(row)
    return {members[0]: members for members in works.values()}, sorted(left_out)


def work_apart(row, place, sender):
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    figures = problem = None
    try:
        os.mkdir(place.directory)
        figures = row.work(place)
        shutil.rmtree(place.directory)
    except Exception as error:  # whatever a broken peer does to us
        problem = f'{type(error).__name__}: {error}'
    sender.send((figures, problem))


def end_session(process):
    """With whatever it has started."""
    for end in (lambda: os.killpg(process.pid, signal.SIGKILL), process.kill):
        try:
            end()
        except ProcessLookupError:
            continue
    process.join(20)


def run_apart(row, directory, given):
    """Does the work of @row in a folder of @directory. Failed."""
    limit_s = 60 if given.quick else 900
    receiver, sender = multiprocessing.Pipe(False)
    place = Place(f'{directory}/work', given)
    process = multiprocessing.Process(target=work_apart, args=(row, place, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit_s):
            raise Failed(f'no answer in {limit_s} s')
        figures, problem = receiver.recv()
    except EOFError:
        figures, problem = None, 'the work died'
    finally:
        end_session(process)
    if problem:
        raise Failed(problem)
    return figures
