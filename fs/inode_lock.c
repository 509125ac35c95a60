/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Locking several inodes, whoever owns them, in ascending order of their numbers. Neighbours in that order that one
 * owner has are locked there in one call. Every operation takes all its inode locks in one such sweep, so no two can
 * wait for each other in a circle.
 */
#include "fs/inode_internal.h"

/* The sweep: places in the caller's array, ascending by number, one per number. */
struct lock_order {
	struct inode_lock *locks;
	unsigned count;
	uint8_t place[INODE_LOCKS_MAX];
};

/* A stretch of the sweep that one owner is asked for. */
struct lock_group {
	struct owner *owner;
	const struct lock_order *order;
	unsigned first, count;
	unsigned locked;                /* of these */
};

static struct lock_order order_of(struct inode_lock *locks, unsigned count)
{
	assert(count <= INODE_LOCKS_MAX);
	struct lock_order order = {.locks = locks};
	for (unsigned i = 0; i < count; i++) {
		unsigned at = order.count;
		while (at && locks[order.place[at - 1]].ino > locks[i].ino)
			at--;
		if (at && locks[order.place[at - 1]].ino == locks[i].ino)
			continue; /* inherits below */
		memmove(&order.place[at + 1], &order.place[at], order.count - at);
		order.place[at] = (uint8_t)i;
		order.count++;
	}
	return order;
}

static bool wants_exclusive(const struct lock_order *order, uint64_t ino, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (order->locks[i].ino == ino && order->locks[i].exclusive)
			return true;
	return false;
}

static void unlock_one(struct inode_lock *lock)
{
	struct inode *inode = lock->inode;
	if (lock->exclusive)
		fiber_rwlock_unwrite(&inode->lock);
	else
		fiber_rwlock_unread(&inode->lock);
	inode_put(inode);
	lock->inode = NULL;
}

static MAY_WAIT int lock_one(struct owner *owner, struct inode_lock *lock)
{
	int error = inode_get(owner, lock->ino, &lock->inode);
	if (error)
		return error;
	if (lock->exclusive)
		fiber_rwlock_write(&lock->inode->lock);
	else
		fiber_rwlock_read(&lock->inode->lock);
	if (lock->inode->dead) {
		unlock_one(lock);
		return -ESTALE;
	}
	return 0;
}

static MAY_WAIT int lock_group(void *arg)
{
	struct lock_group *group = arg;
	for (group->locked = 0; group->locked < group->count; group->locked++) {
		const unsigned place = group->order->place[group->first + group->locked];
		const int error = lock_one(group->owner, &group->order->locks[place]);
		if (error)
			return error;
	}
	return 0;
}

static int unlock_group(void *arg)
{
	struct lock_group *group = arg;
	for (unsigned i = group->count; i-- > 0;)
		unlock_one(&group->order->locks[group->order->place[group->first + i]]);
	return 0;
}

/* The stretch that starts at @first, for one owner. */
static struct lock_group group_at(struct fs *fs, const struct lock_order *order, unsigned first)
{
	struct lock_group group = {.owner = owner_of_ino(fs, order->locks[order->place[first]].ino), .order = order,
		.first = first, .count = 1};
	while (first + group.count < order->count &&
		owner_of_ino(fs, order->locks[order->place[first + group.count]].ino) == group.owner)
		group.count++;
	return group;
}

/* Gives back the first @locked of the sweep. */
static MAY_WAIT void unlock_sweep(struct fs *fs, struct lock_order *order, unsigned locked)
{
	order->count = locked;
	for (unsigned first = 0; first < locked;) {
		struct lock_group group = group_at(fs, order, first);
		reactor_call_nowait(group.owner->reactor, unlock_group, &group);
		first += group.count;
	}
}

int inode_lock_many(struct fs *fs, struct inode_lock *locks, unsigned count)
{
	struct lock_order order = order_of(locks, count);
	for (unsigned i = 0; i < order.count; i++) {
		struct inode_lock *lock = &locks[order.place[i]];
		lock->exclusive = wants_exclusive(&order, lock->ino, count);
	}
	for (unsigned first = 0; first < order.count;) {
		struct lock_group group = group_at(fs, &order, first);
		const int error = reactor_call(group.owner->reactor, lock_group, &group);
		if (error) {
			unlock_sweep(fs, &order, first + group.locked);
			return error;
		}
		first += group.count;
	}
	for (unsigned i = 0; i < count; i++)
		for (unsigned j = 0; j < order.count; j++)
			if (locks[order.place[j]].ino == locks[i].ino) {
				locks[i].inode = locks[order.place[j]].inode;
				locks[i].exclusive = locks[order.place[j]].exclusive;
			}
	return 0;
}

void inode_unlock_many(struct fs *fs, struct inode_lock *locks, unsigned count)
{
	struct lock_order order = order_of(locks, count);
	unlock_sweep(fs, &order, order.count);
}
