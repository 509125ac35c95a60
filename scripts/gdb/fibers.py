# SPDX-License-Identifier: BSD-3-Clause
"""gdb commands for lanefs's fibers. Load with: source scripts/gdb/fibers.py

  fibers             lists every fiber of every reactor: state, name, what it waits for and for how long
  fiber bt ADDRESS   backtrace of a fiber that does not run ("fiber bt all": of every one)
  fiber run ADDRESS  puts gdb's selected thread onto the fiber's stack, to look at frames and locals; "fiber back"
                     must be said before the program goes on

In a core file registers cannot be set; there "fiber bt" follows the frame pointers, which every build keeps.
"""
import gdb

# What fiber_switch.S leaves on the stack, from stack_pointer up.
SAVED = ('r15', 'r14', 'r13', 'r12', 'rbx', 'rbp', 'rip')
WORD = 8


def list_entries(head, type_name, member):
    """The structs of a liburcu list."""
    struct = gdb.lookup_type('struct ' + type_name)
    offset = next(field.bitpos // 8 for field in struct.fields() if field.name == member)
    node = head['next']
    while node != head.address:
        address = int(node) - offset
        yield gdb.Value(address).cast(struct.pointer()).dereference()
        node = node['next']


def reactors():
    groups = gdb.parse_and_eval('reactor_groups')
    for number, group in enumerate(list_entries(groups, 'reactor_group', 'node')):
        for index in range(int(group['count'])):
            yield number, group['reactors'][index]


def fibers():
    for number, reactor in reactors():
        for fiber in list_entries(reactor['fibers'], 'fiber', 'node'):
            yield number, reactor, fiber


def text(pointer):
    return pointer.string() if int(pointer) else '-'


def state_of(fiber):
    return str(fiber['state']).replace('FIBER_', '').lower()


def describe(number, reactor, fiber):
    waits = ''
    if state_of(fiber) == 'parked':
        age_us = (int(reactor['now_ns']) - int(fiber['since_ns'])) // 1000
        waits = ' on %s, %d us' % (text(fiber['why']), age_us)
    return '%#x  group %d reactor %d  %s: %s%s' % (
        int(fiber.address), number, int(reactor['index']), text(fiber['name']), state_of(fiber), waits)


def saved_registers(fiber):
    """Registers as they will be when the fiber goes on."""
    base = int(fiber['stack_pointer'])
    try:
        memory = gdb.selected_inferior().read_memory(base, WORD * len(SAVED))
    except gdb.MemoryError:
        # gdb's own generate-core-file gives up a mapping at its first guard page; the kernel's cores are whole.
        raise gdb.GdbError('the stack at %#x is not in this core file' % base)
    values = {name: int.from_bytes(memory[i * WORD:(i + 1) * WORD], 'little') for i, name in enumerate(SAVED)}
    values['rsp'] = base + WORD * len(SAVED)
    return values


def set_registers(values):
    gdb.execute('frame 0', to_string=True)
    # rsp first would move gdb's idea of the frame; rip last settles it.
    for name in ('rbx', 'r12', 'r13', 'r14', 'r15', 'rbp', 'rsp', 'rip'):
        gdb.execute('set $%s = %#x' % (name, values[name]))


def current_registers():
    gdb.execute('frame 0', to_string=True)
    mask = (1 << 64) - 1
    return {name: int(gdb.parse_and_eval('(unsigned long)$' + name)) & mask for name in SAVED + ('rsp',)}


def walk_frame_pointers(values):
    rip, rbp = values['rip'], values['rbp']
    lines = []
    while rip and len(lines) < 100:
        # One back, so that a call at the end of a function is not taken for the next function.
        where = gdb.find_pc_line(rip - 1)
        file_line = ' at %s:%d' % (where.symtab.filename, where.line) if where.symtab else ''
        symbol = gdb.execute('info symbol %#x' % (rip - 1), to_string=True).split(' in section')[0].strip()
        lines.append('#%d  %#x in %s%s' % (len(lines), rip, symbol, file_line))
        if not rbp:
            break
        memory = gdb.selected_inferior().read_memory(rbp, 2 * WORD)
        rbp, rip = (int.from_bytes(memory[i:i + WORD], 'little') for i in (0, WORD))
    return '\n'.join(lines)


def backtrace(fiber):
    if state_of(fiber) == 'running':
        return 'is running: see its thread'
    values = saved_registers(fiber)
    before = current_registers()
    try:
        set_registers(values)
    except gdb.error:
        return walk_frame_pointers(values)
    try:
        return gdb.execute('bt', to_string=True).rstrip()
    finally:
        set_registers(before)


class Fibers(gdb.Command):
    """List lanefs's fibers."""

    def __init__(self):
        super().__init__('fibers', gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        count = 0
        for entry in fibers():
            print(describe(*entry))
            count += 1
        print('%d fibers' % count)


class Fiber(gdb.Command):
    """fiber bt ADDRESS|all, fiber run ADDRESS, fiber back."""

    def __init__(self):
        super().__init__('fiber', gdb.COMMAND_STACK)
        self.before = None

    def invoke(self, argument, from_tty):
        words = gdb.string_to_argv(argument)
        if words == ['back'] and self.before:
            set_registers(self.before)
            self.before = None
            return
        if len(words) != 2 or words[0] not in ('bt', 'run'):
            raise gdb.GdbError(self.__doc__)
        chosen = list(fibers())
        if words[1] != 'all':
            address = int(gdb.parse_and_eval(words[1]))
            chosen = [entry for entry in chosen if int(entry[2].address) == address]
        if not chosen or (words[0] == 'run' and len(chosen) != 1):
            raise gdb.GdbError('no such fiber: "fibers" lists them')
        if words[0] == 'bt':
            for entry in chosen:
                print('%s\n%s\n' % (describe(*entry), backtrace(entry[2])))
            return
        if self.before is None:
            self.before = current_registers()
        set_registers(saved_registers(chosen[0][2]))


Fibers()
Fiber()
