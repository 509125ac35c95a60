/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Small parsers over pieces of a string that is not changed: numbers, sizes, times.
 */
#ifndef LANEFS_NVME_EMU_TEXT_H
#define LANEFS_NVME_EMU_TEXT_H

#include "nvme/emu.h"

struct text {
	const char *at;
	size_t length;
};

static inline struct text text_of(const char *string) { return (struct text){string, strlen(string)}; }

static inline bool text_is(struct text text, const char *word)
{
	return text.length == strlen(word) && memcmp(text.at, word, text.length) == 0;
}

/* For "%.*s" in messages, which have an end. */
static inline int text_width(struct text text) { return (int)MIN(text.length, (size_t)60); }

/* Takes what stands before the next @separator, and the separator, off @rest. */
static inline struct text text_cut(struct text *rest, char separator)
{
	const char *end = memchr(rest->at, separator, rest->length);
	const size_t length = end ? (size_t)(end - rest->at) : rest->length;
	const struct text head = {rest->at, length};
	rest->at += length + (end != NULL);
	rest->length -= length + (end != NULL);
	return head;
}

/* Decimal or 0x...; the whole text. */
static inline bool text_number(struct text text, uint64_t *out)
{
	const bool hexadecimal = text.length > 2 && text.at[0] == '0' && (text.at[1] | 0x20) == 'x';
	const unsigned base = hexadecimal ? 16 : 10;
	uint64_t value = 0;
	for (size_t i = hexadecimal ? 2 : 0; i < text.length; i++) {
		const char c = text.at[i], lower = (char)(c | 0x20);
		unsigned digit = base;
		if (c >= '0' && c <= '9')
			digit = (unsigned)(c - '0');
		else if (lower >= 'a' && lower <= 'f')
			digit = (unsigned)(lower - 'a') + 10;
		if (digit >= base || __builtin_mul_overflow(value, base, &value) ||
			__builtin_add_overflow(value, digit, &value))
			return false;
	}
	*out = value;
	return text.length > 0;
}

struct text_unit {
	const char *name;
	uint64_t factor;
};

/* A number and one of the units; "" is a unit, too. */
static inline bool text_quantity(struct text text, const struct text_unit *units, size_t count, uint64_t *out)
{
	size_t digits = 0;
	while (digits < text.length && text.at[digits] >= '0' && text.at[digits] <= '9')
		digits++;
	const struct text unit = {text.at + digits, text.length - digits};
	for (size_t i = 0; i < count; i++)
		if (text_is(unit, units[i].name))
			return text_number((struct text){text.at, digits}, out) &&
				!__builtin_mul_overflow(*out, units[i].factor, out);
	return false;
}

static inline bool text_size(struct text text, uint64_t *out)
{
	static const struct text_unit units[] = {{"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}};
	return text_quantity(text, units, ARRAY_SIZE(units), out);
}

static inline bool text_time(struct text text, uint64_t *out)
{
	static const struct text_unit units[] = {{"ns", 1}, {"us", NS_PER_US}, {"ms", NS_PER_MS}, {"s", NS_PER_SEC}};
	return text_quantity(text, units, ARRAY_SIZE(units), out);
}

#endif
