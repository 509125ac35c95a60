#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Sizes and numbers that users have: full disks, large directories, large and scattered files, many links, long paths.

With LANEFS_TEST_FULL=1 in the numbers that are promised (minutes), otherwise in smaller ones (about a minute)."""
from lanefs_test import add_case, main
import sizes_files
import sizes_memory  # noqa: F401 (registers its cases)
import sizes_names  # noqa: F401
from sizes_space import add_space_cases

if __name__ == '__main__':
    add_case('one large file', sizes_files.one_large_file)
    add_space_cases()
    main()
