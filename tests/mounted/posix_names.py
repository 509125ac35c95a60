# SPDX-License-Identifier: BSD-3-Clause
"""Cases of basic_test.py: names, directories, links, attributes."""
import ctypes
import errno
import os
import socket
import stat
import subprocess
import sys
import time

from lanefs_test import Skip, equal, fails, run
from posix_common import basic, libc, pattern, read, write


# ---- names ------------------------------------------------------------------------------------------------------------
@basic
def directories(top):
    os.mkdir(f'{top}/d', 0o750)
    equal(stat.S_IMODE(os.stat(f'{top}/d').st_mode), 0o750)
    equal(os.stat(f'{top}/d').st_nlink, 2, 'links of an empty directory')
    os.mkdir(f'{top}/d/e')
    equal(os.stat(f'{top}/d').st_nlink, 3, 'links with one subdirectory')
    fails(errno.ENOTEMPTY, os.rmdir, f'{top}/d')
    fails(errno.EEXIST, os.mkdir, f'{top}/d')
    fails(errno.ENOTDIR, os.rmdir, __file__)
    os.rmdir(f'{top}/d/e')
    equal(os.stat(f'{top}/d').st_nlink, 2)
    equal(os.path.samestat(os.stat(f'{top}/d/..'), os.stat(top)), True, '..')
    os.rmdir(f'{top}/d')
    fails(errno.ENOENT, os.stat, f'{top}/d')


@basic
def deep_directories(top):
    path = top
    for i in range(100):
        path += f'/d{i}'
        os.mkdir(path)
    write(f'{path}/bottom', b'deep')
    equal(read(f'{path}/bottom'), b'deep')


@basic
def hard_links(top):
    write(f'{top}/a', b'one')
    os.link(f'{top}/a', f'{top}/b')
    equal(os.stat(f'{top}/a').st_nlink, 2)
    equal(os.stat(f'{top}/a').st_ino, os.stat(f'{top}/b').st_ino)
    write(f'{top}/b', b'two')
    equal(read(f'{top}/a'), b'two')
    os.unlink(f'{top}/a')
    equal(os.stat(f'{top}/b').st_nlink, 1, 'links after one unlink')
    fails(errno.EPERM, os.link, top, f'{top}/dirlink')


@basic
def symlinks(top):
    for length in (1, 50, 150, 1000, 4000):
        target = 'x' * length
        os.symlink(target, f'{top}/s{length}')
        equal(os.readlink(f'{top}/s{length}'), target)
        equal(os.lstat(f'{top}/s{length}').st_size, length)
    write(f'{top}/real', b'content')
    os.symlink('real', f'{top}/link')
    equal(read(f'{top}/link'), b'content')


