# SPDX-License-Identifier: BSD-3-Clause
"""What the cases of sizes_test.py share."""
import os

from lanefs_test import Image, add_case

FULL = bool(os.environ.get('LANEFS_TEST_FULL'))  # the numbers that users have, instead of those of a quick check


def sized(function):
    """Registers a case that gets an image of its own with a directory in it; afterwards fsck finds nothing."""
    def wrapped():
        name = function.__name__.replace('_', '-')
        image = Image(name, '16G' if FULL else '2G')
        image.mount()
        top = f'{image.directory}/top'
        os.mkdir(top)
        function(image, top)
        image.umount()
        image.fsck()
        image.remove()
    add_case(function.__name__.replace('_', ' '), wrapped)
    return function
