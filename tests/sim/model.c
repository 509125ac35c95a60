/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Judging: names and attributes as a whole, by trying the cuts of the owners' streams that the promises allow; sizes and
 * sectors object by object, by what happened to them since the last sync.
 */
#include "tests/sim/model.h"

#include <stdlib.h>
#include <sys/stat.h>

/* ---- names and attributes ---- */

struct world {
	struct model_names names;
	struct model_attr *attr;        /* by object number */
};

static void apply(struct world *world, const struct model_op *op)
{
	if (op->failed)
		return;
	uint32_t *name = &world->names.object[op->dir][op->name], *name2 = &world->names.object[op->dir2][op->name2];
	switch (op->kind) {
	case MODEL_CREATE:
	case MODEL_MKDIR:
	case MODEL_SYMLINK:
		*name = op->object;
		world->attr[op->object] = (struct model_attr){
			.type = op->kind == MODEL_CREATE ? S_IFREG : op->kind == MODEL_MKDIR ? S_IFDIR : S_IFLNK, .mode = op->value};
		break;
	case MODEL_UNLINK:
	case MODEL_RMDIR:
		*name = 0;
		break;
	case MODEL_RENAME:
		*name2 = *name;
		*name = 0;
		break;
	case MODEL_EXCHANGE: {
		const uint32_t kept = *name2;
		*name2 = *name;
		*name = kept;
		break;
	}
	case MODEL_LINK:
		*name2 = *name;
		break;
	case MODEL_CHMOD:
		world->attr[op->object].mode = op->value;
		break;
	case MODEL_XATTR:
		world->attr[op->object].xattr = op->value;
		break;
	default:
		break;
	}
}

static uint32_t link_count(const struct model_names *names, uint32_t object)
{
	uint32_t count = 0;
	for (unsigned i = 0; i < MODEL_DIRS; i++)
		for (unsigned j = 0; j < MODEL_NAMES; j++)
			count += names->object[i][j] == object;
	return count;
}

static bool matches(const struct world *world, const struct model_found *found)
{
	if (memcmp(&world->names, &found->names, sizeof(found->names)))
		return false;
	for (unsigned i = 0; i < MODEL_DIRS; i++)
		for (unsigned j = 0; j < MODEL_NAMES; j++) {
			const uint32_t object = found->names.object[i][j];
			if (!object)
				continue;
			const struct model_attr *want = &world->attr[object];
			const uint32_t nlink = want->type == S_IFDIR ? 2 : link_count(&world->names, object);
			if (want->type != found->attr[i][j].type || want->mode != found->attr[i][j].mode ||
				want->xattr != found->attr[i][j].xattr || nlink != found->attr[i][j].nlink)
				return false;
		}
	return true;
}

enum { OWNERS_JUDGED = MODEL_OWNERS_MAX };

struct judge {
	const struct model *model;
	const struct model_found *found;
	uint64_t at;
	unsigned begun;                 /* operations that had begun */
	unsigned least[OWNERS_JUDGED];  /* per owner: operations of it below this index are durable */
	struct world base, trial;
	unsigned base_count;
};

/* A sync covers everything before it. An fsync covers what was done to its object, and so all that the same streams hold
 * before that. */
static void promise(struct judge *judge, unsigned index)
{
	const struct model_op *sync = &judge->model->ops[index];
	if (sync->kind == MODEL_SYNC) {
		for (unsigned owner = 0; owner < OWNERS_JUDGED; owner++)
			judge->least[owner] = index;
		return;
	}
	for (unsigned i = 0; i < index; i++) {
		const struct model_op *op = &judge->model->ops[i];
		if (op->failed || op->object != sync->object || op->kind >= MODEL_FSYNC)
			continue;
		for (unsigned owner = 0; owner < OWNERS_JUDGED; owner++)
			if (op->owners >> owner & 1)
				judge->least[owner] = MAX(judge->least[owner], i + 1);
	}
}

static void promises(struct judge *judge)
{
	const struct model *model = judge->model;
	for (unsigned i = 0; i < model->op_count && model->ops[i].begun <= judge->at; i++) {
		judge->begun = i + 1;
		const struct model_op *op = &model->ops[i];
		if ((op->kind == MODEL_FSYNC || op->kind == MODEL_SYNC) && !op->failed && op->acknowledged <= judge->at)
			promise(judge, i);
	}
}

static bool inside(const struct model_op *op, unsigned index, const unsigned *cut, bool *split)
{
	bool any = false, all = true;
	for (unsigned owner = 0; owner < OWNERS_JUDGED; owner++)
		if (op->owners >> owner & 1) {
			any |= index < cut[owner];
			all &= index < cut[owner];
		}
	*split = any && !all;
	return all;
}

static bool try_cut(struct judge *judge, const unsigned *cut)
{
	const struct model *model = judge->model;
	memcpy(judge->trial.attr, judge->base.attr, (model->object_count + 1) * sizeof(struct model_attr));
	judge->trial.names = judge->base.names;
	for (unsigned i = judge->base_count; i < judge->begun; i++) {
		bool split;
		const bool in = inside(&model->ops[i], i, cut, &split);
		if (split)
			return false;
		if (in)
			apply(&judge->trial, &model->ops[i]);
	}
	return matches(&judge->trial, judge->found);
}

static bool try_cuts(struct judge *judge)
{
	unsigned cut[OWNERS_JUDGED], top[OWNERS_JUDGED];
	for (unsigned owner = 0; owner < OWNERS_JUDGED; owner++) {
		top[owner] = owner < judge->model->owners ? judge->begun : judge->least[owner];
		cut[owner] = judge->least[owner];
	}
	for (;;) {
		if (try_cut(judge, cut))
			return true;
		unsigned owner = 0;
		while (owner < OWNERS_JUDGED && cut[owner] == top[owner]) {
			cut[owner] = judge->least[owner];
			owner++;
		}
		if (owner == OWNERS_JUDGED)
			return false;
		/* The next cut of this stream: behind its next operation. */
		do {
			cut[owner]++;
		} while (cut[owner] < top[owner] && !(judge->model->ops[cut[owner] - 1].owners >> owner & 1));
	}
}

static const char *judge_names(struct judge *judge)
{
	const struct model *model = judge->model;
	promises(judge);
	unsigned least = judge->begun;
	for (unsigned owner = 0; owner < model->owners; owner++)
		least = MIN(least, judge->least[owner]);
	const size_t bytes = (MODEL_OBJECTS_MAX + 1) * sizeof(struct model_attr);
	judge->base.attr = calloc(1, bytes);
	judge->trial.attr = calloc(1, bytes);
	for (unsigned i = 0; i < least; i++)
		apply(&judge->base, &model->ops[i]);
	judge->base_count = least;
	const bool good = try_cuts(judge);
	free(judge->base.attr);
	free(judge->trial.attr);
	return good ? NULL : "names and attributes are no prefix that contains what was synced";
}

/* ---- sizes and sectors ---- */

struct sector {
	uint32_t synced;                /* version at the last sync, 0 zero */
	uint32_t now;
	bool zeroed;                    /* zeroed since */
	bool grown;                     /* `now` is what moved the size over it */
};

struct history {
	struct sector sectors[MODEL_SECTORS];
	uint32_t size, synced_size, size_least, size_most; /* sectors; least and most since the last sync */
};

static void grow(struct history *history, uint32_t size)
{
	history->size = size;
	history->size_least = MIN(history->size_least, size);
	history->size_most = MAX(history->size_most, size);
}

static void zero(struct history *history, uint32_t first, uint32_t end)
{
	for (uint32_t i = first; i < end; i++) {
		history->sectors[i].now = 0;
		history->sectors[i].zeroed = true;
		history->sectors[i].grown = false;
	}
}

static void follow(struct history *history, const struct model_op *op, uint32_t version)
{
	const uint32_t end = op->first_sector + op->sectors;
	switch (op->kind) {
	case MODEL_WRITE:
		for (uint32_t i = op->first_sector; i < end; i++) {
			history->sectors[i].now = version;
			history->sectors[i].grown = i >= history->size;
		}
		if (end > history->size)
			grow(history, end);
		break;
	case MODEL_TRUNCATE:
		if (op->sectors < history->size)
			zero(history, op->sectors, MODEL_SECTORS);
		grow(history, op->sectors);
		break;
	case MODEL_PUNCH:
		zero(history, op->first_sector, MIN(end, (uint32_t)MODEL_SECTORS));
		break;
	case MODEL_FALLOCATE:
		if (op->sectors > history->size)
			grow(history, op->sectors);
		break;
	default:
		break;
	}
}

static void settle(struct history *history)
{
	history->synced_size = history->size_least = history->size_most = history->size;
	for (uint32_t i = 0; i < MODEL_SECTORS; i++) {
		history->sectors[i].synced = history->sectors[i].now;
		history->sectors[i].zeroed = false;
	}
}

static void history_make(struct history *history, const struct judge *judge, uint32_t object)
{
	const struct model *model = judge->model;
	for (unsigned i = 0; i < judge->begun; i++) {
		const struct model_op *op = &model->ops[i];
		const bool durable = op->acknowledged <= judge->at && !op->failed;
		if (op->object == object && (!op->failed || op->kind == MODEL_WRITE))
			follow(history, op, op->value);
		if (durable && (op->kind == MODEL_SYNC || (op->kind == MODEL_FSYNC && op->object == object)))
			settle(history);
	}
}

static const char *judge_sector(const struct history *history, uint32_t index, uint32_t version)
{
	const struct sector *sector = &history->sectors[index];
	if (version == UINT32_MAX)
		return "a sector holds something that was never written there";
	if (version == 0) {
		if (sector->synced && !sector->zeroed)
			return "a synced sector reads as zero";
		if (sector->now && sector->grown && !sector->zeroed)
			return "the size covers a sector whose data is not there";
		return NULL;
	}
	if (version > MAX(sector->now, sector->synced) && !sector->zeroed)
		return "a sector holds a version that was never written there";
	if (version < sector->synced)
		return "a sector is older than the last sync";
	return NULL;
}

static const char *judge_object(const struct judge *judge, struct history *history, unsigned dir, unsigned name)
{
	const struct model_found *found = judge->found;
	memset(history, 0, sizeof(*history));
	history_make(history, judge, found->names.object[dir][name]);
	const uint64_t size = found->attr[dir][name].size;
	if (size < (uint64_t)history->size_least * MODEL_SECTOR || size > (uint64_t)history->size_most * MODEL_SECTOR)
		return "a file has a size that it never had since the last sync";
	const char *broken = NULL;
	for (uint32_t i = 0; i < size / MODEL_SECTOR && !broken; i++)
		broken = judge_sector(history, i, found->sectors[dir][name][i]);
	return broken;
}

const char *model_judge(const struct model *model, const struct model_found *found, uint64_t at)
{
	struct judge judge = {.model = model, .found = found, .at = at};
	const char *broken = judge_names(&judge);
	struct history *history = malloc(sizeof(*history));
	for (unsigned i = 0; i < MODEL_DIRS && !broken; i++)
		for (unsigned j = 0; j < MODEL_NAMES && !broken; j++)
			if (found->names.object[i][j] && found->attr[i][j].type == S_IFREG)
				broken = judge_object(&judge, history, i, j);
	free(history);
	return broken;
}
