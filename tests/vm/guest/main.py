# SPDX-License-Identifier: BSD-3-Clause
"""Runs in the guest: each scenario's program in turn, its results sent to the host as they come.

A program prints TAP, as the tests on a real mount do. It is killed at its limit, with everything in its session, and the
next one still gets its turn. All that it printed is in /vm/SCENARIO.log, the kernel's log from its first line in
/vm/dmesg.log.
"""
import json
import os
import selectors
import signal
import subprocess
import sys
import termios
import threading
import time
import tty

HERE = os.path.dirname(os.path.abspath(__file__))
SHARE = '/vm'
LINE_MAX = 1500  # characters sent of a line: the tty writes up to 2048 bytes in one piece


def open_control():
    """The line to the host, in raw mode; the mode stays while this is open."""
    control = os.open('/dev/ttyS1', os.O_RDWR | os.O_NOCTTY)
    tty.setraw(control)
    attributes = termios.tcgetattr(control)
    attributes[4] = attributes[5] = termios.B115200
    termios.tcsetattr(control, termios.TCSANOW, attributes)
    return control


def send(control, **message):
    os.write(control, json.dumps(message).encode() + b'\n')


def forward(control, scenario, line):
    text = line.decode(errors='replace').rstrip('\n')
    if text.startswith(('ok', 'not ok', '#', 'Bail out')):
        send(control, type='tap', scenario=scenario, line=text[:LINE_MAX])


def run(control, scenario, script, limit_s, environment):
    """Returns the exit status of the program, or what became of it."""
    deadline = time.monotonic() + limit_s
    with open(f'{SHARE}/{scenario}.log', 'wb', buffering=0) as log, selectors.DefaultSelector() as selector:
        process = subprocess.Popen(['/usr/bin/python3', '-u', f'{HERE}/{script}.py'], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                                   env={**os.environ, **environment})
        os.set_blocking(process.stdout.fileno(), False)
        selector.register(process.stdout, selectors.EVENT_READ)
        rest = b''
        open_end = True
        while True:
            ended = process.poll() is not None
            data = b''
            if open_end and selector.select(0.2):
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    open_end = False
            elif not open_end:
                time.sleep(0.05)
            log.write(data)
            *lines, rest = (rest + data).split(b'\n')
            for line in lines:
                forward(control, scenario, line)
            if ended and not data:
                return process.returncode
            if time.monotonic() > deadline:
                forward(control, scenario, f'# {scenario}: killed after {limit_s} s'.encode())
                os.killpg(process.pid, signal.SIGKILL)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    return f'not to be killed after {limit_s} s'
                return f'killed after {limit_s} s'


def keep_kernel_log():
    """Copies /dev/kmsg to the share as it comes, one line per record: what is there survives a crash."""
    source = os.open('/dev/kmsg', os.O_RDONLY)
    with open(f'{SHARE}/dmesg.log', 'wb', buffering=0) as log:
        while True:
            try:
                record = os.read(source, 8192)
            except BrokenPipeError:  # some were overwritten before they were read
                log.write(b'(records lost)\n')
                continue
            prefix, _, text = record.partition(b';')
            microseconds = int(prefix.split(b',')[2])
            log.write(b'[%5d.%06d] %s\n' % (*divmod(microseconds, 1000000), text.split(b'\n')[0]))


def main():
    threading.Thread(target=keep_kernel_log, daemon=True).start()
    with open(f'{SHARE}/plan.json') as file:
        plan = json.load(file)
    control = open_control()
    for scenario in plan['scenarios']:
        begin = time.monotonic()
        status = run(control, scenario['name'], scenario['script'], scenario['limit_s'],
                     {**plan['environment'], 'VM_SCENARIO': scenario['name']})
        send(control, type='end', scenario=scenario['name'], status=status, seconds=round(time.monotonic() - begin, 1))
    termios.tcdrain(control)
    time.sleep(0.5)  # for the last lines of the kernel's log


sys.exit(main())