@basic
def special_files(top):
    os.mkfifo(f'{top}/fifo', 0o600)
    equal(stat.S_ISFIFO(os.stat(f'{top}/fifo').st_mode), True)
    os.mknod(f'{top}/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))
    equal(os.stat(f'{top}/null').st_rdev, os.makedev(1, 3))
    with open(f'{top}/null', 'rb+', buffering=0) as device:
        device.write(b'gone')
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(top)  # socket paths are short
    try:
        server.bind('socket')
    finally:
        os.chdir(here)
        server.close()
    equal(stat.S_ISSOCK(os.stat(f'{top}/socket').st_mode), True)


@basic
def renames(top):
    write(f'{top}/a', b'a')
    write(f'{top}/b', b'b')
    os.rename(f'{top}/a', f'{top}/b')
    equal(read(f'{top}/b'), b'a', 'rename replaces')
    fails(errno.ENOENT, os.stat, f'{top}/a')
    os.mkdir(f'{top}/d')
    os.mkdir(f'{top}/e')
    os.rename(f'{top}/b', f'{top}/d/c')
    os.rename(f'{top}/d', f'{top}/e/d')
    equal(read(f'{top}/e/d/c'), b'a', 'a moved directory')
    equal(os.stat(f'{top}/e').st_nlink, 3)
    fails(errno.EINVAL, os.rename, f'{top}/e', f'{top}/e/d/inside')
    os.mkdir(f'{top}/empty')
    os.rename(f'{top}/e/d', f'{top}/empty')
    equal(read(f'{top}/empty/c'), b'a', 'over an empty directory')
    os.mkdir(f'{top}/full')
    write(f'{top}/full/x', b'')
    fails(errno.ENOTEMPTY, os.rename, f'{top}/empty', f'{top}/full')
    fails(errno.EISDIR, os.rename, f'{top}/full/x', f'{top}/empty')
    fails(errno.ENOTDIR, os.rename, f'{top}/empty', f'{top}/full/x')


@basic
def rename_flags(top):
    noreplace, exchange = 1, 2

    def renameat2(old, new, flags):
        if libc.renameat2(-100, old.encode(), -100, new.encode(), flags):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    write(f'{top}/a', b'a')
    os.mkdir(f'{top}/d')
    write(f'{top}/d/b', b'b')
    fails(errno.EEXIST, renameat2, f'{top}/a', f'{top}/d/b', noreplace)
    renameat2(f'{top}/a', f'{top}/d/b', exchange)
    equal((read(f'{top}/a'), read(f'{top}/d/b')), (b'b', b'a'), 'exchanged')
    renameat2(f'{top}/a', f'{top}/d', exchange)
    equal(read(f'{top}/d'), b'b', 'a file exchanged with a directory')
    equal(read(f'{top}/a/b'), b'a')


@basic
def unlinked_open_files(top):
    fd = os.open(f'{top}/f', os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b'still here')
    os.unlink(f'{top}/f')
    fails(errno.ENOENT, os.stat, f'{top}/f')
    equal(os.fstat(fd).st_nlink, 0)
    equal(os.pread(fd, 100, 0), b'still here')
    os.write(fd, b'x' * 100000)
    equal(os.fstat(fd).st_size, 100010)
    os.close(fd)


@basic
def tmpfile(top):
    try:
        fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Skip('this kernel passes no O_TMPFILE to FUSE')
        raise
    os.write(fd, b'no name yet')
    at_fdcwd, follow = -100, 0x400  # os.link never follows
    equal(libc.linkat(at_fdcwd, f'/proc/self/fd/{fd}'.encode(), at_fdcwd, f'{top}/named'.encode(), follow), 0,
          f'linkat: {os.strerror(ctypes.get_errno())}')
    os.close(fd)
    equal(read(f'{top}/named'), b'no name yet')


@basic
def many_entries(top):
    names = [f'{"entry" if i % 3 else "a-much-longer-name-of-an-entry"}-{i:06d}' for i in range(5000)]
    for name in names:
        os.close(os.open(f'{top}/{name}', os.O_CREAT | os.O_WRONLY, 0o644))
    equal(sorted(os.listdir(top)), sorted(names), 'listing')
    for name in names[::2]:
        os.unlink(f'{top}/{name}')
    equal(sorted(os.listdir(top)), sorted(names[1::2]), 'listing after removing half')
    equal(sum(entry.is_file(follow_symlinks=False) for entry in os.scandir(top)), len(names) // 2, 'types')


@basic
def readdir_while_removing(top):
    for i in range(3000):
        write(f'{top}/f{i}', b'')
    removed = 0
    with os.scandir(top) as entries:
        for entry in entries:
            os.unlink(entry.path)
            removed += 1
    equal(removed, 3000, 'every entry seen once while entries go')
    equal(os.listdir(top), [])


# ---- attributes -------------------------------------------------------------------------------------------------------
@basic
def modes_owners_times(top):
    path = f'{top}/f'
    write(path, b'x')
    os.chmod(path, 0o4711)
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o4711)
    os.chown(path, 1234, 4321)
    result = os.stat(path)
    equal((result.st_uid, result.st_gid), (1234, 4321))
    os.utime(path, ns=(1234567890123456789, 987654321987654321))
    result = os.stat(path)
    equal((result.st_atime_ns, result.st_mtime_ns), (1234567890123456789, 987654321987654321))
    os.utime(path, ns=(-1_000_000_000, 1 << 33))
    before = os.stat(path).st_ctime_ns
    time.sleep(0.01)
    os.chmod(path, 0o600)
    equal(os.stat(path).st_ctime_ns > before, True, 'ctime moves')
    before = os.stat(top).st_mtime_ns
    time.sleep(0.01)
    write(f'{top}/g', b'')
    equal(os.stat(top).st_mtime_ns > before, True, 'mtime of the directory moves')
    os.umask(0o022)


@basic
def chown_clears_suid(top):
    path, directory = f'{top}/f', f'{top}/d'
    write(path, b'x')
    os.mkdir(directory)
    for owner in ((1234, 4321), (-1, 4321), (-1, -1)):
        for each, left in ((path, 0o777), (directory, 0o6777)):
            os.chmod(each, 0o6777)
            os.chown(each, *owner)
            equal(stat.S_IMODE(os.stat(each).st_mode), left, f'{os.path.basename(each)} after chown {owner}')


@basic
def write_clears_suid(top):
    path = f'{top}/f'
    write(path, b'x')
    os.chown(path, 1234, 1234)
    os.chmod(path, 0o6777)
    # As another user: root's writes keep the bits.
    run(sys.executable, '-c', f'import os; os.setgid(4321); os.setuid(4321); f = open({path!r}, "r+b"); f.write(b"y")')
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o777, 'suid and sgid are gone')


