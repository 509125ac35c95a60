# SPDX-License-Identifier: BSD-3-Clause
"""Makes a thread of another process, which waits in a system call, make a different one: as somebody would who has taken it over.
x86-64."""
import ctypes
import os
import signal
import time

GETREGS, SETREGS, CONT, STEP, DETACH, SEIZE, INTERRUPT = 12, 13, 7, 9, 17, 0x4206, 0x4207
WALL = 0x40000000
POLL = 7  # the call in which the control thread waits
_NAMES = ('r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs '
          'gs').split()
_libc = ctypes.CDLL(None, use_errno=True)


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in _NAMES]


def _ptrace(request, tid, data=None, number=0):
    _libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if _libc.ptrace(request, tid, None, ctypes.cast(ctypes.byref(data), ctypes.c_void_p) if data is not None else number) < 0:
        raise OSError(ctypes.get_errno(), f'ptrace {request}')


def _stop(tid):
    _ptrace(INTERRUPT, tid)
    os.waitpid(tid, WALL)


def _prepare(tid, number, arguments):
    registers = Registers()
    _ptrace(SEIZE, tid)
    for _ in range(500):
        _stop(tid)
        _ptrace(GETREGS, tid, registers)
        if registers.orig_rax == POLL:
            break
        _ptrace(CONT, tid)
        time.sleep(0.01)
    else:
        raise AssertionError('the thread never waits in poll')
    registers.rip -= 2  # the instruction that it waits in
    registers.rax, registers.orig_rax = number, 2 ** 64 - 1
    for name, value in zip(('rdi', 'rsi', 'rdx', 'r10', 'r8', 'r9'), arguments + (0,) * 6):
        setattr(registers, name, value)
    _ptrace(SETREGS, tid, registers)


def refused(tid, number, *arguments):
    """True: the kernel has refused the call, and the process has taken note of it."""
    _prepare(tid, number, arguments)
    _ptrace(CONT, tid)
    for _ in range(100):
        ended, status = os.waitpid(tid, WALL | os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        _stop(tid)
        _ptrace(DETACH, tid)
        return False
    _ptrace(DETACH, tid, number=os.WSTOPSIG(status))
    return os.WSTOPSIG(status) == signal.SIGSYS


def result(tid, number, *arguments):
    """What an allowed call that does not wait returns; negative: -errno."""
    _prepare(tid, number, arguments)
    try:
        _ptrace(STEP, tid)
        os.waitpid(tid, WALL)
        registers = Registers()
        _ptrace(GETREGS, tid, registers)
        return ctypes.c_longlong(registers.rax).value
    finally:
        _ptrace(DETACH, tid)
