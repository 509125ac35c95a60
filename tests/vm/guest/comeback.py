# SPDX-License-Identifier: BSD-3-Clause
"""A lanefs under on_removal=wait loses its controller while it is busy, orderly and by surprise, and gets it back: by
itself (auto_bind: the kernel's driver, which takes every new drive, has to give it up), or by hand. Programs see a pause
and no error; another drive in the same place is refused.
"""
import os
import threading
import time

from vmguest import case, device, equal, main, note, run, wait_for

from lanefs_test import LANEFS
from workload import Volume, Writer

WAIT_S = 200  # a kernel that has not noticed a surprise keeps the old device for over a minute
volume = Volume(device('nvme0'))


def state():
    return volume.status()['state']


def lanefs(*words, check=True):
    return run(LANEFS, *words, check=check)


def round_of(name, leave, come_back, options='', by_hand=None):
    volume.use('vfio-pci').mount(f'on_removal=wait={WAIT_S}' + (f',{options}' if options else ''))
    writer = Writer(f'{volume.top()}/{name.replace(" ", "-")}')
    writer.start()
    wait_for(lambda: writer.count >= 5, 'busy: the writer', 60)
    begin = time.monotonic()
    leave()
    wait_for(lambda: state() == 'waiting', 'waiting for the device', 60)
    note(f'{name}: waiting {time.monotonic() - begin:.2f} s after the device began to leave')
    written = writer.count
    come_back()
    begin = time.monotonic()
    if by_hand:
        by_hand()
    wait_for(lambda: state() == 'mounted', 'going on', WAIT_S)
    note(f'{name}: going on {time.monotonic() - begin:.2f} s after it was there')
    wait_for(lambda: writer.count > written + 5, 'writing again', 60)
    writer.judge()
    note(f'{writer.count} files')
    volume.umount()
    volume.fsck()


def back_by_plug():
    wait_for(lambda: not volume.device.there(), 'gone in the guest', WAIT_S)
    wait_for(volume.device.deleted, 'gone in QEMU', 60)
    volume.device.plug()


def back_by_rescan():
    wait_for(lambda: not volume.device.there(), 'gone in the guest', 60)
    volume.device.sysfs_rescan()


def sysfs_remove():
    threading.Thread(target=volume.device.sysfs_remove, daemon=True).start()


def bind_and_attach():
    wait_for(lambda: volume.device.driver() == 'nvme' and volume.device.block_device(), 'taken by the kernel', 60)
    time.sleep(3)  # the daemon has seen it and leaves it alone
    equal(state(), 'waiting')
    run(LANEFS, 'bind', volume.device.address())
    if state() != 'mounted':  # bound to the right driver it is tried by itself
        lanefs('attach', volume.directory, check=False)


def bind_and_attach_without_events():
    wait_for(lambda: volume.device.driver() == 'nvme' and volume.device.block_device(), 'taken by the kernel', 60)
    run(LANEFS, 'bind', volume.device.address())
    time.sleep(2)
    equal(state(), 'waiting', 'nobody listens to the kernel')
    lanefs('attach', volume.directory)


@case('a filesystem on the device')
def prepare():
    volume.use('vfio-pci').mkfs('-j', '4M')


@case('device_del and a new plug: bound and taken back by itself')
def unplugged():
    round_of('device_del', volume.device.unplug, back_by_plug, 'auto_bind')


@case('sysfs remove and rescan: the same')
def removed():
    round_of('sysfs remove', sysfs_remove, back_by_rescan, 'auto_bind')


@case('slot power lost: the same')
def power():
    round_of('slot power lost', volume.device.power_off, back_by_plug, 'auto_bind')


@case('lanefs detach, device_del, a new plug; bound by hand: taken back')
def by_hand():
    def leave():
        lanefs('detach', volume.directory)
        volume.device.unplug()
    round_of('by hand', leave, back_by_plug, '', bind_and_attach)


@case('nohotplug: bound and attached by hand')
def no_events():
    round_of('nohotplug', sysfs_remove, back_by_rescan, 'nohotplug', bind_and_attach_without_events)


@case('other drives are refused, and the wait goes on until the right one is back')
def stranger():
    volume.use('vfio-pci').mount(f'on_removal=wait={WAIT_S}')
    lanefs('detach', volume.directory)
    for other, why in ((device('nvme1'), 'blocks of 4096'), (device('nvme2'), 'bytes at once')):
        run(LANEFS, 'bind', other.address())
        os.chown(f'/dev/vfio/{other.group()}', 1000, 1000)  # given to a user: root's daemon may open it all the same
        refused = lanefs('attach', volume.directory, other.address(), check=False)
        equal(refused.returncode, 1, refused.stderr)
        equal(why in refused.stderr, True, refused.stderr)
        equal(state(), 'waiting')
        other.bind('nvme')
    lanefs('attach', volume.directory)
    equal(state(), 'mounted')
    volume.umount()
    volume.fsck()
    volume.device.bind('nvme')


if __name__ == '__main__':
    main()
