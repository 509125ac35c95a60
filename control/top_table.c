/* SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>

#include "control/control.h"
#include "control/top.h"

enum { NAME_WIDTH_MIN = 12 };

/* ---- rows ---- */
struct top_row *top_rows_add(struct top_rows *rows)
{
	struct top_row *row;

	if (rows->count == rows->room) {
		const unsigned room = rows->room ? rows->room * 2 : 64;

		row = realloc(rows->row, room * sizeof(*row));
		if (!row)
			return NULL;
		rows->row = row;
		rows->room = room;
	}
	row = &rows->row[rows->count++];
	row->name[0] = '\0';
	row->keep = 0;
	for (unsigned i = 0; i < TOP_COLUMNS_MAX; i++)
		row->value[i] = NAN;
	return row;
}

void top_rows_free(struct top_rows *rows)
{
	free(rows->row);
	*rows = (struct top_rows){0};
}

static int row_compare(const void *first, const void *second, void *arg)
{
	const struct top_row *a = first, *b = second;
	const unsigned sort = *(const unsigned *)arg;

	if (sort > 0) {
		const double x = a->value[sort - 1], y = b->value[sort - 1];

		if (isnan(x) != isnan(y))
			return isnan(x) ? 1 : -1;
		if (!isnan(x) && x != y)
			return x > y ? -1 : 1;
	}
	return strcmp(a->name, b->name);
}

void top_rows_make(struct top_rows *rows, const struct top_view *view, const struct top_sample *sample, unsigned sort)
{
	rows->count = 0;
	for (unsigned i = 0; i < sample->count; i++)
		if (top_daemon_shown(sample, &sample->daemons[i]))
			view->fill(rows, &sample->daemons[i]);
	if (rows->count)
		qsort_r(rows->row, rows->count, sizeof(*rows->row), row_compare, &sort);
}

const char *top_sort_name(const struct top_view *view, unsigned sort)
{
	return sort ? view->columns[sort - 1].title : view->title;
}

/* ---- cells ---- */
/* "1234", "12.3k", "4.56M" */
static void number_format(double value, char out[16])
{
	static const char units[] = " kMGT";
	unsigned unit = 0;

	if (value < 9999.5) {
		snprintf(out, 16, value < 9.95 && value != floor(value) ? "%.1f" : "%.0f", value);
		return;
	}
	while (value >= 999.5 && unit + 2 < sizeof(units)) {
		value /= 1000;
		unit++;
	}
	snprintf(out, 16, value < 9.995 ? "%.2f%c" : value < 99.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

static void cell_format(enum top_kind kind, double value, char out[16])
{
	if (isnan(value)) {
		strcpy(out, "-");
		return;
	}
	switch (kind) {
	case TOP_COUNT:
		snprintf(out, 16, "%.0f", value);
		break;
	case TOP_RATE:
		number_format(value, out);
		break;
	case TOP_BYTES:
		format_bytes((uint64_t)value, out);
		break;
	case TOP_NS:
		format_ns(value, out);
		break;
	case TOP_PERCENT:
		snprintf(out, 16, "%.1f%%", value);
		break;
	}
}

/* ---- lines ---- */
/* The characters of @text that are fit to be shown, '?' for the others. Returns how many. */
static size_t text_decode(const char *text, wchar_t *out, size_t room)
{
	mbstate_t state = {0};
	size_t count = 0;

	while (*text && count < room) {
		size_t used = mbrtowc(&out[count], text, MB_LEN_MAX, &state);

		if (used == (size_t)-1 || used == (size_t)-2) {
			state = (mbstate_t){0};
			out[count] = L'?';
			used = 1;
		}
		if (wcwidth(out[count]) < 1)
			out[count] = L'?';
		text += used;
		count++;
	}
	return count;
}

/* Appends characters [first, end) of @text. */
static size_t wide_put(char *out, size_t out_size, const wchar_t *text, size_t first, size_t end)
{
	size_t used = 0;

	for (; first < end && used + MB_LEN_MAX < out_size; first++) {
		const int bytes = wctomb(out + used, text[first]);

		used += bytes > 0 ? (size_t)bytes : 0;
	}
	return used;
}

static unsigned wide_columns(const wchar_t *text, size_t first, size_t end)
{
	unsigned columns = 0;

	for (; first < end; first++)
		columns += (unsigned)wcwidth(text[first]);
	return columns;
}

/* @text in exactly @width columns: padded, or cut down to its first @keep characters (ASCII), "..", and its end. Returns
 * the bytes written. */
static size_t name_put(char *out, size_t out_size, const char *text, size_t keep, unsigned width)
{
	wchar_t wide[256];
	const size_t count = text_decode(text, wide, ARRAY_SIZE(wide));
	size_t used, first = count;
	unsigned columns = wide_columns(wide, 0, count);

	if (columns <= width) {
		used = wide_put(out, out_size, wide, 0, count);
	} else if (keep + 2 >= width) {
		columns = MIN(width, (unsigned)count);
		used = wide_put(out, out_size, wide, keep ? 0 : count - columns, keep ? columns : count);
	} else {
		columns = (unsigned)keep + 2;
		while (columns + (unsigned)wcwidth(wide[first - 1]) <= width)
			columns += (unsigned)wcwidth(wide[--first]);
		used = wide_put(out, out_size, wide, 0, keep);
		used += (size_t)snprintf(out + used, out_size - used, "..");
		used += wide_put(out + used, out_size - used, wide, first, count);
	}
	for (; columns < width && used + 1 < out_size; columns++)
		out[used++] = ' ';
	out[used] = '\0';
	return used;
}

static unsigned name_width(const struct top_rows *rows, const struct top_view *view, unsigned width)
{
	const unsigned least = MAX((unsigned)NAME_WIDTH_MIN, width / 4);
	unsigned wanted = MAX((unsigned)strlen(view->title), (unsigned)NAME_WIDTH_MIN), taken = 0;

	for (unsigned i = 0; i < rows->count; i++)
		wanted = MAX(wanted, (unsigned)strlen(rows->row[i].name));
	for (unsigned i = 0; i < TOP_COLUMNS_MAX && view->columns[i].title; i++) {
		if (taken + 1 + view->columns[i].width + MIN(least, wanted) > width)
			break;
		taken += 1 + view->columns[i].width;
	}
	return MIN(wanted, width - MIN(taken, width));
}

bool top_line(const struct top_rows *rows, const struct top_view *view, unsigned index, unsigned width,
	char out[TOP_LINE_BYTES])
{
	const struct top_row *row = index && index <= rows->count ? &rows->row[index - 1] : NULL;
	const unsigned name = name_width(rows, view, MIN(width, 400u));
	unsigned columns = name;
	size_t used;

	if (index > rows->count)
		return false;
	used = name_put(out, TOP_LINE_BYTES, row ? row->name : view->title, row ? row->keep : 0, name);
	for (unsigned i = 0; i < TOP_COLUMNS_MAX && view->columns[i].title; i++) {
		const struct top_column *column = &view->columns[i];
		char cell[16];

		columns += 1 + column->width;
		if (columns > width)
			break;
		if (row)
			cell_format(column->kind, row->value[i], cell);
		used += (size_t)snprintf(out + used, TOP_LINE_BYTES - used, " %*s", (int)column->width, row ? cell : column->title);
	}
	return true;
}
