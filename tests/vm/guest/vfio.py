# SPDX-License-Identifier: BSD-3-Clause
"""lanefs through its own driver and vfio-pci: blocks of 512 bytes and 4 KiB, large and small transfer limits."""
from filesystem import work_in

work_in('vfio-pci', 'nvme0', 'nvme1')
