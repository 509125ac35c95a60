#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Checks that a reader of the source may rely on, cheap enough to run every time. Prints PASS or FAIL per check, and the
offending places before a FAIL.

MAY_WAIT: a function that calls one which may suspend the running fiber must say so itself (in its own line or in a
header), unless it is where a fiber begins: then its address is taken and its only parameter is a void pointer.
"""
import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINES_MAX = 600
# What a folder may include from; its own is always allowed.
LAYERS = {
    'reactor': [],
    'nvme': ['reactor'],
    'blockdev': ['nvme', 'reactor'],
    'fs': ['blockdev', 'reactor'],
    'mkfs': ['fs', 'blockdev', 'reactor'],
    'control': ['fs', 'mkfs', 'blockdev', 'nvme', 'reactor'],
}


def sources(extensions):
    # The clone may belong to another user than the one who checks it.
    listed = subprocess.run(['git', '-c', 'safe.directory=*', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT,
                            capture_output=True, text=True)
    names = listed.stdout.split('\n') if listed.returncode == 0 else [
        os.path.relpath(os.path.join(folder, name), ROOT) for folder, _, files in os.walk(ROOT)
        if not os.path.relpath(folder, ROOT).startswith(('.git', 'build')) for name in files]
    return sorted(name for name in set(names)
                  if name.endswith(extensions) and os.path.isfile(os.path.join(ROOT, name)))


def read(name):
    with open(os.path.join(ROOT, name), encoding='utf-8', errors='replace') as file:
        return file.read()


def check_layers():
    for name in sources(('.c', '.h')):
        top = name.split('/')[0]
        for number, line in enumerate(read(name).split('\n'), 1):
            match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not match:
                continue
            target = match.group(1)
            if target.endswith('_internal.h') and not name.startswith('tests/') and \
                    os.path.dirname(target) not in ('', os.path.dirname(name)):
                yield f'{name}:{number}: {target} belongs to its own folder'
            if top in LAYERS and '/' in target:
                folder = target.split('/')[0]
                if folder != top and folder not in LAYERS[top]:
                    yield f'{name}:{number}: {top}/ may not include {target}'


def check_lengths():
    for name in sources(('.c', '.h', '.py', '.sh', '.S')):
        count = read(name).count('\n')
        if count > LINES_MAX:
            yield f'{name}: {count} lines, {LINES_MAX} allowed'


def check_licence():
    for name in sources(('.c', '.h', '.py', '.sh', '.S', 'meson.build')):
        if 'SPDX-License-Identifier: BSD-3-Clause' not in '\n'.join(read(name).split('\n')[:3]):
            yield f'{name}: no SPDX line in its first three'


def strip_code(text):
    """Blanks comments, strings and preprocessor lines, keeping line numbers."""
    def blank(match):
        return re.sub(r'[^\n]', ' ', match.group(0))
    text = re.sub(r'/\*.*?\*/', blank, text, flags=re.S)
    text = re.sub(r'//[^\n]*', blank, text)
    text = re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text)
    return re.sub(r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', blank, text, flags=re.M)


DEFINITION = re.compile(r'^(?P<head>[A-Za-z_][^;{}()=]*?)\b(?P<name>\w+)\((?P<parameters>[^;{}]*)\)[^;{}()]*\n\{(?P<body>.*?)^\}',
                        re.M | re.S)
CALL = re.compile(r'\b(\w+)\s*\(')


def check_may_wait():
    code = {name: strip_code(read(name)) for name in sources(('.c', '.h')) if not name.startswith('tests/')}
    waiting_global, waiting_static = set(), {}
    for name, text in code.items():
        for match in re.finditer(r'^([^;{}\n]*)\bMAY_WAIT\b([^;{}()]*?)\b(\w+)\(', text, re.M):
            if 'static' in match.group(1) + match.group(2) and name.endswith('.c'):
                waiting_static.setdefault(name, set()).add(match.group(3))
            else:
                waiting_global.add(match.group(3))
    everything = '\n'.join(code.values())
    for name, text in code.items():
        if not name.endswith('.c'):
            continue
        # A static function of the same name hides the one from a header.
        hidden = set(re.findall(r'^static\b[^;{}()=]*?\b(\w+)\(', text, re.M))
        waiting = waiting_global - hidden | waiting_static.get(name, set())
        for match in DEFINITION.finditer(text):
            function = match.group('name')
            if function in waiting:
                continue
            called = [call for call in CALL.finditer(match.group('body')) if call.group(1) in waiting]
            if not called:
                continue
            address_taken = re.search(r'\b' + function + r'\b(?!\s*\()', everything)
            if address_taken and re.match(r'\s*void\s*\*\s*\w*\s*$', match.group('parameters')):
                continue  # a fiber begins here
            line = text[:match.start('body') + called[0].start()].count('\n') + 1
            yield f'{name}:{line}: {function} calls {called[0].group(1)}, which may wait, but does not say MAY_WAIT'


def check_headers(compile_commands):
    try:
        with open(compile_commands) as file:
            commands = json.load(file)
    except OSError as error:
        yield f'no compile commands: {error}'
        return
    flags = {}
    for command in commands:
        for word in command['command'].split():
            if word.startswith(('-I', '-D', '-isystem', '-m', '-std')):
                # Include paths are relative to the build folder.
                flags[word] = None
    directory = commands[0]['directory']

    def compile_alone(name):
        result = subprocess.run(['gcc', '-fsyntax-only', '-Wall', '-Wextra', '-Wno-unused-parameter', '-Werror',
                                 *flags, '-x', 'c', '-'], cwd=directory, capture_output=True, text=True,
                                input=f'#include "{os.path.join(ROOT, name)}"\ntypedef int not_empty;\n')
        first = (result.stderr.strip().split('\n') or [''])
        return None if result.returncode == 0 else f'{name}: does not compile alone: ' + next(
            (line for line in first if 'error' in line), first[0])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from (problem for problem in pool.map(compile_alone, sources(('.h',))) if problem)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--compile-commands', required=True)
    options = parser.parse_args()
    checks = {
        'layers include downwards only': check_layers(),
        f'no file over {LINES_MAX} lines': check_lengths(),
        'every file names its licence': check_licence(),
        'callers of MAY_WAIT functions say MAY_WAIT': check_may_wait(),
        'every header compiles alone': check_headers(options.compile_commands),
    }
    bad = False
    for name, problems in checks.items():
        found = list(problems)
        for problem in found:
            print(problem)
        print(('FAIL ' if found else 'PASS ') + name)
        bad |= bool(found)
    return bad


sys.exit(main())
