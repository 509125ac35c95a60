#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of lanefs on emulated NVMe devices: boots a stock kernel in QEMU and runs scenarios in there. Prints TAP.

    tests/vm/vm.py --build BUILD [--machine NAME]... [--scenario NAME]... [--keep] [--list]

BUILD is a meson build folder; the kernel, the logs and the disk images live in BUILD/vm (the kernel in $LANEFS_VM_CACHE,
when that is set). Scenarios of one machine share a boot. Needs qemu-system-x86, busybox-static, pciutils and apt, no root
and no KVM. What is missing is a failure, never a skip. Logs: BUILD/vm/MACHINE/.
"""
import argparse
import json
import os
import re
import shutil
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import kernel as kernel_module  # noqa: E402
from machine import PORT_SLOT_FIRST, QEMU, Machine, fresh  # noqa: E402
from scenarios import MACHINES, SCENARIOS  # noqa: E402

# In the logs of the guest's kernel and of QEMU each of these is a failure: DMA outside of what was mapped, and the
# kernel's own accidents, and a controller that did not answer.
KERNEL_FAULTS = re.compile(r'DMAR:.*(fault|PTE .* access)|translation failure|BUG: |Oops: |general protection fault|'
                           r'refcount_t: |Kernel panic|nvme nvme\d+: I/O .* timeout')
RESULT = re.compile(r'^(not ok|ok)\b\s*\d*\s*-?\s*(.*)$')


class Tap:
    """Numbers results of all machines through, and remembers what failed."""

    def __init__(self):
        self.count = self.failures = 0

    def result(self, passed, name):
        self.count += 1
        self.failures += not passed
        print(f'{"ok" if passed else "not ok"} {self.count} - {name}', flush=True)

    def note(self, text):
        for line in str(text).rstrip('\n').split('\n'):
            print(line if line.startswith('#') else f'# {line}', flush=True)

    def end(self):
        print(f'1..{self.count}', flush=True)
        return 1 if self.failures or not self.count else 0


class Boot:
    """One boot of a machine with the scenarios that run in it."""

    def __init__(self, name, scenarios, options, kernel, tap):
        self.name, self.scenarios, self.options, self.kernel, self.tap = name, scenarios, options, kernel, tap
        self.kind = MACHINES[name]
        self.folder = f'{options.build}/vm/{name}'
        self.ended = set()
        self.failing = set()

    def plan(self):
        devices = [{'name': device.name, 'block': device.block, 'port': f'0000:00:{PORT_SLOT_FIRST + (device.port or 0):02x}.0'}
                   for device in self.kind.devices]
        return {'native': self.kind.native, 'devices': devices,
                'environment': {'LANEFS_BUILD': self.options.build, 'PYTHONDONTWRITEBYTECODE': '1'},
                'scenarios': [{'name': scenario.name, 'script': scenario.script, 'limit_s': scenario.limit_s}
                              for scenario in self.scenarios]}

    def attempt(self):
        """Boots once. Returns the machine and, if it had to be stopped, why."""
        share = fresh(self.folder)
        disks = fresh(f'{self.folder}/disks')
        with open(f'{share}/plan.json', 'w') as file:
            json.dump(self.plan(), file)
        with open(f'{share}/main', 'w') as file:
            file.write(f'{HERE}/guest/main.py\n')
        machine = Machine(self.kernel, self.options.build, self.kind.devices, self.kind.native, share, share, disks,
                          self.kind.memory_mib)
        functions = {}
        for scenario in self.scenarios:
            functions.update(scenario.host_functions())
        try:
            return machine, machine.run(sum(scenario.limit_s + 20 for scenario in self.scenarios), self.message, functions)
        finally:
            if not self.options.keep:
                shutil.rmtree(disks)

    def message(self, message):
        scenario = message['scenario']
        if message['type'] == 'end':
            self.ended.add(scenario)
            self.tap.note(f'{scenario}: {message["seconds"]} s')
            # Status 1 says no more than its failing cases do.
            if message['status'] != 0 and not (message['status'] == 1 and scenario in self.failing):
                self.tap.result(False, f'{scenario}: its program ended with {message["status"]}')
                self.tail(f'{scenario}.log')
            return
        found = RESULT.match(message['line'])
        if found:
            if found.group(1) == 'not ok':
                self.failing.add(scenario)
            self.tap.result(found.group(1) == 'ok', f'{scenario}: {found.group(2)}')
        else:
            self.tap.note(message['line'])

    def tail(self, name, lines=25):
        path = f'{self.folder}/{name}'
        if os.path.exists(path):
            with open(path, errors='replace') as file:
                text = ''.join(file.readlines()[-lines:])
            if text:
                self.tap.note(f'the end of {path}:\n{text}')

    def run(self):
        begin = time.monotonic()
        machine, stopped = self.attempt()
        if not machine.ready:
            self.tap.note(f'{self.name}: the guest did not come up ({stopped or "QEMU ended"}); once more')
            self.tail('serial.log')
            self.tail('qemu.log')
            machine, stopped = self.attempt()
        for scenario in self.scenarios:
            if scenario.name not in self.ended:
                self.tap.result(False, f'{scenario.name}: it did not come to its end')
        finished = os.path.exists(f'{self.folder}/exit') and stopped is None
        self.tap.result(finished, f'{self.name}: the guest came to its end')
        if not finished:
            self.tap.note(stopped or 'QEMU ended')
            for name in ('qemu.log', 'serial.log', 'guest.log'):
                self.tail(name)
        self.judge_kernel_log()
        self.tap.note(f'{self.name}: {time.monotonic() - begin:.0f} s in all, logs in {self.folder}')

    def judge_kernel_log(self):
        faults = []
        for name in ('dmesg.log', 'serial.log', 'qemu.log'):
            path = f'{self.folder}/{name}'
            if os.path.exists(path):
                with open(path, errors='replace') as file:
                    faults += [line.rstrip() for line in file if KERNEL_FAULTS.search(line)]
        written = os.path.exists(f'{self.folder}/dmesg.log') and os.path.getsize(f'{self.folder}/dmesg.log') > 0
        self.tap.result(written and not faults, f'{self.name}: no DMA fault and no accident in the kernel log')
        if faults:
            self.tap.note('\n'.join(faults[:20]))


def choose(options, tap):
    """The scenarios to run. A name that does not exist is a failure; those that wait for something are only noted."""
    for name in set(options.scenario) - {scenario.name for scenario in SCENARIOS}:
        tap.result(False, f'{name}: there is no such scenario')
    chosen = []
    for scenario in SCENARIOS:
        if options.machine and scenario.machine not in options.machine:
            continue
        if scenario.name in options.scenario or not options.scenario and not scenario.waits_for:
            chosen.append(scenario)
        elif not options.scenario:
            tap.note(f'{scenario.name}: not run, it waits for {scenario.waits_for}')
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--build', default=os.environ.get('LANEFS_BUILD'), help='meson build folder')
    parser.add_argument('--machine', action='append', default=[], choices=sorted(MACHINES))
    parser.add_argument('--scenario', action='append', default=[])
    parser.add_argument('--keep', action='store_true', help='keep the disk images')
    parser.add_argument('--list', action='store_true')
    options = parser.parse_args()
    if options.list:
        for scenario in SCENARIOS:
            waits = f'waits for {scenario.waits_for}' if scenario.waits_for else ''
            print(f'{scenario.name:16} on {scenario.machine:8} {waits}')
        return 0
    if not options.build:
        parser.error('--build is needed')
    options.build = os.path.abspath(options.build)
    os.makedirs(f'{options.build}/vm', exist_ok=True)
    tap = Tap()
    scenarios = choose(options, tap)
    for program in (QEMU, 'setpci', 'apt-get', 'apt-cache', 'dpkg-deb'):
        if not shutil.which(program):
            tap.result(False, f'{program} is there')
            tap.note('the packages are qemu-system-x86, pciutils, apt, dpkg')
            return tap.end()
    try:
        kernel = kernel_module.prepare(os.environ.get('LANEFS_VM_CACHE', f'{options.build}/vm/kernel'), tap.note)
    except kernel_module.Unavailable as reason:
        tap.result(False, 'a kernel to boot')
        tap.note(reason)
        return tap.end()
    tap.note(f'{kernel.package} in QEMU without KVM')
    for name in MACHINES:
        mine = [scenario for scenario in scenarios if scenario.machine == name]
        if mine:
            Boot(name, mine, options, kernel, tap).run()
    return tap.end()


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
