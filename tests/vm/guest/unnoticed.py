# SPDX-License-Identifier: BSD-3-Clause
"""A device leaves and the kernel does not notice: letting go of it takes over a minute, and nothing else may wait."""
import glob
import os
import time

from probe import Held, hugepages
from vmguest import case, device, main, note, run, wait_for, write

PCIEHP = '/sys/bus/pci_express/drivers/pciehp'
SLOT = 'CAP_EXP+18.w'
one = device('nvme0')


@case('vfio-pci, surprise removal that the kernel does not notice: the release takes long, and nobody waits for it')
def vfio_unnoticed():
    hugepages(128)
    held = Held('vfio', one.bind('vfio-pci'))
    run('setpci', '-s', one.port, f'{SLOT}=0000:0038', f'{SLOT}=0700:0700')
    wait_for(one.deleted, 'gone from QEMU')
    held.tell()
    begin = time.monotonic()
    held.ends('told, gone', timeout=150)
    note(f'{time.monotonic() - begin:.1f} s until it was released')
    hugepages(0)
    # The slot's event is lost, and there is never another: the kernel believes in the device until its slot driver
    # starts anew.
    service = os.path.basename(glob.glob(f'{PCIEHP}/{one.port}:*')[0])
    one.sysfs_remove()
    write(f'{PCIEHP}/unbind', service)
    write(f'{PCIEHP}/bind', service)
    one.plug()
    one.bind('nvme')


main()
