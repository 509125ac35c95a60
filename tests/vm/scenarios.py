# SPDX-License-Identifier: BSD-3-Clause
"""The machines, and what is run on each.

To add a scenario: write guest/NAME.py (functions with @case from vmguest, then main()), and add a Scenario below. All
scenarios of a machine run one after another in one boot, so each starts by binding the devices it uses to the driver it
wants, and leaves them usable. A scenario that needs the host's hand beyond remove and insert defines host_NAME(machine,
request) here; the guest calls it with request('NAME', ...), and gets what it returns.
"""
import os
import subprocess

from machine import Device

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))



class MachineKind:
    def __init__(self, native, devices, memory_mib=2048):
        self.native, self.devices, self.memory_mib = native, devices, memory_mib


def three_devices():
    """What most machines have; ports 3 and up stay empty."""
    return [Device('nvme0', port=0, block=512, mdts=7, write_cache=True),
            Device('nvme1', port=1, block=4096, mdts=5, write_cache=True),
            Device('nvme2', port=2, block=512, mdts=3, write_cache=False, max_ioqpairs=2)]


MACHINES = {
    'native': MachineKind(native=True, devices=three_devices()),   # PCI Express hotplug (pciehp)
    'acpi': MachineKind(native=False, devices=three_devices()),    # ACPI hotplug, QEMU's default
}


class Scenario:
    """@name: how it is called; @machine: one of MACHINES; @script: guest/SCRIPT.py; @limit_s: when it is killed; @waits_for:
    what must be built first (in words). Until that is taken away here, it runs only when asked for by name."""

    def __init__(self, name, machine, limit_s, script=None, waits_for=None):
        self.name, self.machine, self.limit_s, self.waits_for = name, machine, limit_s, waits_for
        self.script = script or name

    def host_functions(self):
        return {name[5:]: getattr(self, name) for name in dir(self) if name.startswith('host_') and name != 'host_functions'}

    def host_disk(self, machine, request):
        """What the host sees of a device's data, in hexadecimal."""
        with open(machine.disk(request['device']), 'rb') as file:
            file.seek(request['offset'])
            return file.read(request['size']).hex()

    def host_fsck(self, machine, request):
        """fsck.lanefs of a device's disk image, on the host."""
        result = subprocess.run([f'{machine.build}/mkfs/fsck.lanefs', '-n', machine.disk(request['device'])],
                                capture_output=True, text=True, timeout=60)
        return {'status': result.returncode, 'output': (result.stdout + result.stderr)[-500:]}


SCENARIOS = [
    Scenario('boot', 'native', limit_s=120),
    Scenario('hotplug', 'native', limit_s=120),
    Scenario('kernel', 'native', limit_s=150, script='kerneldevice'),
    Scenario('transport', 'native', limit_s=200),
    Scenario('unnoticed', 'native', limit_s=200),
    Scenario('vfio', 'native', limit_s=300),
    Scenario('uio', 'native', limit_s=180),
    Scenario('user', 'native', limit_s=120),
    Scenario('surprise', 'native', limit_s=360, script='removal'),
    Scenario('orderly', 'native', limit_s=360, script='removal'),
    Scenario('comeback', 'native', limit_s=420),
    Scenario('handover', 'native', limit_s=300),
    Scenario('hotplug-acpi', 'acpi', limit_s=120, script='hotplug'),
    Scenario('orderly-acpi', 'acpi', limit_s=300, script='removal'),
]
