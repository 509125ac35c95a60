/* SPDX-License-Identifier: BSD-3-Clause */
/* Text that comes from an image, a device or another user, and may go to a terminal. */
#ifndef LANEFS_REACTOR_PRINTABLE_H
#define LANEFS_REACTOR_PRINTABLE_H

#include "reactor/base.h"

/* Control characters, those of UTF-8 (U+0080 to U+009F) too, become '?'; zeroes stay. Lines of the log are treated so. */
static inline void text_make_printable(char *text, size_t size)
{
	uint8_t *bytes = (uint8_t *)text;
	for (size_t i = 0; i < size; i++) {
		const bool second = i > 0 && bytes[i - 1] == 0xc2 && bytes[i] >= 0x80 && bytes[i] < 0xa0;
		if ((bytes[i] && bytes[i] < ' ') || bytes[i] == 0x7f || second)
			bytes[i] = '?';
	}
}

#endif
