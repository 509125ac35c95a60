#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a mount costs when nobody uses it, and how long mounting takes. Figures are printed; bounds are those of the
project's promises, widened where a shared machine's clock decides."""
import os
import time

from lanefs_test import FSCK, MKFS, MOUNT, Image, case, equal, main, note, run

TICKS = os.sysconf('SC_CLK_TCK')


def cpu_seconds(pid):
    with open(f'/proc/{pid}/stat') as file:
        fields = file.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid):
    with open(f'/proc/{pid}/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('VmRSS:')) / 1024


def timed_mount(image, options=''):
    begin = time.monotonic()
    run(MOUNT, image.path, image.directory, *(['-o', options] if options else []))
    took = time.monotonic() - begin
    image.pid = image.status()['pid']
    return took


def costs_nothing(image, options, what):
    image.mount(options)
    for i in range(200):
        with open(f'{image.directory}/f{i}', 'wb') as file:
            file.write(bytes(10000))
    time.sleep(4)
    begin, seconds = cpu_seconds(image.pid), 10
    time.sleep(seconds)
    share = 100 * (cpu_seconds(image.pid) - begin) / seconds
    memory = resident_mib(image.pid)
    note(f'{what}: {share:.2f} % of a core, {memory:.1f} MiB resident')
    equal(share <= 0.5, True, f'{share:.2f} % of a core')
    equal(memory < 100, True, f'{memory:.1f} MiB resident')
    image.umount()


@case('an idle mount uses next to no processor time and little memory')
def idle():
    costs_nothing(Image('idle', '4G'), 'reactors=2', 'two idle reactors')


@case('an idle emulated NVMe controller, attached and mounted, costs no more')
def idle_drive():
    image = Image('drive', '1G')
    image.target = f'emu:{image.path},cache=16M'
    costs_nothing(image, '', 'idle controller')


@case('a clean 1 TiB image: formatted in about a second, mounted in half of one')
def big():
    image = Image('big', '1T', format=False)
    begin = time.monotonic()
    run('/usr/bin/env', 'true')
    spawn = time.monotonic() - begin
    begin = time.monotonic()
    run(MKFS, image.path)
    formatted = time.monotonic() - begin
    took = min(timed_mount(image), *(image.umount() or timed_mount(image) for _ in range(2)))
    note(f'1 TiB: mkfs {formatted:.2f} s, mount {took:.3f} s (starting a program: {spawn:.3f} s)')
    equal(formatted < 5, True, f'mkfs took {formatted:.2f} s')
    equal(took < 0.5, True, f'mounting took {took:.3f} s')
    image.umount()


@case('after a crash with a full journal: mounted in two seconds')
def replay():
    image = Image('replay', '8G', mkfs=('-j', '64M'))
    image.mount()
    top = image.directory
    deadline = time.monotonic() + 60
    number = 0
    # Until the journal is about as full as it gets: checkpoints start at half of it.
    while time.monotonic() < deadline:
        os.mkdir(f'{top}/d{number}')
        for i in range(500):
            os.close(os.open(f'{top}/d{number}/file-with-a-name-{i}', os.O_CREAT | os.O_WRONLY, 0o644))
        number += 1
        journal = image.status()['journal']
        if journal['used_bytes'] > 0.45 * journal['bytes']:
            break
    used = image.status()['journal']['used_bytes'] / (1 << 20)
    image.kill()
    took = timed_mount(image)
    journal = image.status()['journal']
    note(f'{used:.0f} MiB of the journal in use: {journal["replayed_groups"]} groups, {journal["replayed_records"]} '
         f'records replayed, mounted in {took:.3f} s')
    equal(journal['replayed_groups'] > 0, True, 'something was replayed')
    equal(took < 2, True, f'mounting took {took:.3f} s')
    image.umount()
    run(FSCK, '-n', image.path)


if __name__ == '__main__':
    main()
