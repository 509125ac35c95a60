# SPDX-License-Identifier: BSD-3-Clause
"""One QEMU machine, from its command line to its end.

Promises: the machine ends within its limit, no process is left behind however the caller ends, and what the guest had to
say is in the log folder: serial.log (console), dmesg.log, guest.log and one log per scenario, qemu.log.

The guest's second serial line carries one JSON object per line in both directions:
    {"type": "ready"}                                        the guest is up
    {"type": "tap", "scenario": ..., "line": "ok 1 - ..."}   a result, or a comment
    {"type": "end", "scenario": ..., "status": 0}            the scenario's program ended
    {"type": "request", "id": 7, "do": "remove", ...}        answered by {"id": 7, "result": ...} or {"id": 7, "error": ...}
Requests: qmp (command, arguments), remove (device: an orderly device_del), insert (device, and optionally port),
present (device: false once QEMU has deleted it), and whatever the scenario defines as host_NAME().
"""
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import time

QEMU = 'qemu-system-x86_64'
BOOT_LIMIT_S = 150
PORT_SLOT_FIRST = 0x10  # root port n is 0000:00:(0x10 + n).0
KERNEL_LINE = ('console=ttyS0 quiet loglevel=4 intel_iommu=on iommu=pt no_timer_check panic=-1 log_buf_len=4M '
               'random.trust_cpu=on audit=0 mitigations=off rdinit=/init')


class Device:
    """An NVMe controller with one namespace, and the root port that it starts in (None: not plugged in at first)."""

    def __init__(self, name, port, size_mib=512, block=512, mdts=7, write_cache=True, **properties):
        self.name, self.port, self.size_mib, self.block = name, port, size_mib, block
        self.properties = {'driver': 'nvme', 'id': name, 'serial': f'lanefs-{name}', 'drive': f'disk-{name}', 'mdts': mdts,
                           'logical_block_size': block, 'physical_block_size': block,
                           'write-cache': 'on' if write_cache else 'off', **properties}

    def plugged(self, port):
        return {**self.properties, 'bus': f'rp{port}'}


class QmpError(Exception):
    pass


class Qmp:
    """QEMU's control protocol over a socket; events are kept for whoever asks."""

    def __init__(self, connection):
        self.connection, self.buffer, self.deleted, self.events = connection, b'', set(), []

    def receive(self):
        """Takes in what has arrived; returns complete replies. Raises ConnectionError at the end of QEMU."""
        data = self.connection.recv(65536)
        if not data:
            raise ConnectionError('QEMU closed its control socket')
        *lines, self.buffer = (self.buffer + data).split(b'\n')
        replies = []
        for line in lines:
            message = json.loads(line)
            if 'event' in message:
                self.events.append(message)
                if message['event'] == 'DEVICE_DELETED' and 'device' in message['data']:
                    self.deleted.add(message['data']['device'])
            elif 'QMP' not in message:
                replies.append(message)
        return replies

    def command(self, name, arguments=None):
        self.connection.sendall(json.dumps({'execute': name, 'arguments': arguments or {}}).encode() + b'\n')
        while True:
            for reply in self.receive():
                if 'error' in reply:
                    raise QmpError(f'{name}: {reply["error"]["desc"]}')
                return reply['return']


