# SPDX-License-Identifier: BSD-3-Clause
"""A program on a pseudo terminal, and what is on its screen: as much of a VT100 as curses uses."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

_SEQUENCE = re.compile(r'\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78DMEc]')


class Terminal:
    """text() is the screen; whatever is written outside of it fails."""

    def __init__(self, command, columns, lines):
        self.columns, self.lines = columns, lines
        self.clear()
        self.pending = ''
        self.status = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM='vt100', LC_ALL='C.UTF-8')
            os.environ.pop('LINES', None)
            os.environ.pop('COLUMNS', None)
            time.sleep(0.2)  # until the size is set
            os.execv(command[0], command)
        self.resize(columns, lines)

    def clear(self):
        self.cells = [[' '] * self.columns for _ in range(self.lines)]
        self.x = self.y = 0
        self.region = (0, self.lines - 1)

    def _index(self, step):
        """Up or down a line; at the edge of the region that scrolls, it does."""
        first, last = self.region
        if self.y == (last if step > 0 else first):
            del self.cells[first if step > 0 else last]
            self.cells.insert(last if step > 0 else first, [' '] * self.columns)
        else:
            self.y += step

    def resize(self, columns, lines):
        self.columns, self.lines = columns, lines
        self.clear()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def _put(self, character):
        if self.x == self.columns:
            self.x, self.y = 0, self.y + 1
        if not (0 <= self.x < self.columns and 0 <= self.y < self.lines):
            raise AssertionError(f'{character!r} at {self.x},{self.y} of a screen of {self.columns}x{self.lines}')
        self.cells[self.y][self.x] = character
        self.x += 1

    def _control(self, parameters, letter):
        numbers = [int(word) if word.isdigit() else 0 for word in parameters.split(';')] if parameters else []
        first = numbers[0] if numbers else 0
        if letter == 'H':
            self.y = max(first, 1) - 1
            self.x = max(numbers[1] if len(numbers) > 1 else 1, 1) - 1
            if self.y >= self.lines or self.x > self.columns:
                raise AssertionError(f'cursor to {self.x},{self.y} of a screen of {self.columns}x{self.lines}')
        elif letter == 'J':
            for y in range(self.y if first == 0 else 0, self.lines):
                self.cells[y][self.x if y == self.y and first == 0 else 0:] = \
                    [' '] * (self.columns - (self.x if y == self.y and first == 0 else 0))
        elif letter == 'K' and first == 0:
            self.cells[self.y][self.x:] = [' '] * (self.columns - self.x)
        elif letter == 'K':
            self.cells[self.y][:self.x + 1] = [' '] * min(self.x + 1, self.columns)
        elif letter in 'ABCD':
            step = max(first, 1)
            self.y += {'A': -step, 'B': step}.get(letter, 0)
            self.x += {'C': step, 'D': -step}.get(letter, 0)
        elif letter == 'r':
            self.region = (max(first, 1) - 1, (numbers[1] if len(numbers) > 1 else self.lines) - 1)
            self.x = self.y = 0
        elif letter not in 'mhl':
            raise AssertionError(f'unknown sequence ESC[{parameters}{letter}')

    def _feed(self, text):
        text = self.pending + text
        place = 0
        while place < len(text):
            character = text[place]
            if character == '\x1b':
                match = _SEQUENCE.match(text, place)
                if not match:
                    break
                if match.group(2):
                    self._control(match.group(1), match.group(2))
                elif match.group(0)[1] in 'DM':
                    self._index(1 if match.group(0)[1] == 'D' else -1)
                place = match.end()
                continue
            if character == '\r':
                self.x = 0
            elif character == '\n':
                self._index(1)
            elif character == '\b':
                self.x = min(self.x, self.columns) - 1
            elif character == '\t':
                self.x = min(self.x // 8 * 8 + 8, self.columns - 1)
            elif character >= ' ':
                self._put(character)
            place += 1
        self.pending = text[place:]

    def read(self, seconds):
        """Takes in what comes within this time; False when the program has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                return True
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b''
            if not data:
                self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) if self.status is None else self.status
                return False
            self._feed(data.decode('utf-8', 'replace'))
        return True

    def text(self):
        return '\n'.join(''.join(row).rstrip() for row in self.cells)

    def wait_for(self, what, seconds=15):
        """Until `what` (a string, or a function of the screen's text) is on the screen."""
        end = time.monotonic() + seconds
        while True:
            more = self.read(0.1)
            if what(self.text()) if callable(what) else what in self.text():
                return
            if not more or time.monotonic() > end:
                raise AssertionError(f'no {what!r} on the screen:\n{self.text()}')

    def wait_end(self, seconds=10):
        end = time.monotonic() + seconds
        while self.read(0.1):
            if time.monotonic() > end:
                raise AssertionError(f'it does not end:\n{self.text()}')
        return self.status

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
