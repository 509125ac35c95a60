/* SPDX-License-Identifier: BSD-3-Clause */
/* renameat2(2): RENAME_NOREPLACE and RENAME_EXCHANGE. */
#include "tests/mounted/posix/posix_check.h"

static int rename2(const char *from, const char *to, unsigned flags)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

CASE(rename2_without_flags_is_rename, ANYONE)
{
	OK(put("a", "new"));
	OK(put("b", "old"));
	OK(rename2("a", "b", 0));
	CHECK(holds("b", "new"));
}

CASE(rename2_noreplace_moves_to_a_free_name, ANYONE)
{
	OK(put("a", "x"));
	OK(mkdir("d", 0755));
	OK(rename2("a", "b", RENAME_NOREPLACE));
	OK(rename2("b", "d/c", RENAME_NOREPLACE));
	OK(rename2("d", "e", RENAME_NOREPLACE));
	CHECK(holds("e/c", "x"));
}

CASE(rename2_noreplace_existing_is_EEXIST, ANYONE)
{
	OK(put("a", "x"));
	OK(put("b", "y"));
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	OK(symlink("nowhere", "l"));
	OK(link("a", "same"));
	FAILS(EEXIST, rename2("a", "b", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("a", "a", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("a", "same", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("a", "d", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("a", "l", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("d", "e", RENAME_NOREPLACE));
	FAILS(EEXIST, rename2("a", ".", RENAME_NOREPLACE));
	CHECK(holds("a", "x"));
	CHECK(holds("b", "y"));
}

CASE(rename2_exchange_swaps_files, ANYONE)
{
	OK(put("a", "one"));
	OK(put("b", "two"));
	const ino_t a = stat_of("a").st_ino;
	OK(rename2("a", "b", RENAME_EXCHANGE));
	CHECK(holds("a", "two"));
	CHECK(holds("b", "one"));
	EQ(stat_of("b").st_ino, a);
	EQ(links_of("a"), 1);
}

CASE(rename2_exchange_swaps_across_directories, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	OK(put("d/a", "one"));
	OK(put("e/b", "two"));
	OK(rename2("d/a", "e/b", RENAME_EXCHANGE));
	CHECK(holds("d/a", "two"));
	CHECK(holds("e/b", "one"));
}

CASE(rename2_exchange_swaps_file_and_full_directory, ANYONE)
{
	OK(mkdir("p", 0755));
	OK(mkdir("q", 0755));
	OK(put("p/f", "x"));
	OK(mkdir("q/d", 0755));
	OK(put("q/d/inside", "y"));
	OK(rename2("p/f", "q/d", RENAME_EXCHANGE));
	CHECK(holds("q/d", "x"));
	CHECK(holds("p/f/inside", "y"));
	EQ(links_of("p"), 3);
	EQ(links_of("q"), 2);
	EQ(stat_of("p/f/..").st_ino, stat_of("p").st_ino);
}

CASE(rename2_exchange_swaps_full_directories, ANYONE)
{
	OK(mkdir("p", 0755));
	OK(mkdir("q", 0755));
	OK(mkdir("p/d", 0755));
	OK(mkdir("q/e", 0755));
	OK(put("p/d/one", ""));
	OK(put("q/e/two", ""));
	OK(rename2("p/d", "q/e", RENAME_EXCHANGE));
	CHECK(exists("q/e/one"));
	CHECK(exists("p/d/two"));
	EQ(stat_of("q/e/..").st_ino, stat_of("q").st_ino);
	EQ(links_of("p"), 3);
	EQ(links_of("q"), 3);
}

CASE(rename2_exchange_swaps_symlinks_and_fifos, ANYONE)
{
	OK(symlink("x", "l"));
	OK(mkfifo("p", 0644));
	OK(rename2("l", "p", RENAME_EXCHANGE));
	CHECK(S_ISFIFO(stat_of("l").st_mode));
	CHECK(S_ISLNK(stat_of("p").st_mode));
}

CASE(rename2_exchange_with_itself_does_nothing, ANYONE)
{
	OK(put("a", "x"));
	OK(link("a", "b"));
	OK(rename2("a", "a", RENAME_EXCHANGE));
	OK(rename2("a", "b", RENAME_EXCHANGE));
	EQ(links_of("a"), 2);
}

CASE(rename2_exchange_missing_is_ENOENT, ANYONE)
{
	OK(put("a", "x"));
	FAILS(ENOENT, rename2("a", "missing", RENAME_EXCHANGE));
	FAILS(ENOENT, rename2("missing", "a", RENAME_EXCHANGE));
	CHECK(holds("a", "x"));
}

CASE(rename2_exchange_with_an_ancestor_is_EINVAL, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	FAILS(EINVAL, rename2("d", "d/e", RENAME_EXCHANGE));
	FAILS(EINVAL, rename2("d/e", "d", RENAME_EXCHANGE));
}

CASE(rename2_flags_that_exclude_each_other_are_EINVAL, ANYONE)
{
	OK(put("a", ""));
	OK(put("b", ""));
	FAILS(EINVAL, rename2("a", "b", RENAME_EXCHANGE | RENAME_NOREPLACE));
	FAILS(EINVAL, rename2("a", "b", RENAME_EXCHANGE | RENAME_WHITEOUT));
	FAILS(EINVAL, rename2("a", "b", 1 << 7));
}

CASE(rename2_exchange_sticky_allows_owners_only, ROOT)
{
	OK(make_dir("t", 01777));
	AS(ALICE) OK(make("t/alice", 0666));
	AS(BOB) {
		OK(make("t/bob", 0666));
		FAILS(EPERM, rename2("t/bob", "t/alice", RENAME_EXCHANGE));
		FAILS(EPERM, rename2("t/alice", "t/bob", RENAME_EXCHANGE));
	}
}

CASE(rename2_noreplace_race_has_one_winner, ANYONE)
{
	pid_t pids[4];
	for (int i = 0; i < 4; i++) {
		char name[8];
		snprintf(name, sizeof(name), "from%d", i);
		OK(put(name, name));
		fflush(stdout);
		pids[i] = (pid_t)OK(fork());
		if (pids[i] == 0)
			_exit(rename2(name, "to", RENAME_NOREPLACE) == 0 ? 0 : errno == EEXIST ? 3 : 1);
	}
	int won = 0;
	for (int i = 0; i < 4; i++) {
		const int status = reap(pids[i]);
		CHECK(status == 0 || status == 3);
		won += status == 0;
	}
	EQ(won, 1);
}
