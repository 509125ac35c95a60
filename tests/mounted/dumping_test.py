# SPDX-License-Identifier: BSD-3-Clause
"""Goal: lanefs dump finds its way in the image of a crashed filesystem, as the next mount will see it.
Method: files are made and synced, the daemon is killed before a checkpoint; what dump says of names, inodes and blocks is
compared with what was made, and with the raw image, which does not have it yet. Then random damage to such an image.
"""
import os
import random
import re

from lanefs_test import LANEFS, MIB, Image, case, equal, main, run


def dump(image, *words, status=0):
    result = run(LANEFS, 'dump', *words[:-1], image.path, *words[-1].split(' ', 1), check=False)
    equal(result.returncode, status, f'lanefs dump {words}: {result.stdout[-500:]}{result.stderr[-500:]}')
    return result.stdout + result.stderr


def crashed(name):
    """A filesystem that was killed: a tree of names, a file in pieces, hard links, a removed file that was open."""
    image = Image(name, '512M', mkfs=('-j', '64M'))  # large enough that nothing goes home
    image.mount('reactors=2,commit=300')
    top = image.directory
    os.makedirs(f'{top}/a/deep/er')
    for i in range(3000):
        os.close(os.open(f'{top}/a/file{i}', os.O_CREAT | os.O_WRONLY))
    with open(f'{top}/a/deep/er/pieces', 'wb', buffering=0) as file:
        for i in range(300):
            file.seek(i * 8192)
            file.write(bytes([i % 256]) * 4096)
    os.link(f'{top}/a/deep/er/pieces', f'{top}/second name')
    os.setxattr(f'{top}/a/deep/er/pieces', 'user.large', b'v' * 20000)
    numbers = {path: os.stat(f'{top}/{path}').st_ino for path in ('a', 'a/file2999', 'second name')}
    orphan = os.open(f'{top}/orphan', os.O_CREAT | os.O_RDWR)
    numbers['orphan'] = os.fstat(orphan).st_ino
    os.unlink(f'{top}/orphan')
    os.fsync(orphan)  # everything before it is durable, too
    os.close(os.dup(orphan))
    image.kill()
    os.close(orphan)
    return image, numbers


@case('a crashed filesystem is shown with its journal, and raw without')
def _():
    image, numbers = crashed('crash')
    text = dump(image, 'path /a/file2999')
    equal('groups of the journal' in text and 'BAD' not in text, True, text)
    equal(f'inode {numbers["a/file2999"]} (' in text, True, text)
    dump(image, '--raw', 'path /second name', status=1)
    equal('3001 entries' in dump(image, f'dir {numbers["a"]}'), True, 'entries')
    equal('no name leads to it (removed while it was open)' in dump(image, f'names {numbers["orphan"]}'), True, 'orphan')
    text = dump(image, f'names {numbers["second name"]}')
    equal(sorted(re.findall('^"(.*)"$', text, re.M)), ['/a/deep/er/pieces', '/second name'], text)
    text = dump(image, f'inode {numbers["second name"]}')
    extents = re.findall(r'file blocks (\d+)-(\d+) at (\d+)-', text)
    equal((len(extents), 'xattr                user."large", 20000 bytes' in text), (300, True), text[-2000:])
    logical, _, physical = extents[123]
    text = dump(image, f'owner {physical}')
    equal(f'data of inode {numbers["second name"]}, its block {logical}\n' in text and '"/second name"' in text, True, text)
    text = dump(image, f'block {physical}')
    equal('in use' in text and f'{123:02x} {123:02x}' in text, True, text)
    equal(len(re.findall('^  inode ', dump(image, 'inodes'), re.M)), 3006, 'inodes')
    image.mount()
    image.umount()
    equal('groups of the journal' in dump(image, 'path /a/file2999'), False, 'nothing to apply after a clean unmount')
    dump(image, '--raw', 'path /second name')


@case('random damage of a crashed image is survived')
def _():
    image, numbers = crashed('damage')
    draw = random.Random(4711)
    for _ in range(25):
        kept = []
        with open(image.path, 'r+b') as file:
            for _ in range(40):
                place = draw.choice((draw.randrange(1, 4), draw.randrange(4, 1500), draw.randrange(16388, 17000))) * 4096 + \
                    draw.randrange(4096)
                file.seek(place)
                kept.append((place, file.read(1)))
                file.seek(place)
                file.write(bytes([draw.randrange(256)]))
        for words in ('all', f'dir {numbers["a"]}', f'names {numbers["second name"]}', f'owner {draw.randrange(1, 2000)}',
                      f'inode {numbers["second name"]}', 'path /a/deep/er/pieces'):
            result = run(LANEFS, 'dump', image.path, *words.split(' '), check=False, errors='replace')
            equal(result.returncode in (0, 1), True, f'{words}: {result.returncode} {result.stderr[-1000:]}')
        with open(image.path, 'r+b') as file:
            for place, byte in reversed(kept):
                file.seek(place)
                file.write(byte)
    equal('BAD' in dump(image, 'all'), False, 'the image is as it was')


@case('dump reads what mkfs, mount and fsck read: a drive, a grown filesystem; and refuses one that is mounted')
def _():
    image = Image('grown', '128M')
    image.mount('commit=300')
    run(LANEFS, 'grow', image.directory, '300M')
    with open(f'{image.directory}/file', 'wb') as file:
        file.write(os.urandom(200 * MIB))
        file.flush()
        os.fsync(file.fileno())
    text = dump(image, 'super', status=1)
    equal(text.count('\n') == 1 and 'in use' in text, True, f'while it is mounted: {text}')
    image.kill()
    equal(f'blocks               {300 * 256}\n' in dump(image, 'super'), True, 'the size after growing')
    text = dump(image, 'path /file')
    last = re.findall(r' at \d+-(\d+)', text)[-1]
    equal('"/file"' in dump(image, f'owner {last}'), True, 'a block of the new space')
    text = run(LANEFS, 'dump', f'emu:{image.path}', 'names', '1').stdout
    equal('"/"' in text, True, text)


if __name__ == '__main__':
    main()
