# SPDX-License-Identifier: BSD-3-Clause
"""What the tests on a real mount share: an image with its mount, and cases that print TAP.

A test file creates images through Image (each knows its daemon by pid), defines functions with @case, and ends with
main(). Everything that an image left behind (mount, daemon, files) is removed when the program ends, whatever happened.
LANEFS_BUILD names the build folder, LANEFS_TEST_DIR a folder for images (default: /var/tmp). With LANEFS_TEST_DRIVE images are
the media of emulated NVMe drives with these options ("" for the defaults: see lanefs-targets(7)). LANEFS_TEST_OPTIONS are
mount options for every mount; with io_uring among them the kernel's switch is turned on until the end.
"""
import atexit
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get('LANEFS_BUILD', f'{SOURCE}/build'))
MKFS = f'{BUILD}/mkfs/mkfs.lanefs'
FSCK = f'{BUILD}/mkfs/fsck.lanefs'
MOUNT = f'{BUILD}/fs/daemon/mount.lanefs'
UMOUNT = f'{BUILD}/fs/daemon/umount.lanefs'
LANEFS = f'{BUILD}/control/lanefs'
MIB = 1 << 20
OPTIONS = os.environ.get('LANEFS_TEST_OPTIONS', '')
URING_SWITCH = '/sys/module/fuse/parameters/enable_uring'

_cases = []
_images = []
_work = None
_switch = None


# ---- cases ----------------------------------------------------------------------------------------------------------
class Skip(Exception):
    """Raised by a case that cannot run here."""


def case(name):
    """Registers a function as a case."""
    def register(function):
        _cases.append((name, function))
        return function
    return register


def add_case(name, function):
    _cases.append((name, function))


def note(text):
    for line in str(text).rstrip('\n').split('\n'):
        print(f'# {line}', flush=True)


def possible():
    return os.geteuid() == 0 and os.path.exists('/dev/fuse')


def switch_io_uring(value):
    os.pwrite(_switch, value.encode(), 0)


def enable_io_uring():
    """Until the end. False: this kernel has no FUSE over io_uring."""
    global _switch
    if _switch is None:
        if not os.path.exists(URING_SWITCH):
            return False
        _switch = os.open(URING_SWITCH, os.O_RDWR)
        fcntl.flock(_switch, fcntl.LOCK_EX)  # tests that switch it take turns
        atexit.register(switch_io_uring, os.pread(_switch, 1, 0).decode())
    switch_io_uring('Y')
    return True


