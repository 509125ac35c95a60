/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs top on a terminal. Everything is drawn anew on every look, every key and every change of the terminal's size;
 * what does not fit is left out.
 */
#include <curses.h>
#include <locale.h>
#include <stdio.h>
#include <time.h>

#include "control/control.h"
#include "control/top.h"

enum { KEYS_LINES = 1, HEAD_LINES = 2 };
#define FIRST_LOOK_SECONDS 0.3 /* so that there is something to see soon */

static const double intervals[] = {0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60};

struct screen {
	struct top_sample *sample;
	const struct top_view *view;
	unsigned sort, top;         /* order, and the first row that is shown */
	double interval;
	struct top_rows rows;
	bool quit;
};

static double now_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / NS_PER_SEC;
}

static void line_draw(int y, const char *text, attr_t attributes)
{
	attrset(attributes);
	move(y, 0);
	addnstr(text, -1);
	clrtoeol();
	attrset(A_NORMAL);
}

/* The last cell of the last line is left alone: writing to it scrolls. */
static unsigned width(void) { return COLS > 1 ? (unsigned)COLS - 1 : 1; }

static void text_draw(int y, const char *text, attr_t attributes)
{
	char line[TOP_LINE_BYTES];

	if (y >= LINES)
		return;
	snprintf(line, MIN(sizeof(line), (size_t)width() + 1), "%s", text);
	line_draw(y, line, attributes);
}

static unsigned body_lines(void)
{
	return LINES > HEAD_LINES + KEYS_LINES ? (unsigned)(LINES - HEAD_LINES - KEYS_LINES) : 0;
}

static void draw(struct screen *screen)
{
	const unsigned body = body_lines(), rows = screen->rows.count;
	char line[TOP_LINE_BYTES];

	erase();
	top_summary(screen->sample, line, sizeof(line));
	text_draw(0, line, A_BOLD);
	if (screen->top + body > rows)
		screen->top = rows > body ? rows - body : 0;
	if (top_line(&screen->rows, screen->view, 0, width(), line) && LINES > 1)
		line_draw(1, line, A_REVERSE);
	for (unsigned i = 0; i < body && top_line(&screen->rows, screen->view, screen->top + i + 1, width(), line); i++)
		line_draw((int)(HEAD_LINES + i), line, A_NORMAL);
	if (rows == 0 && body)
		text_draw(HEAD_LINES, top_sample_alive(screen->sample) ? "nothing in this interval" :
			screen->sample->directory ? "the daemon has ended" : "no lanefs of yours is mounted", A_NORMAL);
	snprintf(line, sizeof(line), "%s by %s, every %g s | q quit  1-4 view  s sort  +- interval%s", screen->view->name,
		top_sort_name(screen->view, screen->sort), screen->interval, rows > body ? "  arrows scroll" : "");
	if (LINES > HEAD_LINES)
		text_draw(LINES - 1, line, A_DIM);
	refresh();
}

static void rows_make(struct screen *screen)
{
	top_rows_make(&screen->rows, screen->view, screen->sample, screen->sort);
}

static void view_choose(struct screen *screen, unsigned index)
{
	screen->view = &top_views[index];
	screen->sort = screen->view->sort;
	screen->top = 0;
}

static void sort_next(struct screen *screen)
{
	screen->sort++;
	if (screen->sort > TOP_COLUMNS_MAX || !screen->view->columns[screen->sort - 1].title)
		screen->sort = 0;
}

static void interval_change(struct screen *screen, bool longer)
{
	const unsigned count = ARRAY_SIZE(intervals);

	for (unsigned i = 0; i < count; i++) {
		const double candidate = intervals[longer ? i : count - 1 - i];

		if (longer ? candidate > screen->interval : candidate < screen->interval) {
			screen->interval = candidate;
			return;
		}
	}
}

static void scroll_by(struct screen *screen, int by)
{
	screen->top = by < 0 && screen->top < (unsigned)-by ? 0 : screen->top + (unsigned)by;
}

static void key_handle(struct screen *screen, int key)
{
	switch (key) {
	case 'q': case 'Q': case 3: case 27:
		screen->quit = true;
		break;
	case '1': case '2': case '3': case '4':
		view_choose(screen, (unsigned)(key - '1'));
		break;
	case '\t': case KEY_RIGHT:
		view_choose(screen, (unsigned)(screen->view - top_views + 1) % top_view_count);
		break;
	case KEY_BTAB: case KEY_LEFT:
		view_choose(screen, (unsigned)(screen->view - top_views + top_view_count - 1) % top_view_count);
		break;
	case 's':
		sort_next(screen);
		break;
	case '+': case '-':
		interval_change(screen, key == '+');
		break;
	case KEY_DOWN: scroll_by(screen, 1); break;
	case KEY_UP: scroll_by(screen, -1); break;
	case KEY_NPAGE: scroll_by(screen, (int)body_lines()); break;
	case KEY_PPAGE: scroll_by(screen, -(int)body_lines()); break;
	default: /* KEY_RESIZE: ncurses has taken the new size over */
		break;
	}
	rows_make(screen);
	draw(screen);
}

/* Handles keys until it is time for the next look. */
static void keys_wait(struct screen *screen, double due)
{
	for (double left; !screen->quit && (left = due - now_seconds()) > 0;) {
		timeout((int)(MIN(left, 1.0) * 1000) + 1);
		const int key = getch();

		if (key == ERR)
			continue;
		const double before = screen->interval;
		key_handle(screen, key);
		due += screen->interval - before;
	}
}

int top_screen(struct top_sample *sample, const struct top_options *options)
{
	struct screen screen = {.sample = sample, .interval = options->interval};
	unsigned long looks = 0;
	double due = now_seconds() + MIN(FIRST_LOOK_SECONDS, options->interval);
	SCREEN *terminal = newterm(NULL, stdout, stdin);

	if (!terminal)
		return control_fail(CONTROL_EXIT_FAILED, "top", "unknown terminal: set TERM (TERM=vt100 does), or add --batch");
	cbreak();
	noecho();
	nonl();
	set_escdelay(25);
	keypad(stdscr, true);
	curs_set(0);
	view_choose(&screen, options->view ? (unsigned)(options->view - top_views) : 0);
	rows_make(&screen);
	draw(&screen);
	while (!screen.quit) {
		keys_wait(&screen, due);
		if (screen.quit)
			break;
		due = now_seconds() + screen.interval;
		top_sample_take(sample);
		rows_make(&screen);
		draw(&screen);
		if (options->count && ++looks >= options->count)
			screen.quit = true;
	}
	endwin();
	delscreen(terminal);
	top_rows_free(&screen.rows);
	return CONTROL_EXIT_OK;
}
