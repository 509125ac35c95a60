# SPDX-License-Identifier: BSD-3-Clause
"""lanefs on the kernel's NVMe block device: what the driver's scenarios do, without our driver."""
from filesystem import work_in

work_in('nvme', 'nvme0')
