# SPDX-License-Identifier: BSD-3-Clause
"""Goal: what the commands' --help, the manual pages, the completion and the sources say of options is the same.
Method: the commands are run with --help; the pages are read and formatted; the completion is sourced in a bash of its own
and asked as bash does it. Needs neither root nor a mount. LANEFS_BUILD names the build folder.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get('LANEFS_BUILD', f'{SOURCE}/build'))
COMMANDS = {'lanefs': 'control', 'mkfs.lanefs': 'mkfs', 'fsck.lanefs': 'mkfs', 'mount.lanefs': 'fs/daemon',
            'umount.lanefs': 'fs/daemon'}
PATH = ':'.join([f'{BUILD}/{folder}' for folder in sorted(set(COMMANDS.values()))] + [os.environ['PATH']])
ENVIRONMENT = dict(os.environ, PATH=PATH, LC_ALL='C.UTF-8')
WITHOUT_DASH = {'version', 'help'}
_tests = []


def case(name):
    return lambda function: _tests.append((name, function))


def run(*words, **keywords):
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, stdin=subprocess.DEVNULL, timeout=60, **keywords)


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f'{what}: got {actual!r}, wanted {expected!r}')


def help_of(*words):
    result = run(*words, '--help')
    equal((result.returncode, result.stderr), (0, ''), f'{words} --help')
    return result.stdout


def options_in(text):
    """Options in a help text, also those written together after the usage ("[-flnrv]")."""
    found = set(re.findall(r'(?<![\w-])(--[a-z][a-z-]*[a-z]|-[A-Za-z])(?![\w-])', text))
    for group in re.findall(r'\[-([A-Za-z]{2,})\]', text):
        found |= {f'-{letter}' for letter in group}
    return found


def page(name):
    with open(glob.glob(f'{SOURCE}/doc/man/{name}.[0-9]')[0], encoding='utf-8') as file:
        return file.read().replace('\\-', '-')


def options_in_page(text):
    text = re.sub(r'\\f.|"', ' ', text)
    found = set(re.findall(r'(?<![\w-])(--[a-z][a-z-]*[a-z]|-[A-Za-z])(?![\w-])', text))
    for group in re.findall(r'\[ -([A-Za-z]{2,}) \]', text):
        found |= {f'-{letter}' for letter in group}
    return found


def subcommands():
    return re.findall(r'^  ([a-z][a-z-]*) ', help_of('lanefs'), re.M)


def entries():
    """What lanefs(1) says of each subcommand."""
    text = page('lanefs').split('.SH DESCRIPTION')[1].split('.SH EXIT')[0]
    names = '|'.join(re.escape(name) for name in subcommands())
    parts = re.split(rf'^\.TP\n\.B ({names})\n', text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


# ---- the cases ------------------------------------------------------------------------------------------------------
@case('every command and subcommand explains itself, with status 0')
def _():
    for command in COMMANDS:
        equal(help_of(command).lower().startswith(f'usage: {command}'), True, f'{command} --help')
    for name in subcommands():
        text = help_of('lanefs', name)
        if name != 'help':
            equal(re.match(rf'[Uu]sage: lanefs {name}\b', text) is not None, True, f'lanefs {name} --help: {text}')
        equal(run('lanefs', 'help', name).stdout, text, f'lanefs help {name}')
    equal(max(len(line) for line in help_of('lanefs').split('\n')) <= 110, True, 'width of lanefs help')


@case('wrong usage has the status of the manual, and one line')
def _():
    for command, status in (('lanefs', 2), ('mkfs.lanefs', 2), ('fsck.lanefs', 16), ('mount.lanefs', 1), ('umount.lanefs', 1)):
        result = run(command, '--no-such-option')
        equal((result.returncode, result.stdout), (status, ''), f'{command} --no-such-option')
        equal(result.stderr.startswith(f'{command}: '), True, result.stderr)
    for name in set(subcommands()) - WITHOUT_DASH:
        result = run('lanefs', name, '--no-such-option')
        equal((result.returncode, result.stdout, result.stderr.count('\n')), (2, '', 1), f'lanefs {name}: {result.stderr}')


@case('manual pages: options are those of --help')
def _():
    for command in ('mkfs.lanefs', 'fsck.lanefs', 'mount.lanefs', 'umount.lanefs'):
        text = page(command)
        manual = set()
        for section in re.findall(r'^\.SH (?:SYNOPSIS|FLAGS|OPTIONS)\n(.*?)(?=^\.SH)', text, re.M | re.S):
            manual |= options_in_page(section)
        wanted = options_in(help_of(command)) - {'-o', '-y', '-a', '-p'}
        equal(sorted(wanted - manual), [], f'of {command} --help, missing in its page')
        equal(sorted(manual - options_in(help_of(command)) - {'-o', '-t'}), [], f'of the page of {command}, missing in --help')
    said = entries()
    for name in set(subcommands()) - WITHOUT_DASH:
        equal(name in said, True, f'lanefs(1) speaks of {name}')
        equal(sorted(options_in(help_of('lanefs', name)) - options_in_page(said[name])), [],
              f'of lanefs {name} --help, missing in lanefs(1)')
        equal(sorted(options_in_page(said[name]) - options_in(help_of('lanefs', name)) - {'-o'} - {'--help'}), [],
              f'of what lanefs(1) says of {name}, missing in --help')


@case('options that the sources take are in a help text')
def _():
    known = set()
    for name in subcommands():
        known |= options_in(help_of('lanefs', name))
    for source in glob.glob(f'{SOURCE}/control/*.c') + glob.glob(f'{SOURCE}/mkfs/dump*.c'):
        with open(source, encoding='utf-8') as file:
            taken = set(re.findall(r'(?:strcmp\([^,]*|option_take\(), ?"?(--[a-z-]+)"', file.read())) | \
                set(re.findall(r'option_take\("(--[a-z-]+)"', open(source, encoding='utf-8').read()))
        equal(sorted(taken - known - {'--help', '--version'}), [], f'{os.path.basename(source)} takes, and no help says')


@case('mount options: table, --help, page and completion agree')
def _():
    with open(f'{SOURCE}/fs/daemon/options.c', encoding='utf-8') as file:
        rows = dict(re.findall(r'^\t\{"([a-z_]+)", OPTION_([A-Z]+)', file.read(), re.M))
    equal(len(rows) > 40, True, 'rows of the table')
    own = {name for name, kind in rows.items() if kind not in ('CLEAR', 'IGNORE', 'KEEP')} | {'rw'}
    text = help_of('mount.lanefs').split('Options:')[1]
    said = set(re.findall(r'[a-z_]+', re.sub(r'=[^ \n]*', '', text)))
    equal(sorted(own - said - {'default_permissions'}), [], 'options missing in mount.lanefs --help')
    manual = set(re.findall(r'[a-z_]+', re.sub(r'\\f.', ' ', page('mount.lanefs'))))
    equal(sorted({name for name, kind in rows.items() if kind != 'IGNORE'} - manual), [], 'options missing in mount.lanefs(8)')
    offered = {word.rstrip('=') for word in complete('mount.lanefs a b -o ')}
    equal(sorted(own - offered - {'default_permissions'}), [], 'options that are not completed')
    equal(sorted(offered - set(rows)), [], 'completed, but no options')


@case('manual pages have no errors of form')
def _():
    if not shutil.which('groff'):
        return 'no groff here'
    for path in sorted(glob.glob(f'{SOURCE}/doc/man/*.[0-9]')):
        result = run('groff', '-Tutf8', '-t', '-ww', '-man', '-z', path)
        equal((result.returncode, result.stderr), (0, ''), f'groff on {os.path.basename(path)}')
        name, section = os.path.basename(path).rsplit('.', 1)
        with open(path, encoding='utf-8') as file:
            equal(f'.TH {name.upper()} {section} ' in file.read().replace('\\-', '-'), True, f'.TH of {path}')
    pages = {os.path.basename(path) for path in glob.glob(f'{SOURCE}/doc/man/*.[0-9]')}
    for path in pages:
        with open(f'{SOURCE}/doc/man/{path}', encoding='utf-8') as file:
            for name, section in re.findall(r'^\.BR ([a-z\\.-]*lanefs[a-z\\.-]*) \((\d)\)', file.read(), re.M):
                name = name.replace('\\-', '-')
                equal(f'{name}.{section}' in pages, True, f'{path} refers to {name}({section})')
    return None


@case('lanefs-rpc(7) has every method that the daemon knows')
def _():
    methods = set()
    for path in glob.glob(f'{SOURCE}/fs/daemon/*.c'):
        with open(path, encoding='utf-8') as file:
            text = file.read()
        methods |= set(re.findall(r'strcmp\(method, "([a-z_]+)"\)', text))
        methods |= set(re.findall(r'^\t\{"([a-z_]+)", [a-z_A-Z]+, [a-z_]+_run', text, re.M))
    equal(len(methods) > 20, True, f'methods in the sources: {sorted(methods)}')
    said = set(re.findall(r'^\.TP\n\.B ([a-z_]+)$', page('lanefs-rpc').split('.SH METHODS')[1].split('.SH STATUS')[0], re.M))
    equal(sorted(methods - said), [], 'methods missing in lanefs-rpc(7)')
    equal(sorted(said - methods - {'wait', 'unmount'} | {'grow'} - methods), sorted({'grow'} - methods),
          'methods of lanefs-rpc(7) that are not there')


# ---- completion -----------------------------------------------------------------------------------------------------
def complete(line, folder='/'):
    """What bash would offer for this line, the way bash asks: words broken at its own characters."""
    script = f'''. {SOURCE}/control/completion.bash
COMP_LINE=$1 COMP_POINT=${{#1}} COMP_TYPE=9 COMP_KEY=9
set -f; IFS=' ' ; words=($1); unset IFS
command=${{words[0]}}
function=$(complete -p "$command" | sed -E 's/.*-F ([^ ]+) .*/\\1/')
set +f
"$function" "$command" "" ""
printf '%s\\n' "${{COMPREPLY[@]}}"'''
    result = run('bash', '-c', script, 'bash', line, cwd=folder)
    lines = [text for text in result.stderr.split('\n') if text and 'compopt' not in text]
    equal((result.returncode, lines), (0, []), f'completing {line!r}')
    return [word for word in result.stdout.split('\n') if word]


@case('completion: subcommands and options are those of --help')
def _():
    equal(sorted(complete('lanefs ')), sorted(subcommands() + ['--help', '--version']), 'subcommands')
    equal(complete('lanefs sta'), ['status', 'stats'], 'lanefs sta')
    equal(set(complete('lanefs help ')), set(subcommands()), 'lanefs help')
    for name in set(subcommands()) - WITHOUT_DASH:
        wanted = options_in(help_of('lanefs', name)) | {'--help'}
        if name != 'emu':
            equal(set(complete(f'lanefs {name} -')), wanted, f'options of lanefs {name}')
    for command in set(COMMANDS) - {'lanefs'}:
        wanted = options_in(help_of(command)) | {'--help'}
        equal(wanted - set(complete(f'{command} -')) - {'-s', '-n', '-f', '-v', '-l', '-r', '-o'}, set(), f'options of {command}')


@case('completion: words of each place')
def _():
    for line, wanted in (('lanefs log-level /mnt w', ['warn']), ('lanefs top --view re', ['reactors', 'requests']),
                         ('lanefs top --interval ', []), ('lanefs bind --driver v', ['vfio-pci']),
                         ('lanefs emu /mnt cut ', ['all', 'random', 'none']), ('lanefs emu /mnt po', ['power-cut']),
                         ('mount.lanefs a b -o ro,on_removal=w', ['wait', 'wait=']),
                         ('mount.lanefs a b -o ro,noat', ['ro,noatime']),
                         ('mkfs.lanefs -L ', []), ('mkfs.lanefs em', ['emu:'])):
        equal(complete(line), wanted, line)
    dump = re.findall(r'^  ([a-z]+) ', help_of('lanefs', 'dump'), re.M)
    equal(complete('lanefs dump /x.img '), dump, 'structures')
    with tempfile.TemporaryDirectory(prefix='lanefs-completion-') as folder:
        for name in ('disk one.img', 'disk2.img'):
            with open(f'{folder}/{name}', 'w', encoding='utf-8'):
                pass
        os.mkdir(f'{folder}/place')
        for line in ('mkfs.lanefs -f d', 'fsck.lanefs d', 'lanefs dump d', 'mount.lanefs d', 'mkfs.lanefs emu:d',
                     'mount.lanefs emu:d', 'lanefs attach /mnt d'):
            equal(sorted(complete(line, folder)), ['disk one.img', 'disk2.img'], line)
        equal(complete('mount.lanefs disk2.img p', folder), ['place'], 'a mount point')
        equal(complete('mount.lanefs disk2.img d', folder), [], 'a mount point is a directory')
    for line in ('lanefs status ', 'umount.lanefs ', 'lanefs trim -o 5 '):
        before, offered, after = mounted(), set(complete(line)), mounted()  # others may mount meanwhile
        equal(before & after <= offered <= before | after, True, f'{line}: {offered}')


def mounted():
    with open('/proc/self/mounts', encoding='utf-8') as file:
        return {line.split()[1].encode().decode('unicode_escape') for line in file if line.split()[2] == 'fuse.lanefs'}


def main():
    print(f'1..{len(_tests)}')
    failed = 0
    for number, (name, function) in enumerate(_tests, 1):
        try:
            skip = function()
            print(f'ok {number} - {name}' + (f' # SKIP {skip}' if skip else ''))
        except Exception as error:  # the other cases still run
            failed += 1
            print(f'not ok {number} - {name}\n# {type(error).__name__}: {error}')
    sys.exit(1 if failed else 0)


main()
