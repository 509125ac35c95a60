# SPDX-License-Identifier: BSD-3-Clause
"""Running transport_probe (transport_probe.c says what it does)."""
import os
import pwd
import re
import resource
import subprocess

from vmguest import equal, note, run, write

PROBE = f'{os.environ["LANEFS_BUILD"]}/tests/vm/transport_probe'
NOBODY = pwd.getpwnam('nobody').pw_uid


def hugepages(count):
    write('/proc/sys/vm/nr_hugepages', str(count))


def start_as(user, memlock):
    """What the child does before it becomes the probe: its memlock limit, then its user."""
    def prepare():
        if memlock:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
        if user is not None:
            os.setgroups([])
            os.setuid(user)
    return prepare


def probe(driver, address, what='exchange', user=None, memlock=None):
    """Runs it; every claim must hold. Returns its output."""
    result = run(PROBE, driver, address, what, check=False, timeout=60, preexec_fn=start_as(user, memlock))
    note(f'{driver} {what}: {result.returncode}')
    note(result.stdout + result.stderr)
    if result.returncode:
        raise AssertionError(f'transport_probe {driver} {what}:\n{result.stdout}{result.stderr}')
    return result.stdout


def refused(driver, address, error, text, user=None, memlock=None):
    """It says one line: @error (None: from before the device was looked at) and @text."""
    result = run(PROBE, driver, address, 'exchange', check=False, timeout=60, preexec_fn=start_as(user, memlock))
    lines = [line for line in (result.stdout + result.stderr).split('\n') if line and not line.startswith('#')]
    note('\n'.join(lines))
    equal(result.returncode, 1, 'status')
    equal(len(lines), 1, 'lines')
    if text not in lines[0] or error and not lines[0].startswith(f'refused {error} {address}: '):
        raise AssertionError(f'not said: {error} {text}')


class Held:
    """A probe that holds its device until it is wanted, told or killed."""

    def __init__(self, driver, address):
        self.process = subprocess.Popen([PROBE, driver, address, 'hold'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        self.read_until('holding')

    def read_until(self, wanted):
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip())
            note(lines[-1])
            if re.search(wanted, line):
                return
        raise AssertionError('\n'.join(lines))

    def tell(self):
        self.process.stdin.write('\n')
        self.process.stdin.flush()

    def ends(self, state, timeout=60):
        """It says @state, and all its claims hold."""
        self.process.wait(timeout)
        output = self.process.stdout.read()
        note(output)
        equal(re.search(r'^(wanted|told|timeout), (alive|gone)$', output, re.M).group(0), state, 'state')
        equal(self.process.returncode, 0, 'status')

    def kill(self):
        self.process.kill()
        self.process.communicate()
