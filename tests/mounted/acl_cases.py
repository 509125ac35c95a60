# SPDX-License-Identifier: BSD-3-Clause
"""Cases of acl_test.py: what can be seen of ACLs, umask and setgid directories, told line by line.

Each is a function of a directory and of say(), which takes a line. They run on lanefs and on ext4, and must tell the
same story; so nothing that differs between filesystems (times, sizes, errors of limits) may be told.
"""
import contextlib
import errno
import os
import socket
import stat
import struct
import subprocess

CASES = []
ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
ALICE, BOB, CAROL = 61001, 61002, 61003
STAFF, GUESTS = 62001, 62002
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xffffffff


def acl_case(function):
    CASES.append(function)
    return function


# ---- small tools ------------------------------------------------------------------------------------------------------
def acl_bytes(*entries, version=2):
    """Entries of tag, permissions and, for named ones, an id."""
    return struct.pack('<I', version) + b''.join(
        struct.pack('<HHI', entry[0], entry[1], entry[2] if len(entry) > 2 else NOBODY) for entry in entries)


def tried(function, *arguments, **keywords):
    """The result of a call as a word: what it returned, or the name of its error."""
    try:
        result = function(*arguments, **keywords)
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    return 'ok' if result is None else result


def as_user(uid, gids, function):
    """Runs the function in a child with these ids (the first group is the primary one); returns its word."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        word = 'failed'
        try:
            os.setgroups(gids[1:])
            os.setresgid(gids[0], gids[0], gids[0])
            os.setresuid(uid, uid, uid)
            word = str(tried(function))
        finally:
            os.write(write_end, word.encode())
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        word = pipe.read()
    os.waitpid(child, 0)
    return word


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def setfacl(*arguments):
    done = subprocess.run(['setfacl', *arguments], capture_output=True, text=True)
    return 'ok' if done.returncode == 0 else f'failed: {done.stderr.strip().rsplit(":", 1)[-1]}'


def getfacl(path):
    return subprocess.run(['getfacl', '-n', '-c', '-p', '--', path], capture_output=True, text=True,
                          check=True).stdout.split()


def looks(path):
    """Type, mode, owner and ACLs of a file, without following it."""
    result = os.lstat(path)
    words = [f'{result.st_mode:06o}', f'{result.st_uid}:{result.st_gid}']
    if not stat.S_ISLNK(result.st_mode):
        words += getfacl(path)
        words.append('kept: ' + ','.join(sorted(name for name in os.listxattr(path) if name in (ACCESS, DEFAULT))))
    return ' '.join(words)


def make_file(path, mode=0o666):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode))


def make_tmpfile(path, mode):
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR, mode)
    os.link(f'/proc/self/fd/{fd}', path, src_dir_fd=os.open('/', os.O_RDONLY), follow_symlinks=True)
    os.close(fd)


def make_socket(path):
    here = os.getcwd()
    os.chdir(os.path.dirname(path))  # socket paths are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.basename(path))
    finally:
        os.chdir(here)


def make_all(directory, say, mode):
    """One of each kind of inode with these permissions wanted."""
    for name, make in (('file', make_file), ('directory', os.mkdir), ('fifo', os.mkfifo),
                       ('device', lambda path, bits: os.mknod(path, stat.S_IFCHR | bits, os.makedev(1, 3))),
                       ('tmpfile', make_tmpfile)):
        path = f'{directory}/{name}-{mode:o}'
        make(path, mode)
        say(f'{name} {looks(path)}')


# ---- inheritance ------------------------------------------------------------------------------------------------------
DEFAULTS = ['', 'u::rwx,g::rx,o::-', 'u::rw,g::-,o::rwx', f'u::rwx,u:{ALICE}:rwx,g::rx,m::rwx,o::rx',
            f'u::rwx,u:{ALICE}:r,u:{BOB}:wx,g::rwx,g:{STAFF}:rwx,g:{GUESTS}:-,m::rx,o::r',
            f'u::r,g::rw,g:{STAFF}:x,m::-,o::w', 'u::rwx,g::rwx,m::rx,o::-']


@acl_case
def inheritance(top, say):
    for i, text in enumerate(DEFAULTS):
        for mask in (0, 0o022, 0o077, 0o777):
            directory = f'{top}/{i}-{mask:o}'
            os.mkdir(directory)
            if text:
                say(setfacl('-d', '--set', text, directory))
            with umask(mask):
                for mode in (0o666, 0o777, 0o640, 0o4751, 0):
                    make_all(directory, say, mode)
                os.symlink('target', f'{directory}/symlink')
                make_socket(f'{directory}/socket')
            say(f'symlink {looks(f"{directory}/symlink")}')
            say(f'socket {looks(f"{directory}/socket")}')


@acl_case
def inheritance_goes_on_downwards(top, say):
    say(setfacl('-d', '--set', f'u::rwx,u:{ALICE}:rwx,g::rx,m::rwx,o::-', top))
    path = top
    for i in range(5):
        path += f'/{i}'
        os.mkdir(path, 0o777 if i % 2 else 0o750)
        make_file(f'{path}/file')
        say(looks(path))
        say(looks(f'{path}/file'))
    say(setfacl('-k', f'{top}/0/1'))
    os.mkdir(f'{top}/0/1/after')
    say(looks(f'{top}/0/1'))
    say(looks(f'{top}/0/1/after'))


@acl_case
def long_acls_are_inherited(top, say):
    for count in (1, 3, 10, 60, 150):
        entries = ','.join(f'u:{70000 + i}:rx' for i in range(count))
        directory = f'{top}/{count}'
        os.mkdir(directory)
        say(setfacl('-d', '--set', f'u::rwx,{entries},g::r,m::rwx,o::-', directory))
        os.mkdir(f'{directory}/d')
        make_file(f'{directory}/f')
        say(looks(f'{directory}/d'))
        say(looks(f'{directory}/f'))


# ---- setting, removing, chmod -----------------------------------------------------------------------------------------
@acl_case
def access_acl_and_mode_go_together(top, say):
    for kind, make in (('f', make_file), ('d', os.mkdir)):
        path = f'{top}/{kind}'
        make(path)
        for step in (('-m', f'u:{ALICE}:rwx'), ('-m', 'm::r'), ('-m', f'g:{STAFF}:rw'), ('-n', '-m', f'u:{BOB}:x'),
                     ('-x', f'u:{ALICE}'), ('-m', 'u::r,o::rwx'), ('-b',), ('-b',), ('-m', 'g::w'),
                     ('--set', f'u::rw,u:{ALICE}:-,g::r,m::r,o::-')):
            say(f'{step} {setfacl(*step, path)} {looks(path)}')
        for mode in (0o777, 0o070, 0o6705, 0, 0o1644):
            os.chmod(path, mode)
            say(f'chmod {mode:o} {looks(path)}')
        os.removexattr(path, ACCESS)
        say(f'removed {looks(path)}')
        os.chmod(path, 0o4751)
        say(looks(path))
        say(setfacl('-m', f'u:{BOB}:rx', path))
        os.chown(path, ALICE, STAFF)
        say(f'after chown {looks(path)}')


@acl_case
def chmod_of_a_long_acl(top, say):
    path = f'{top}/f'
    make_file(path)
    entries = ','.join(f'g:{70000 + i}:rx' for i in range(200))
    say(setfacl('--set', f'u::rwx,g::r,{entries},m::rwx,o::-', path))
    for mode in (0o600, 0o777, 0o644):
        os.chmod(path, mode)
        say(looks(path))


@acl_case
def what_is_no_acl_is_refused(top, say):
    plain = ((USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 0))
    values = {
        'plain': acl_bytes(*plain),
        'named': acl_bytes((USER_OBJ, 7), (USER, 5, ALICE), (GROUP_OBJ, 1), (MASK, 4), (OTHER, 4)),
        'no mask': acl_bytes((USER_OBJ, 7), (USER, 5, ALICE), (GROUP_OBJ, 1), (OTHER, 4)),
        'no owner': acl_bytes((GROUP_OBJ, 1), (OTHER, 4)),
        'twice': acl_bytes((USER_OBJ, 7), *plain),
        'order': acl_bytes((GROUP_OBJ, 4), (USER_OBJ, 6), (OTHER, 0)),
        'permissions': acl_bytes((USER_OBJ, 8), (GROUP_OBJ, 4), (OTHER, 0)),
        'tag': acl_bytes((USER_OBJ, 7), (GROUP_OBJ, 4), (3, 1), (OTHER, 0)),
        'id': acl_bytes((USER_OBJ, 7), (USER, 5, NOBODY), (GROUP_OBJ, 1), (MASK, 4), (OTHER, 4)),
        'version': acl_bytes(*plain, version=1),
        'cut': acl_bytes(*plain)[:-1],
        'header': acl_bytes(),
        'empty': b'',
        'short': b'\2',
    }
    make_file(f'{top}/f')
    os.mkdir(f'{top}/d')
    os.symlink('f', f'{top}/s')
    for name, value in values.items():
        for path in (f'{top}/f', f'{top}/d', f'{top}/s'):
            for kind in (ACCESS, DEFAULT):
                for flags in (0, os.XATTR_CREATE, os.XATTR_REPLACE):
                    word = tried(os.setxattr, path, kind, value, flags, follow_symlinks=False)
                    say(f'{name} {kind} {path[-1]} {flags} {word} {looks(path)}')
    for path in (f'{top}/f', f'{top}/d', f'{top}/s'):
        for kind in (ACCESS, DEFAULT):
            for i in range(2):
                word = tried(os.removexattr, path, kind, follow_symlinks=False)
                say(f'remove {kind} {path[-1]} {word} {looks(path)}')
            say(f'get {kind} {path[-1]} {tried(os.getxattr, path, kind, follow_symlinks=False)}')


@acl_case
def names_share_their_acl(top, say):
    make_file(f'{top}/a')
    os.mkdir(f'{top}/d')
    say(setfacl('-d', '-m', f'u:{ALICE}:rwx', f'{top}/d'))
    say(setfacl('-m', f'u:{BOB}:rwx', f'{top}/a'))
    os.link(f'{top}/a', f'{top}/d/b')
    os.chmod(f'{top}/d/b', 0o640)
    say(looks(f'{top}/a'))
    os.rename(f'{top}/a', f'{top}/d/c')
    say(looks(f'{top}/d/c'))
    os.rename(f'{top}/d', f'{top}/e')
    make_file(f'{top}/e/new')
    say(looks(f'{top}/e/new'))


# ---- setgid -----------------------------------------------------------------------------------------------------------
@acl_case
def setgid_directories(top, say):
    for i, default in enumerate(('', f'u::rwx,u:{BOB}:rwx,g::rwx,m::rwx,o::rwx')):
        directory = f'{top}/{i}'
        os.mkdir(directory)
        if default:
            say(setfacl('-d', '--set', default, directory))
        os.chown(directory, 0, STAFF)
        os.chmod(directory, 0o2777)
        for name, uid, gids in (('root', 0, [0]), ('in', ALICE, [STAFF]), ('also', ALICE, [GUESTS, STAFF]),
                                ('out', BOB, [GUESTS])):
            for mode in (0o2775, 0o2745, 0o775):
                word = as_user(uid, gids, lambda: make_file(f'{directory}/{name}-{mode:o}', mode))
                say(f'file {name} {word} {looks(f"{directory}/{name}-{mode:o}")}')
            word = as_user(uid, gids, lambda: os.mkdir(f'{directory}/{name}', 0o755))
            say(f'directory {name} {word} {looks(f"{directory}/{name}")}')
            word = as_user(uid, gids, lambda: make_tmpfile(f'{directory}/{name}-tmp', 0o2775))
            say(f'tmpfile {name} {word}')


@acl_case
def setting_an_acl_takes_setgid_from_outsiders(top, say):
    acls = {'named': acl_bytes((USER_OBJ, 7), (USER, 5, BOB), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 4)),
            'plain': acl_bytes((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 4))}
    for name, value in acls.items():
        for who, uid, gids in (('root', 0, [0]), ('in', ALICE, [STAFF]), ('also', ALICE, [GUESTS, STAFF]),
                               ('out', ALICE, [GUESTS]), ('other', BOB, [STAFF])):
            for kind, make in (('file', make_file), ('dir', os.mkdir)):
                path = f'{top}/{name}-{who}-{kind}'
                make(path)
                os.chown(path, ALICE, STAFF)
                os.chmod(path, 0o6775)
                word = as_user(uid, gids, lambda: os.setxattr(path, ACCESS, value))
                say(f'{name} {who} {kind} {word} {looks(path)}')
                word = as_user(uid, gids, lambda: os.setxattr(path, DEFAULT, value))
                say(f'default {word} {looks(path)}')
                word = as_user(uid, gids, lambda: os.chmod(path, 0o2770))
                say(f'chmod {word} {looks(path)}')
                word = as_user(uid, gids, lambda: os.removexattr(path, ACCESS))
                say(f'remove {word} {looks(path)}')


# ---- access -----------------------------------------------------------------------------------------------------------
WHO = (('root', 0, [0]), ('alice', ALICE, [ALICE]), ('bob', BOB, [BOB]), ('carol in staff', CAROL, [CAROL, STAFF]),
       ('carol in guests', CAROL, [GUESTS]), ('carol in both', CAROL, [GUESTS, STAFF]), ('stranger', 61004, [61004]))


@acl_case
def access_checks(top, say):
    acls = [f'u::rw,u:{BOB}:r,g::-,m::rwx,o::-', f'u::-,u:{BOB}:rwx,g::r,m::r,o::rwx',
            f'u::rwx,u:{BOB}:-,g::r,g:{STAFF}:w,g:{GUESTS}:x,m::rwx,o::r', f'u::rwx,g::-,g:{STAFF}:rwx,m::rx,o::-']
    os.chmod(top, 0o755)
    for i, text in enumerate(acls):
        directory, path = f'{top}/d{i}', f'{top}/f{i}'
        os.mkdir(directory)
        with open(path, 'w') as file:
            file.write('#!/bin/sh\nexit 0\n')
        make_file(f'{directory}/inside')
        for each in (directory, path, f'{directory}/inside'):
            os.chown(each, ALICE, GUESTS)
        say(setfacl('--set', text, directory, path))
        for who, uid, gids in WHO:
            words = [as_user(uid, gids, function) for function in (
                lambda: os.close(os.open(path, os.O_RDONLY)), lambda: os.close(os.open(path, os.O_WRONLY)),
                lambda: os.access(path, os.X_OK), lambda: os.access(path, os.W_OK),
                lambda: len(os.listdir(directory)), lambda: os.stat(f'{directory}/inside').st_mode,
                lambda: make_file(f'{directory}/by-{uid}-{gids[0]}-{len(gids)}'),
                lambda: os.getxattr(path, ACCESS).hex(), lambda: os.chmod(path, 0o777) if uid == BOB else None,
                lambda: os.setxattr(path, ACCESS, acl_bytes((1, 7), (4, 7), (32, 7))) if uid == CAROL else None)]
            say(f'{i} {who}: {" ".join(words)}')


@acl_case
def changes_count_at_once(top, say):
    path = f'{top}/f'
    make_file(path, 0o600)
    os.chmod(top, 0o755)
    may = lambda: as_user(BOB, [BOB], lambda: os.close(os.open(path, os.O_RDONLY)))
    say(may())
    for step in (lambda: setfacl('-m', f'u:{BOB}:r', path), lambda: os.chmod(path, 0o600), lambda: os.chmod(path, 0o640),
                 lambda: setfacl('-b', path), lambda: setfacl('-m', f'u:{BOB}:rw', path),
                 lambda: setfacl('-m', 'm::-', path), lambda: os.removexattr(path, ACCESS),
                 lambda: os.chmod(path, 0o644)):
        step()
        say(f'{may()} {looks(path)}')
