# SPDX-License-Identifier: BSD-3-Clause
"""lanefs through its own driver and uio_pci_generic: physical addresses, a transfer limit of 32 KiB, no write cache."""
from filesystem import work_in

work_in('uio_pci_generic', 'nvme2')