def explain(error):
    """What a person wants to know of a failure: where in the test, and what the program said."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if frame.filename.endswith('.py') and '/lib/python' not in frame.filename]
    for frame in frames[1:]:
        note(f'{os.path.basename(frame.filename)}:{frame.lineno}: {frame.line}')
    note(f'{type(error).__name__}: {error}')
    if isinstance(error, subprocess.CalledProcessError):
        note(f'{error.stdout or ""}{error.stderr or ""}'[-3000:])
    for image in _images:
        if os.path.exists(image.log):
            with open(image.log) as log:
                tail = log.read()[image.log_shown:]
            image.log_shown += len(tail)
            if tail:
                note(f'{image.log}: ...{tail[-2000:]}')


def main():
    """Runs the cases, or skips them all, and exits."""
    if not possible():
        print('1..0 # SKIP needs root and /dev/fuse')
        sys.exit(0)
    for program in (MKFS, FSCK, MOUNT, UMOUNT, LANEFS):
        if not os.access(program, os.X_OK):
            print(f'Bail out! no {program}: build first, or set LANEFS_BUILD')
            sys.exit(1)
    if 'io_uring' in OPTIONS and not enable_io_uring():
        print('1..0 # SKIP this kernel has no FUSE over io_uring')
        sys.exit(0)
    wanted = sys.argv[1:]
    cases = [(name, function) for name, function in _cases if not wanted or any(word in name for word in wanted)]
    print(f'1..{len(cases)}', flush=True)
    failed = 0
    for number, (name, function) in enumerate(cases, 1):
        begin = time.monotonic()
        try:
            function()
            print(f'ok {number} - {name}', flush=True)
        except Skip as reason:
            print(f'ok {number} - {name} # SKIP {reason}', flush=True)
        except Exception as error:  # whatever it is, the other cases still run
            failed += 1
            print(f'not ok {number} - {name}', flush=True)
            explain(error)
        took = time.monotonic() - begin
        if took > 5:
            note(f'{name}: {took:.1f} s')
    cleanup()
    sys.exit(1 if failed else 0)


def sanitized():
    """A build with sanitizers, which keep memory of their own, and rule out seccomp and Landlock."""
    with open(MOUNT, 'rb') as program:
        return b'__asan_init' in program.read()


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f'no {program} here')


def equal(actual, expected, what=''):
    if actual != expected:
        raise AssertionError(f'{what}: got {actual!r}, wanted {expected!r}')


def fails(errno_wanted, function, *arguments, **keywords):
    """The call fails with this errno."""
    try:
        function(*arguments, **keywords)
    except OSError as error:
        equal(error.errno, errno_wanted, f'errno of {getattr(function, "__name__", function)}')
        return
    raise AssertionError(f'{function} succeeded, wanted errno {errno_wanted}')


def wait_for(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f'after {seconds} s: still not {what}')
        time.sleep(0.02)


def run(*command, check=True, timeout=600, **keywords):
    """Runs a program with its output captured; a failure shows it."""
    return subprocess.run([str(word) for word in command], check=check, timeout=timeout, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, **keywords)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(4 * MIB):
            digest.update(block)
    return digest.hexdigest()


def work_dir():
    global _work
    if _work is None:
        _work = tempfile.mkdtemp(prefix='lanefs-test-', dir=os.environ.get('LANEFS_TEST_DIR', '/var/tmp'))
        os.chmod(_work, 0o755)  # some cases look at it as another user
    return _work


# ---- an image and its mount -----------------------------------------------------------------------------------------
def alive(pid):
    """A process that is there and not a zombie."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


