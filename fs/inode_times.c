/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Times that change more often than they are worth a transaction: access times, and the modification times of
 * overwrites in place. They change in memory at once and are logged by the next transaction that logs the inode, by
 * fsync, or by inode_flush_times, which takes a batch of inodes into one transaction; it runs by itself commit_ms after
 * a first change.
 *
 * Logging a record needs no inode lock: between two waits the record is what the last apply step left, plus newer
 * times.
 */
#include "fs/inode_internal.h"

enum { TIMES_BATCH = 16, TIMES_SHARE = 4, DAY_SECONDS = 86400 };

static void times_later(struct inode_table *table);

void inode_touch(struct inode *inode, unsigned times, struct timespec now)
{
	struct disk_inode *disk = &inode->disk;
	const le64_t sec = le64_set((uint64_t)now.tv_sec);
	const le32_t nsec = le32_set((uint32_t)now.tv_nsec);
	if (times & INODE_ATIME) {
		disk->atime_sec = sec;
		disk->atime_nsec = nsec;
	}
	if (times & INODE_MTIME) {
		disk->mtime_sec = sec;
		disk->mtime_nsec = nsec;
	}
	if (times & INODE_CTIME) {
		disk->ctime_sec = sec;
		disk->ctime_nsec = nsec;
	}
	if (times & INODE_BTIME) {
		disk->btime_sec = sec;
		disk->btime_nsec = nsec;
	}
}

/* ---- later ---- */

static MAY_WAIT void times_main(void *arg)
{
	struct inode_table *table = arg;
	const int error = inode_flush_times(table->owner);
	table->times_running = false;
	if (!error && table->times_count)
		times_later(table);
	fiber_cond_broadcast(&table->forget_idle);
}

static void times_due(struct timer *timer)
{
	struct inode_table *table = CONTAINER_OF(timer, struct inode_table, times_timer);
	if (table->closing || !table->times_count)
		return;
	table->times_running = true;
	table->times_start = (struct fiber_start){.fn = times_main, .arg = table, .name = "times"};
	fiber_start(&table->times_start);
}

static void times_later(struct inode_table *table)
{
	if (!table->closing && !table->times_running && !timer_running(&table->times_timer))
		timer_start(&table->times_timer, FS_OPTION(table->owner->fs, commit_ms) * NS_PER_MS, times_due);
}

void inode_times_stop(struct inode_table *table)
{
	table->closing = true;
	if (timer_running(&table->times_timer))
		timer_stop(&table->times_timer);
	while (table->times_running)
		fiber_cond_wait(&table->forget_idle, "times being logged");
}

bool inode_touch_lazy(struct inode *inode, unsigned times, struct timespec now)
{
	struct inode_table *table = inode->owner->inodes;
	assert(inode->refs);
	if (!inode->times_dirty) {
		if (table->times_count >= table->count_max / TIMES_SHARE)
			return false;
		inode->times_dirty = true;
		cds_list_add_tail(&inode->times_node, &table->times);
		table->times_count++;
		times_later(table);
	}
	inode_touch(inode, times, now);
	return true;
}

/* relatime: an access is noted when the noted one is older than the last change, or older than a day. */
static bool access_matters(const struct inode *inode, struct timespec now)
{
	const struct disk_inode *disk = &inode->disk;
	const int64_t atime = (int64_t)le64_get(disk->atime_sec);
	const int64_t mtime = (int64_t)le64_get(disk->mtime_sec), ctime = (int64_t)le64_get(disk->ctime_sec);
	if (now.tv_sec - atime >= DAY_SECONDS || mtime > atime || ctime > atime)
		return true;
	return (mtime == atime && le32_get(disk->mtime_nsec) >= le32_get(disk->atime_nsec)) ||
		(ctime == atime && le32_get(disk->ctime_nsec) >= le32_get(disk->atime_nsec));
}

void inode_accessed(struct inode *inode)
{
	const struct fs *fs = inode->owner->fs;
	if (FS_OPTION(fs, noatime) || le32_get(inode->disk.flags) & INODE_NOATIME || inode->dead || fs_may_begin(fs))
		return;
	const struct timespec now = fs_now();
	if ((FS_OPTION(fs, strictatime) || access_matters(inode, now)) && !inode_touch_lazy(inode, INODE_ATIME, now))
		log_debug("%s: an access time is not noted: too many wait to be logged", fs->bdev_name);
}

void inode_times_clean(struct inode *inode)
{
	if (!inode->times_dirty)
		return;
	inode->times_dirty = false;
	cds_list_del(&inode->times_node);
	inode->owner->inodes->times_count--;
}

/* ---- logging ---- */

struct times_change {
	struct change change;
	struct inode *inodes[TIMES_BATCH];
	bool skip[TIMES_BATCH];         /* its block cannot be read: its times are lost */
	unsigned count;
};

static MAY_WAIT int times_prepare(struct tx_part *part, struct change *change)
{
	struct times_change *times = CONTAINER_OF(change, struct times_change, change);
	for (unsigned i = 0; i < times->count; i++) {
		struct inode *inode = times->inodes[i];
		const int error = inode->dead ? 0 : inode_pin(part, inode);
		times->skip[i] = error;
		if (error == -EUCLEAN)
			inode_times_clean(inode);
		else if (error)
			return error;
	}
	return 0;
}

static void times_apply(struct tx_part *part, struct change *change)
{
	struct times_change *times = CONTAINER_OF(change, struct times_change, change);
	for (unsigned i = 0; i < times->count; i++)
		if (!times->skip[i] && !times->inodes[i]->dead && times->inodes[i]->times_dirty)
			inode_log(part, times->inodes[i]);
}

/* Logs the times of these inodes, whose references are the caller's. */
static MAY_WAIT int log_times(struct owner *owner, struct times_change *times)
{
	struct tx *tx;
	int error = tx_begin(owner, times->count, &tx);
	if (error)
		return error;
	times->change = (struct change){.prepare = times_prepare, .apply = times_apply};
	tx_change(tx_home(tx), &times->change);
	error = tx_prepare(tx);
	if (!error)
		tx_apply(tx);
	tx_end(tx);
	return error;
}

int inode_log_times(struct inode *inode)
{
	if (!inode->times_dirty)
		return 0;
	struct times_change times = {.inodes = {inode}, .count = 1};
	return log_times(inode->owner, &times);
}

/* References to the oldest inodes with unlogged times. */
static void collect(struct inode_table *table, unsigned limit, struct times_change *times)
{
	struct inode *inode;
	times->count = 0;
	cds_list_for_each_entry(inode, &table->times, times_node) {
		if (times->count == MIN(limit, (unsigned)TIMES_BATCH))
			break;
		inode_ref(inode);
		times->inodes[times->count++] = inode;
	}
}

int inode_flush_times(struct owner *owner)
{
	struct inode_table *table = owner->inodes;
	fiber_mutex_lock(&table->flushing);
	int error = 0;
	/* What is there now; what becomes dirty meanwhile is for the next time. */
	for (unsigned left = table->times_count; left && table->times_count && !error;) {
		struct times_change times;
		collect(table, left, &times);
		left -= times.count;
		error = log_times(owner, &times);
		for (unsigned i = 0; i < times.count; i++)
			inode_put(times.inodes[i]);
	}
	fiber_mutex_unlock(&table->flushing);
	return error;
}
