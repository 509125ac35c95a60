#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Turns meson's testlog.json into one line per case: "PASS build: test: case".

cmocka and TAP output is opened up, so that a test program with twenty cases counts as twenty. A program that failed
without a failing case (a crash, a sanitizer report, a time-out) counts as one failure more. A failure is followed by what
its test said, in lines that begin with WHY.
"""
import argparse
import json
import re
import sys

CMOCKA = re.compile(r'^\[\s*(OK|FAILED|SKIPPED)\s*\] (\w+)$', re.M)
TAP = re.compile(r'^(not ok|ok)\b\s*\d*\s*-?\s*(.*?)\s*$', re.M)
WHY_LINES, WHY_COLUMNS = 10, 200
FAILED_RESULTS = ('FAIL', 'ERROR', 'TIMEOUT', 'INTERRUPT', 'UNEXPECTEDPASS')


def cases(entry):
    """Yields (verdict, case) of one test program."""
    output = (entry.get('stdout') or '') + '\n' + (entry.get('stderr') or '')
    found = [({'OK': 'PASS', 'FAILED': 'FAIL', 'SKIPPED': 'SKIP'}[verdict], name)
             for verdict, name in CMOCKA.findall(output)]
    if not found:
        for verdict, name in TAP.findall(output):
            if '# SKIP' in name.upper():
                found.append(('SKIP', name))
            else:
                found.append(('PASS' if verdict == 'ok' else 'FAIL', name))
    # cmocka lists failing and skipped cases a second time at the end.
    seen, unique = set(), []
    for verdict, name in found:
        if verdict != 'PASS' and (verdict, name) in seen:
            continue
        seen.add((verdict, name))
        unique.append((verdict, name))
    return unique


def print_why(entry, case=None):
    """What was said about a failing case: the diagnosis behind its TAP line, else the end of what the program said."""
    output = (entry.get('stdout') or '').splitlines()
    errors = (entry.get('stderr') or '').splitlines()
    after = [number for number, line in enumerate(output) if case and re.match(rf'not ok\b.*{re.escape(case)}', line)]
    said = []
    if after:
        for line in output[after[0] + 1:]:
            if not line.startswith('#'):
                break
            said.append(line)
    if not said:  # cmocka names errors where they happen; else the end tells most
        lines = errors or output
        first = [number for number, line in enumerate(lines) if line.startswith('[  ERROR')]
        said = lines[first[0]:] if first else lines[-WHY_LINES:]
    for line in said[:WHY_LINES]:
        print(f'WHY  {line[:WHY_COLUMNS]}')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--build', required=True)
    parser.add_argument('--status', type=int, required=True)
    parser.add_argument('--log', required=True)
    parser.add_argument('json')
    options = parser.parse_args()
    try:
        with open(options.log) as log:
            if 'No suitable tests defined' in log.read():
                print(f'SKIP {options.build}: no test of this kind is there yet')
                return 0
        with open(options.json) as lines:
            entries = [json.loads(line) for line in lines if line.strip()]
    except OSError as error:
        print(f'FAIL {options.build}: no results: {error}')
        return 0
    any_failed = False
    for entry in entries:
        # meson says "lanefs:suite / name".
        name = entry['name'].split(' / ')[-1]
        # What is meant to fail counts as a whole: its failing cases are its success.
        found = [] if entry['result'] in ('EXPECTEDFAIL', 'UNEXPECTEDPASS') else cases(entry)
        for verdict, case in found:
            any_failed |= verdict == 'FAIL'
            print(f'{verdict} {options.build}: {name}: {case}')
            if verdict == 'FAIL':
                print_why(entry, case)
        if entry['result'] in FAILED_RESULTS and not any(verdict == 'FAIL' for verdict, _ in found):
            any_failed = True
            print(f'FAIL {options.build}: {name}: {entry["result"].lower()}, status {entry.get("returncode")}')
            print_why(entry)
        elif entry['result'] == 'SKIP' and not found:
            print(f'SKIP {options.build}: {name}')
        elif not found and entry['result'] not in FAILED_RESULTS:
            print(f'PASS {options.build}: {name}')
    if options.status != 0 and not any_failed:
        print(f'FAIL {options.build}: meson test ended with {options.status}')
    return 0


sys.exit(main())