@basic
def sticky_and_setgid(top):
    os.mkdir(f'{top}/shared')
    os.chown(f'{top}/shared', 0, 77)
    os.chmod(f'{top}/shared', 0o2777)
    os.mkdir(f'{top}/shared/sub')
    write(f'{top}/shared/f', b'')
    equal(os.stat(f'{top}/shared/sub').st_gid, 77)
    equal(os.stat(f'{top}/shared/sub').st_mode & stat.S_ISGID != 0, True, 'setgid is inherited by directories')
    equal(os.stat(f'{top}/shared/f').st_gid, 77)


@basic
def permissions_are_checked(top):
    os.mkdir(f'{top}/private', 0o700)
    write(f'{top}/private/f', b'secret')
    result = subprocess.run([sys.executable, '-c',
                             f'import os; os.setgid(99); os.setuid(99); open({top!r} + "/private/f")'],
                            capture_output=True, text=True)
    equal('PermissionError' in result.stderr, True, f'another user: {result.stderr[-200:]}')


@basic
def xattrs(top):
    path = f'{top}/f'
    write(path, b'x')
    values = {f'user.a{i}': pattern(size, i) for i, size in enumerate((0, 1, 10, 200, 1000, 4000, 20000))}
    for name, value in values.items():
        os.setxattr(path, name, value)
    equal(sorted(os.listxattr(path)), sorted(values))
    for name, value in values.items():
        equal(os.getxattr(path, name), value, name)
    fails(errno.EEXIST, os.setxattr, path, 'user.a1', b'', os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, path, 'user.none', b'', os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, path, 'user.none')
    os.setxattr(path, 'user.a5', b'short now')
    os.removexattr(path, 'user.a6')
    equal(os.getxattr(path, 'user.a5'), b'short now')
    fails(errno.ENODATA, os.removexattr, path, 'user.a6')
    os.setxattr(path, 'trusted.t', b'root only')
    equal(os.getxattr(path, 'trusted.t'), b'root only')
    equal(read(path), b'x', 'content is untouched')


@basic
def statfs_moves(top):
    before = os.statvfs(top)
    equal(before.f_bsize, 4096, 'block size')
    equal(before.f_namemax, 255, 'name length')
    write(f'{top}/f', bytes(8 << 20))
    fd = os.open(f'{top}/f', os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    used = before.f_bfree - os.statvfs(top).f_bfree
    equal(2048 <= used <= 2100, True, f'8 MiB take {used} blocks')