class Image:
    """An image file, its mount point, and the daemon that serves it (pid, 0 while there is none)."""

    def __init__(self, name, size='1G', mkfs=(), format=True):
        self.path = f'{work_dir()}/{name}.img'
        drive = os.environ.get('LANEFS_TEST_DRIVE')
        self.target = self.path if drive is None else f'emu:{self.path}' + (f',{drive}' if drive else '')
        self.directory = f'{work_dir()}/{name}'
        self.log = f'{work_dir()}/{name}.log'
        self.log_shown = 0
        self.pid = 0
        self.process = None
        self.expects_refusals = False
        os.makedirs(self.directory, exist_ok=True)
        run('truncate', '-s', size, self.path)
        if format:
            run(MKFS, *mkfs, self.target)
        _images.append(self)

    def mounted(self):
        with open('/proc/self/mountinfo') as file:
            return any(line.split()[4].encode().decode('unicode_escape') == self.directory for line in file)

    def mount(self, options='', foreground=True):
        """In the foreground the daemon's log is kept, and shown when a case fails."""
        options = ','.join(filter(None, [options, OPTIONS]))
        command = [MOUNT, self.target, self.directory] + (['-o', options] if options else [])
        if foreground:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.log)
            with open(self.log, 'a') as log:  # a successor writes to it, too
                self.log_shown = 0
                self.process = subprocess.Popen(command + ['-f'], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.pid = self.process.pid
            wait_for(lambda: self.process.poll() is not None or 'mounted at' in open(self.log).read(), 'mounted')
            if self.process.poll() is not None:
                raise AssertionError(f'mount.lanefs -f ended with {self.process.returncode}: {open(self.log).read()}')
        else:
            run(*command)
            self.pid = self.status()['pid']
        if 'io_uring' in OPTIONS:
            equal(self.status()['fuse']['transport'], 'io_uring')
        return self.directory

    def umount(self):
        run(UMOUNT, self.directory)
        if self.process:
            equal(self.process.wait(30), 0, 'exit status of the daemon')
            self.process = None
            with open(self.log) as log:
                equal('is not one that lanefs makes' in log.read(), self.expects_refusals, 'a system call was refused')
        elif self.pid:
            wait_for(lambda: not alive(self.pid), 'ended: the daemon after umount.lanefs', 1)
        self.pid = 0

    def remount(self, options=''):
        self.umount()
        return self.mount(options)

    def kill(self):
        """A crash: nothing is left in the daemon, everything that it wrote is in the image."""
        os.kill(self.pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
            self.process = None
        wait_for(lambda: not alive(self.pid), 'dead')
        self.pid = 0
        run('umount', '-l', self.directory, check=False)
        wait_for(lambda: not self.mounted(), 'unmounted')

    def status(self):
        return json.loads(run(LANEFS, 'status', self.directory, '--json').stdout)

    def stats(self):
        return json.loads(run(LANEFS, 'stats', self.directory, '--json').stdout)

    def fsck(self):
        """Clean, or the test fails with what fsck said."""
        return run(FSCK, '-n', self.target)

    def remove(self):
        if self.mounted():
            run(UMOUNT, self.directory, check=False, timeout=60)
        while self.mounted():
            run('umount', '-l', self.directory, check=False)
        if self.pid and alive(self.pid):
            deadline = time.monotonic() + 5
            while alive(self.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            if alive(self.pid):
                note(f'daemon {self.pid} of {self.path} had to be killed')
                os.kill(self.pid, signal.SIGKILL)
        if self.process:
            self.process.wait(10)
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.pid, self.process = 0, None


@contextlib.contextmanager
def loop_device(name, size):
    """An Image whose path is a loop device over its file."""
    image = Image(name, size, format=False)
    backing = image.path
    attached = run('losetup', '-f', '--show', backing, check=False)
    if attached.returncode:
        raise Skip('no loop device to be had: ' + attached.stderr.strip())
    image.path = image.target = attached.stdout.strip()
    try:
        yield image
    finally:
        if image.mounted():
            run('umount', '-l', image.directory, check=False)
        run('losetup', '-d', image.path, check=False)
        image.path = image.target = backing


# ---- mount(8) and umount(8): with the helpers in /sbin of a private mount namespace -----------------------------------
def in_namespace(script, *arguments):
    """Runs a shell script in which /sbin holds our helpers and everything mounted vanishes with it."""
    need('unshare')
    overlay = f'{work_dir()}/overlay'
    for name in ('upper', 'memory'):
        os.makedirs(f'{overlay}/{name}', exist_ok=True)
    for name, target in (('mount.lanefs', MOUNT), ('umount.lanefs', UMOUNT), ('mount.fuse.lanefs', MOUNT),
                         ('umount.fuse.lanefs', UMOUNT)):
        shutil.copy2(target, f'{overlay}/upper/{name}')
    sbin = os.path.realpath('/sbin')
    prologue = (f'set -e; mount --make-rprivate /; mount -t tmpfs tmpfs {overlay}/memory; '
                f'cd {overlay}/memory; mkdir upper scratch; cp -a {overlay}/upper/. upper/; '
                f'mount -t overlay overlay -o lowerdir={sbin},upperdir={overlay}/memory/upper,workdir={overlay}/memory/scratch '
                f'{sbin}; cd /; ')
    result = subprocess.run(['unshare', '-m', 'sh', '-c', prologue + script, 'sh', *arguments], capture_output=True,
                            text=True, timeout=120, stdin=subprocess.DEVNULL)
    if 'overlay' in result.stderr and 'unknown filesystem' in result.stderr:
        raise Skip('no overlay filesystem here')
    if result.returncode:
        raise AssertionError(f'status {result.returncode}: {result.stdout}{result.stderr}')
    return result.stdout


def cleanup():
    global _work
    for image in _images:
        try:
            image.remove()
        except Exception as error:  # the rest must be removed all the same
            note(f'cleaning up {image.path}: {error}')
    _images.clear()
    if _work:
        shutil.rmtree(_work, ignore_errors=True)
        _work = None


atexit.register(cleanup)
for _signal in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_signal, lambda number, frame: sys.exit(128 + number))
