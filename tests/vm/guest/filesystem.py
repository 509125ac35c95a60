# SPDX-License-Identifier: BSD-3-Clause
"""Real work on a lanefs that reaches its device in a given way, and the same bytes seen in other ways.

work_in(driver, *devices) defines the cases and runs them; the programs kerneldevice.py, vfio.py and uio.py are this with a
driver each. For our own drivers the kernel's view of the device is compared in both directions: what one wrote is what the
other reads, journal, metadata and data.
"""
from vmguest import MIB, case, device, devices, equal, main, read_direct, run, write_pattern

from lanefs_test import need
from workload import (Volume, check_direct, check_git, check_sqlite, compare_tree, copy_tree, direct_work,
                      fsck_refuses_damage, git_work, hashes, sqlite_work)


def work_in(driver, *names):
    for name in names:
        on_device(driver, name)

    @case('the devices go back to the kernel')
    def back():
        for one in devices.values():
            one.bind('nvme')

    main()


def on_device(driver, name):
    volume = Volume(device(name))
    ours = driver != 'nvme'
    seen, lost = {}, []

    def named(text, others_need_it=False):
        """A case on this device; when one that the others need has failed, they fail without being tried."""
        def register(function):
            def guarded():
                equal(lost, [], 'not tried after the failure of')
                lost.extend([text] if others_need_it else [])
                function()
                lost.clear()
            case(f'{name} through {driver}: {text}')(guarded)
        return register

    @named('mkfs, mount', others_need_it=True)
    def format_and_mount():
        volume.use(driver).mkfs()
        volume.fsck()
        volume.mount()

    @named('a thousand small files go in and compare equal')
    def small_files():
        copy_tree(volume.top())
        compare_tree(volume.top())

    @named('large direct transfers')
    def direct():
        direct_work(volume.top())

    @named('git')
    def git():
        need('git')
        git_work(volume.top())

    @named('sqlite')
    def sqlite():
        sqlite_work(volume.top())

    @named('all is still there after unmounting and mounting again; fsck is clean', others_need_it=True)
    def again():
        volume.remount()
        compare_tree(volume.top())
        check_direct(volume.top())
        seen.update(hashes(volume.top()))
        volume.umount()
        volume.fsck()
        volume.fsck_on_host()

    @named('kill -9 of the daemon: it mounts again, nothing synced is lost', others_need_it=True)
    def crash():
        volume.mount()
        copy_tree(volume.top(), 'second')
        run('sync', '-f', volume.top())
        check_sqlite(volume.top())
        volume.kill()
        volume.mount()
        check_sqlite(volume.top())
        check_direct(volume.top())
        run('rm', '-r', f'{volume.top()}/second')
        volume.umount()
        volume.fsck()

    if not ours:
        return

    @named('what our driver wrote the kernel driver reads', others_need_it=True)
    def ours_to_kernel():
        volume.use('nvme')
        volume.fsck()
        volume.mount()
        equal(hashes(volume.top()) == seen, True, 'the same files with the same content')
        check_git(volume.top())

    @named('what the kernel driver wrote our driver reads', others_need_it=True)
    def kernel_to_ours():
        run('cp', '-a', f'{volume.top()}/tree/p1', f'{volume.top()}/by-kernel')
        volume.umount()
        expected = {**seen, **{path.replace('tree/p1/', 'by-kernel/', 1): value for path, value in seen.items()
                               if path.startswith('tree/p1/')}}
        volume.use(driver)
        volume.fsck()
        volume.mount()
        equal(hashes(volume.top()) == expected, True, 'the same files with the same content')
        volume.umount()
        volume.fsck_on_host()

    @named('damage done through the kernel driver is found through ours')
    def damage():
        volume.use('nvme')
        sound = read_direct(volume.path, 0, MIB)
        write_pattern(volume.path, 4096, 4096, 9)
        volume.use(driver)
        fsck_refuses_damage(volume)
        volume.use('nvme')
        with open(volume.path, 'r+b', buffering=0) as file:
            file.write(sound)
        volume.use(driver)
        volume.fsck()
