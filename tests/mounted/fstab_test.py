#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The examples that we hand out work: the lines for /etc/fstab, and the systemd unit, with paths of this test in place of
theirs."""
import os
import re

from lanefs_test import BUILD, SOURCE, Image, Skip, case, equal, in_namespace, main, need, note, run, work_dir

EXAMPLES = f'{SOURCE}/doc/examples'


def fstab_lines():
    """Fields of every line, those that are commented out as well."""
    with open(f'{EXAMPLES}/fstab') as file:
        return [fields for line in file for fields in [line.lstrip('#').split()] if len(fields) == 6 and fields[2] == 'lanefs']


@case('each fstab line: mount DIR, mount -a, umount, which waits for the clean image')
def fstab():
    image = Image('fstab', '96M')
    lines = fstab_lines()
    equal(len(lines) >= 4, True, f'{len(lines)} lines')
    script = ('mount -T "$4" "$2"; findmnt -n -o FSTYPE,OPTIONS "$2"; test $5 = ro || date >"$2"/f; umount "$2"; '
              '"$3"/mkfs/fsck.lanefs -n "$1" >&2; mount -a -T "$4"; test -e "$2"/f; mount -a -T "$4"; umount "$2"; '
              '"$3"/mkfs/fsck.lanefs -n "$1" >&2; ! grep -F "$2" /run/mount/utab')
    for i, (source, _, kind, options, dump, check) in enumerate(lines):
        # Devices and cores that are not here: an emulated drive, and core 0.
        target = f'emu:{image.path}' if re.match(r'[0-9a-f]{4}:', source) else image.path
        options = re.sub(r'@\d+', '@0', options)
        path = f'{work_dir()}/fstab-{i}'
        with open(path, 'w') as file:
            file.write(f'{target} {image.directory} {kind} {options} {dump} {check}\n')
        output = in_namespace(script, target, image.directory, BUILD, path, 'ro' if 'ro' in options.split(',') else 'rw')
        note(f'{options}: {output.strip()}')
        equal(output.startswith('fuse.lanefs'), True, output)


def unit():
    """Keys of the unit, section by section."""
    sections, current = {}, None
    with open(f'{EXAMPLES}/mnt-lanefs.mount') as file:
        for line in file:
            if line.startswith('['):
                current = sections.setdefault(line.strip(), {})
            elif '=' in line and not line.startswith('#'):
                key, value = line.rstrip('\n').split('=', 1)
                current[key] = value
    return sections


@case('the systemd unit is accepted by systemd-analyze, and its name fits')
def verify():
    need('systemd-analyze', 'systemd-escape')
    result = run('systemd-analyze', '--man=no', 'verify', f'{EXAMPLES}/mnt-lanefs.mount', check=False, timeout=60)
    if 'Failed to' in result.stderr:
        raise Skip(result.stderr.strip())
    equal((result.returncode, result.stderr), (0, ''), 'systemd-analyze verify')
    equal(run('systemd-escape', '-p', '--suffix=mount', unit()['[Mount]']['Where']).stdout.strip(), 'mnt-lanefs.mount')


@case('what systemd does with the unit: mount with its type and options, later umount')
def as_systemd():
    image = Image('unit', '96M')
    mount = unit()['[Mount]']
    equal(os.path.isabs(mount['What']) and os.path.isabs(mount['Where']), True)
    output = in_namespace('mount "$1" "$2" -t "$4" -o "$5"; findmnt -n -o FSTYPE "$2"; touch "$2"/f; umount "$2" -c; '
                          '"$3"/mkfs/fsck.lanefs -n "$1" >&2', image.path, image.directory, BUILD, mount['Type'],
                          mount['Options'])
    equal(output, 'fuse.lanefs\n')


if __name__ == '__main__':
    main()
