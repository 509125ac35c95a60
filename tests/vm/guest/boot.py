# SPDX-License-Identifier: BSD-3-Clause
"""The bench itself: the machine has the devices that it was given, and both drivers can have them."""
import os

from vmguest import MIB, PLAN, case, device, devices, equal, main, pattern, read, read_direct, request, wait_for, write_pattern


@case('every controller is there under the kernel driver')
def controllers():
    for one in devices.values():
        wait_for(lambda: one.there() and one.driver() == 'nvme' and one.block_device(), f'ready: {one.name}')
        equal(read(f'{one.path()}/nvme/{os.listdir(one.path() + "/nvme")[0]}/serial'), f'lanefs-{one.name}', 'serial')
        equal(int(read(f'/sys/class/block/{os.path.basename(one.block_device())}/queue/logical_block_size')), one.block, 'LBA')


@case('1 MiB written is 1 MiB read, through the kernel driver and on the host')
def data():
    for one in devices.values():
        write_pattern(one.block_device(), 4 * MIB, MIB, 7)
        equal(read_direct(one.block_device(), 4 * MIB, MIB) == pattern(4 * MIB, MIB, 7), True, one.name)
        equal(request('disk', device=one.name, offset=4 * MIB, size=32), pattern(4 * MIB, 32, 7).hex(), 'on the host')


@case('a controller moves to vfio-pci, has its own group, and comes back')
def vfio():
    one = device(PLAN['devices'][0]['name'])
    one.bind('vfio-pci')
    group = one.group()
    wait_for(lambda: os.path.exists(f'/dev/vfio/{group}'), f'there: /dev/vfio/{group}')
    equal(os.listdir(f'/sys/kernel/iommu_groups/{group}/devices'), [one.address()], 'devices of the group')
    one.bind('nvme')
    equal(read_direct(one.block_device(), 4 * MIB, MIB) == pattern(4 * MIB, MIB, 7), True, 'the data is still there')


@case('a controller moves to uio_pci_generic and comes back')
def uio():
    one = device(PLAN['devices'][0]['name'])
    one.bind('uio_pci_generic')
    wait_for(lambda: os.path.exists(f'{one.path()}/uio') and os.listdir(f'{one.path()}/uio'), 'there: a uio node')
    one.bind('nvme')


main()
