/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How fields look.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "mkfs/dump_internal.h"

enum { NAME_WIDTH = 20, LINE_WIDTH = 110, BYTES_PER_LINE = 16 };

void dump_field(const char *name, const char *format, ...)
{
	va_list arguments;

	printf("  %-*s ", NAME_WIDTH, name);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
}

/* Bytes of the character that stands at the front, in UTF-8; 0: there is none, or it is a control character. */
static size_t character_length(const unsigned char *bytes, size_t length)
{
	const unsigned char first = bytes[0];
	if (first < 0x80)
		return first >= 0x20 && first != 0x7f;
	const size_t count = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
	if (first < 0xc2 || first > 0xf4 || count > length)
		return 0;
	for (size_t i = 1; i < count; i++)
		if (bytes[i] >> 6 != 2)
			return 0;
	/* Below U+00A0, longer than need be, surrogates, above U+10FFFF. */
	const unsigned char second = bytes[1];
	if ((first == 0xc2 && second < 0xa0) || (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
		(first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
		return 0;
	return count;
}

void dump_quoted(const void *text, size_t length)
{
	const unsigned char *bytes = text;

	putchar('"');
	for (size_t i = 0; i < length;) {
		const size_t count = character_length(bytes + i, length - i);
		if (!count || bytes[i] == '"' || bytes[i] == '\\') {
			printf("\\x%02x", bytes[i++]);
			continue;
		}
		fwrite(bytes + i, 1, count, stdout);
		i += count;
	}
	putchar('"');
}

void dump_text(const char *name, const void *text, size_t length)
{
	printf("  %-*s ", NAME_WIDTH, name);
	dump_quoted(text, length);
	putchar('\n');
}

void dump_time(const char *name, le64_t sec, uint32_t nsec)
{
	const time_t when = (time_t)le64_get(sec);
	struct tm parts;
	char text[64];

	if (!gmtime_r(&when, &parts) || !strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts))
		dump_field(name, "%" PRId64 ".%09u", (int64_t)when, nsec);
	else
		dump_field(name, "%" PRId64 ".%09u (%s UTC)", (int64_t)when, nsec, text);
}

void dump_uuid(const char *name, const uint8_t *uuid)
{
	static const char shape[] = "00000000-0000-0000-0000-000000000000";
	char text[sizeof(shape)];
	unsigned digit = 0;

	for (size_t i = 0; i < sizeof(shape); i++) {
		if (shape[i] != '0') {
			text[i] = shape[i];
			continue;
		}
		text[i] = "0123456789abcdef"[uuid[digit / 2] >> (digit % 2 ? 0 : 4) & 15];
		digit++;
	}
	dump_field(name, "%s", text);
}

static bool bit_get(const uint8_t *bits, uint32_t bit)
{
	return bits[bit / 8] >> bit % 8 & 1;
}

void dump_bits(const char *name, const uint8_t *bits, uint32_t count, uint64_t base)
{
	int column = printf("  %-*s", NAME_WIDTH, name);
	bool any = false;

	for (uint32_t first = 0, end; first < count; first = end + 1) {
		for (end = first; end < count && bit_get(bits, end); end++)
			;
		if (end == first)
			continue;
		if (column > LINE_WIDTH)
			column = printf("\n  %-*s", NAME_WIDTH, "") - 1;
		column += end - first == 1 ? printf(" %" PRIu64, base + first) :
					     printf(" %" PRIu64 "-%" PRIu64, base + first, base + end - 1);
		any = true;
	}
	puts(any ? "" : " none");
}

void dump_bytes(const void *data, size_t length)
{
	const uint8_t *bytes = data;
	bool repeated = false;

	for (size_t at = 0; at < length; at += BYTES_PER_LINE) {
		const size_t count = MIN(length - at, (size_t)BYTES_PER_LINE);
		const bool same = at && count == BYTES_PER_LINE && at + count < length &&
			!memcmp(bytes + at, bytes + at - BYTES_PER_LINE, BYTES_PER_LINE);
		if (same && !repeated)
			puts("    *");
		repeated = same;
		if (same)
			continue;
		printf("    %04zx ", at);
		for (size_t i = 0; i < BYTES_PER_LINE; i++) {
			if (i < count)
				printf(" %02x", bytes[at + i]);
			else
				fputs("   ", stdout);
		}
		fputs("  ", stdout);
		for (size_t i = 0; i < count; i++)
			putchar(bytes[at + i] < 0x7f && isprint(bytes[at + i]) ? bytes[at + i] : '.');
		putchar('\n');
	}
}

void dump_fail(struct dump *dump, const char *format, ...)
{
	va_list arguments;

	dump->bad++;
	fflush(stdout);
	fprintf(stderr, "lanefs: %s: ", dump->target);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}