def in_child():
    """QEMU is killed when its runner is gone, even by SIGKILL. All of its threads share one CPU: QEMU 7.2's NVMe controller
    lacks a memory barrier between publishing the event index of a shadow doorbell and looking at the doorbell, so that on
    two CPUs it misses a submission now and then (I/O time-outs after 30 s, after some ten thousand commands). On one CPU
    that cannot happen, and with one emulated CPU nothing is lost."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[os.getpid() % len(cpus)]})


class Machine:
    def __init__(self, kernel, build, devices, native, share, logs, disks, memory_mib=2048):
        self.kernel, self.build, self.devices, self.native, self.memory_mib = kernel, build, devices, native, memory_mib
        self.share, self.logs, self.disks = share, logs, disks
        self.process = None
        self.ready = False

    # ---- starting ----
    def command_line(self, control_fd, qmp_fd):
        ports = max([4] + [device.port + 1 for device in self.devices if device.port is not None])
        ninep = 'security_model=none,multidevs=remap'
        command = [
            QEMU, '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-nic', 'none',
            '-M', 'q35,accel=tcg,kernel-irqchip=split', '-cpu', 'max', '-smp', '1', '-m', f'{self.memory_mib}M',
            '-kernel', self.kernel.vmlinux, '-initrd', self.kernel.initramfs, '-append', KERNEL_LINE,
            '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x4',
            '-chardev', f'file,id=console,path={self.logs}/serial.log', '-serial', 'chardev:console',
            '-chardev', f'socket,id=control,fd={control_fd}', '-serial', 'chardev:control',
            '-chardev', f'socket,id=qmp,fd={qmp_fd}', '-mon', 'chardev=qmp,mode=control',
            '-device', 'intel-iommu,intremap=on,caching-mode=on',
            '-fsdev', f'local,id=host,path=/,readonly=on,{ninep}',
            '-device', 'virtio-9p-pci,fsdev=host,mount_tag=host,addr=0x4',
            '-fsdev', f'local,id=share,path={self.share},{ninep}',
            '-device', 'virtio-9p-pci,fsdev=share,mount_tag=share,addr=0x5']
        if self.native:
            command += ['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off']
        for port in range(ports):
            command += ['-device', f'pcie-root-port,id=rp{port},chassis={port + 1},slot={port + 1},'
                                   f'addr={PORT_SLOT_FIRST + port:#x}']
        for device in self.devices:
            command += ['-blockdev', json.dumps({
                'driver': 'file', 'node-name': f'disk-{device.name}', 'filename': self.disk(device.name),
                'discard': 'unmap', 'cache': {'direct': False, 'no-flush': True}})]
            if device.port is not None:
                command += ['-device', json.dumps(device.plugged(device.port))]
        return command

    def disk(self, name):
        return f'{self.disks}/{name}.img'

    def start(self):
        for device in self.devices:
            with open(self.disk(device.name), 'wb') as file:
                file.truncate(device.size_mib << 20)
        self.control, control_theirs = socket.socketpair()
        qmp_ours, qmp_theirs = socket.socketpair()
        self.control.setblocking(False)
        qmp_ours.settimeout(60)
        with open(f'{self.logs}/qemu.log', 'w') as log:
            self.process = subprocess.Popen(
                self.command_line(control_theirs.fileno(), qmp_theirs.fileno()), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=(control_theirs.fileno(), qmp_theirs.fileno()), preexec_fn=in_child)
        control_theirs.close()
        qmp_theirs.close()
        self.qmp = Qmp(qmp_ours)

    def stop(self):
        """Kills what is left of it."""
        if self.process:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.process = None
            self.control.close()
            self.qmp.connection.close()

    # ---- running ----
    def run(self, limit_s, on_message, host_functions):
        """Until QEMU ends or the limit is over: @on_message gets tap and end messages; @host_functions maps the names of
        further requests to functions(machine, request). Returns None, or why it was stopped."""
        self.start()
        begin = time.monotonic()
        lines = b''
        greeted = False
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self.control, selectors.EVENT_READ)
                selector.register(self.qmp.connection, selectors.EVENT_READ)
                while True:
                    if not greeted:
                        self.qmp.command('qmp_capabilities')
                        greeted = True
                    passed = time.monotonic() - begin
                    if not self.ready and passed > BOOT_LIMIT_S:
                        return f'the guest was not up after {BOOT_LIMIT_S} s'
                    if passed > limit_s + BOOT_LIMIT_S:
                        return f'the guest was not done after {limit_s} s'
                    for key, _ in selector.select(0.5):
                        if key.fileobj is self.qmp.connection:
                            self.qmp.receive()
                            continue
                        data = self.control.recv(65536)
                        if not data:
                            raise ConnectionError('QEMU closed the serial line')
                        *complete, lines = (lines + data).split(b'\n')
                        for line in complete:
                            self.handle(line, on_message, host_functions)
        except ConnectionError:
            self.process.wait(30)
            return None
        except (OSError, subprocess.TimeoutExpired) as error:
            return f'QEMU does not answer: {error}'
        finally:
            self.stop()

    def handle(self, line, on_message, host_functions):
        line = line.strip(b'\r\0 ')
        if not line:
            return
        try:
            message = json.loads(line)
        except ValueError:
            on_message({'type': 'tap', 'scenario': None, 'line': f'# the guest sent no JSON: {line!r}'})
            return
        if message['type'] == 'ready':
            self.ready = True
        elif message['type'] == 'request':
            try:
                answer = {'id': message['id'], 'result': self.request(message, host_functions)}
            except (QmpError, KeyError, ValueError, OSError, AssertionError) as error:
                if isinstance(error, ConnectionError):
                    raise
                answer = {'id': message['id'], 'error': f'{type(error).__name__}: {error}'}
            self.control.setblocking(True)
            self.control.sendall(json.dumps(answer).encode() + b'\n')
            self.control.setblocking(False)
        else:
            on_message(message)

    def request(self, message, host_functions):
        what = message['do']
        if what in host_functions:
            return host_functions[what](self, message)
        if what == 'qmp':
            return self.qmp.command(message['command'], message.get('arguments'))
        device = next(device for device in self.devices if device.name == message['device'])
        if what == 'remove':
            return self.qmp.command('device_del', {'id': device.name})
        if what == 'insert':
            self.qmp.deleted.discard(device.name)
            port = message.get('port')
            return self.qmp.command('device_add', device.plugged(device.port if port is None else port))
        if what == 'present':
            return device.name not in self.qmp.deleted
        raise ValueError(f'no request is called {what}')


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder
