/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration file of -o config=FILE: one JSON object whose keys are the names of options.
 *
 *     {"on_removal": "wait=30", "auto_bind": true, "cache": "256M", "reactors": 2, "noatime": true}
 *
 * A string or number is the option's value, true and false say yes and no to an option without one. Everything that is
 * not understood is refused, naming key and file: a setting with a typing error must not look as if it were in force.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/daemon/options_internal.h"

enum { CONFIG_BYTES_MAX = 64 * 1024, CONFIG_DEPTH_MAX = 4 };

struct config_file {
	const char *path;
	char *message;
	size_t message_size;
};

static int refuse(const struct config_file *file, const char *key, const char *why)
{
	snprintf(file->message, file->message_size, "%s: \"%s\": %s", file->path, key, why);
	return -EINVAL;
}

/* The whole file, terminated; the caller's. */
static int file_read(const struct config_file *file, char **out)
{
	int fd = open(file->path, O_RDONLY | O_CLOEXEC), err = fd < 0 ? -errno : 0;
	char *text = malloc(CONFIG_BYTES_MAX + 1);
	size_t used = 0;
	ssize_t got = 1;

	while (!err && text && used < CONFIG_BYTES_MAX && got > 0) {
		got = read(fd, text + used, CONFIG_BYTES_MAX - used);
		if (got < 0)
			err = -errno;
		else
			used += (size_t)got;
	}
	if (fd >= 0)
		close(fd);
	if (!err && !text)
		err = -ENOMEM;
	if (!err && used == CONFIG_BYTES_MAX)
		err = -EFBIG;
	if (err) {
		free(text);
		snprintf(file->message, file->message_size, "configuration file %s: %s", file->path, strerror(-err));
		return err;
	}
	text[used] = '\0';
	*out = text;
	return 0;
}

static struct json_object *parse(const struct config_file *file, const char *text)
{
	struct json_tokener *tokener = json_tokener_new_ex(CONFIG_DEPTH_MAX);
	struct json_object *object = tokener ? json_tokener_parse_ex(tokener, text, (int)strlen(text) + 1) : NULL;
	size_t end = object ? json_tokener_get_parse_end(tokener) : 0;

	if (object && text[end + strspn(text + end, " \t\r\n")] == '\0' && json_object_is_type(object, json_type_object)) {
		json_tokener_free(tokener);
		return object;
	}
	snprintf(file->message, file->message_size, "configuration file %s: not one JSON object (%s)", file->path,
		object || !tokener ? "something else is there" : json_tokener_error_desc(json_tokener_get_error(tokener)));
	json_object_put(object);
	if (tokener)
		json_tokener_free(tokener);
	return NULL;
}

static int apply_key(const struct config_file *file, struct mount_config *config, const char *key,
	struct json_object *value)
{
	char why[256] = "";
	int err;

	if (!strcmp(key, "config"))
		return refuse(file, key, "a configuration file names no other");
	switch (json_object_get_type(value)) {
	case json_type_boolean:
		err = json_object_get_boolean(value) ? options_apply(config, key, NULL, why, sizeof(why)) :
			options_apply_off(config, key);
		break;
	case json_type_string:
	case json_type_int:
		err = options_apply(config, key, json_object_get_string(value), why, sizeof(why));
		break;
	default:
		return refuse(file, key, "wanted a string, a number, true or false");
	}
	if (err == -ENOENT)
		return refuse(file, key, "unknown key: the options are listed in mount.lanefs(8)");
	return err ? refuse(file, key, why[0] ? why : "is not a matter of true or false") : 0;
}

int options_config_load(struct mount_config *config, const char *path, char *message, size_t message_size)
{
	const struct config_file file = {.path = path, .message = message, .message_size = message_size};
	struct json_object *object;
	char *text;
	int err = file_read(&file, &text);

	if (err)
		return err;
	object = parse(&file, text);
	free(text);
	if (!object)
		return -EINVAL;
	json_object_object_foreach(object, key, value) {
		err = apply_key(&file, config, key, value);
		if (err)
			break;
	}
	json_object_put(object);
	return err;
}
