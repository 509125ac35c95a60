/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs devices, bind, unbind: NVMe controllers as nvme/pci.h has them, for a person or a script. No daemon is asked.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/control.h"
#include "nvme/pci.h"

enum { MESSAGE_BYTES = 1024, COLUMNS = 7, CELL_BYTES = PCI_USERS_BYTES };

static const char devices_help[] =
	"Usage: lanefs devices [--json]\n"
	"Lists the NVMe controllers on the PCI bus: the driver that has each, its IOMMU group, and who uses it.\n"
	"One that is used by nobody can be given to lanefs: lanefs bind ADDRESS. Without root, uses by other users'\n"
	"processes are not seen. --json prints an array with every field.\n";
static const char bind_help[] =
	"Usage: lanefs bind ADDRESS [--driver vfio-pci|uio_pci_generic|nvme]\n"
	"Moves one NVMe controller, and nothing else, from its driver to the one that lanefs drives it through:\n"
	"  vfio-pci         the default; needs an IOMMU. Afterwards \"chown USER /dev/vfio/GROUP\" lets USER drive it.\n"
	"  uio_pci_generic  without an IOMMU: for root only, and the device can write to any memory.\n"
	"  nvme             the kernel's own; lanefs unbind ADDRESS does it too.\n"
	"Refuses a controller that is in use, and says by whom. Lasts until the next boot. Needs root.\n";
static const char unbind_help[] =
	"Usage: lanefs unbind ADDRESS\n"
	"Gives one NVMe controller back to the kernel, where its namespaces appear as /dev/nvme*. Refuses one that is in\n"
	"use. Needs root.\n";

/* Prints @text and returns true when help is asked for anywhere. */
static bool help_wanted(int argc, char **argv, const char *text)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-h") && strcmp(argv[i], "--help"))
			continue;
		fputs(text, stdout);
		return true;
	}
	return false;
}

/* ---- devices ---- */
struct row {
	char cells[COLUMNS][CELL_BYTES];
};

static void cell_number(char cell[CELL_BYTES], int number)
{
	if (number < 0)
		strcpy(cell, "-");
	else
		snprintf(cell, CELL_BYTES, "%d", number);
}

static void cell_text(char cell[CELL_BYTES], const char *text) { snprintf(cell, CELL_BYTES, "%s", text[0] ? text : "-"); }

static void row_fill(struct row *row, const struct pci_device *device)
{
	cell_text(row->cells[0], device->address);
	cell_text(row->cells[1], device->driver);
	cell_number(row->cells[2], device->iommu_group);
	if (device->group_devices > 1)
		snprintf(row->cells[2], CELL_BYTES, "%d (of %u)", device->iommu_group, device->group_devices);
	cell_number(row->cells[3], device->numa_node);
	cell_text(row->cells[4], device->model);
	if (!device->model[0])
		snprintf(row->cells[4], CELL_BYTES, "[%04x:%04x]", device->vendor, device->device);
	cell_text(row->cells[5], device->serial);
	cell_text(row->cells[6], device->users);
}

/* Every column as wide as its widest cell; the last one is as it is. */
static void rows_print(const struct row *rows, unsigned count)
{
	int widths[COLUMNS] = {};
	for (unsigned i = 0; i < count; i++)
		for (unsigned column = 0; column < COLUMNS; column++)
			widths[column] = MAX(widths[column], (int)strlen(rows[i].cells[column]));
	for (unsigned i = 0; i < count; i++) {
		for (unsigned column = 0; column < COLUMNS - 1; column++)
			printf("%-*s  ", widths[column], rows[i].cells[column]);
		puts(rows[i].cells[COLUMNS - 1]);
	}
}

static int devices_print(const struct pci_device *devices, unsigned count)
{
	static const struct row head = {{"ADDRESS", "DRIVER", "IOMMU", "NUMA", "MODEL", "SERIAL", "IN USE BY"}};
	if (count == 0) {
		puts("There is no NVMe controller on the PCI bus.");
		return CONTROL_EXIT_OK;
	}
	struct row *rows = calloc(count + 1, sizeof(*rows));
	if (!rows)
		control_no_memory();
	rows[0] = head;
	for (unsigned i = 0; i < count; i++)
		row_fill(&rows[i + 1], &devices[i]);
	rows_print(rows, count + 1);
	free(rows);
	return CONTROL_EXIT_OK;
}

/* Null when it is negative. */
static void add_number(struct json_object **object, const char *key, int number)
{
	if (number >= 0)
		control_add(object, key, json_object_new_int(number));
	else if (json_object_object_add(*object, key, NULL))
		control_no_memory();
}

static void add_id(struct json_object **object, const char *key, unsigned id)
{
	char text[16];
	snprintf(text, sizeof(text), "%04x", id);
	control_add(object, key, json_object_new_string(text));
}

static struct json_object *device_json(const struct pci_device *device)
{
	struct json_object *object = NULL;
	control_add(&object, "address", json_object_new_string(device->address));
	control_add(&object, "driver", json_object_new_string(device->driver));
	add_id(&object, "vendor", device->vendor);
	add_id(&object, "device", device->device);
	add_number(&object, "iommu_group", device->iommu_group);
	add_number(&object, "group_devices", (int)device->group_devices);
	add_number(&object, "numa_node", device->numa_node);
	control_add(&object, "model", json_object_new_string(device->model));
	control_add(&object, "serial", json_object_new_string(device->serial));
	control_add(&object, "users", json_object_new_string(device->users));
	return object;
}

static int devices_print_json(const struct pci_device *devices, unsigned count)
{
	struct json_object *list = json_object_new_array();
	if (!list)
		control_no_memory();
	for (unsigned i = 0; i < count; i++)
		if (json_object_array_add(list, device_json(&devices[i])))
			control_no_memory();
	control_print_json(list);
	json_object_put(list);
	return CONTROL_EXIT_OK;
}

int control_devices(int argc, char **argv)
{
	bool json = false;
	if (help_wanted(argc, argv, devices_help))
		return CONTROL_EXIT_OK;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json"))
			return control_fail(CONTROL_EXIT_USAGE, argv[i], "not understood; wanted: lanefs devices [--json]");
		json = true;
	}
	struct pci_device *devices = calloc(PCI_DEVICES_MAX, sizeof(*devices));
	if (!devices)
		control_no_memory();
	const int count = pci_list(devices, PCI_DEVICES_MAX);
	int status;
	if (count < 0)
		status = control_fail(CONTROL_EXIT_FAILED, "devices", strerror(-count));
	else
		status = json ? devices_print_json(devices, (unsigned)count) : devices_print(devices, (unsigned)count);
	free(devices);
	return status;
}

/* ---- bind and unbind ---- */
struct bind_arguments {
	const char *address, *driver;
};

static int bind_arguments_parse(int argc, char **argv, struct bind_arguments *out)
{
	static const char flag[] = "--driver";
	for (int i = 1; i < argc; i++) {
		if (out->driver && !strcmp(argv[i], flag) && i + 1 < argc)
			out->driver = argv[++i];
		else if (out->driver && !strncmp(argv[i], flag, strlen(flag)) && argv[i][strlen(flag)] == '=')
			out->driver = argv[i] + strlen(flag) + 1;
		else if (argv[i][0] == '-' || out->address)
			return control_fail(CONTROL_EXIT_USAGE, argv[i], out->driver ?
				"not understood; wanted: lanefs bind ADDRESS [--driver DRIVER]" :
				"not understood; wanted: lanefs unbind ADDRESS");
		else
			out->address = argv[i];
	}
	if (!out->address)
		return control_fail(CONTROL_EXIT_USAGE, argv[0], "which one? ADDRESS is missing (lanefs devices lists them)");
	return CONTROL_EXIT_OK;
}

static int move_failed(int err, const char *message)
{
	fprintf(stderr, "lanefs: %s\n", message);
	switch (err) {
	case -EINVAL:
		return CONTROL_EXIT_USAGE;
	case -ENODEV:
	case -EMEDIUMTYPE:
		return CONTROL_EXIT_NOT_FOUND;
	default:
		return CONTROL_EXIT_FAILED;
	}
}

static void move_print(const struct pci_device *before, const char *address)
{
	struct pci_device after;
	if (pci_get(address, &after)) {
		printf("%s: is gone\n", before->address);
		return;
	}
	const char *now = after.driver[0] ? after.driver : "no driver";
	if (!strcmp(before->driver, after.driver))
		printf("%s: %s has it already\n", after.address, now);
	else
		printf("%s: %s has it now, before: %s\n", after.address, now, before->driver[0] ? before->driver : "no driver");
	if (!strcmp(after.driver, "vfio-pci"))
		printf("%s: chown USER /dev/vfio/%d lets USER drive it\n", after.address, after.iommu_group);
	if (!strcmp(after.driver, "uio_pci_generic"))
		fprintf(stderr, "lanefs: %s: no IOMMU stands between it and memory; after a crash of its daemon it may still write\n",
			after.address);
}

int control_bind(int argc, char **argv)
{
	struct bind_arguments arguments = {.driver = "vfio-pci"};
	struct pci_device before;
	char message[MESSAGE_BYTES];
	if (help_wanted(argc, argv, bind_help))
		return CONTROL_EXIT_OK;
	const int status = bind_arguments_parse(argc, argv, &arguments);
	if (status)
		return status;
	(void)!pci_get(arguments.address, &before); /* pci_bind says what is wrong */
	const int err = pci_bind(arguments.address, arguments.driver, message, sizeof(message));
	if (err)
		return move_failed(err, message);
	move_print(&before, arguments.address);
	return CONTROL_EXIT_OK;
}

int control_unbind(int argc, char **argv)
{
	struct bind_arguments arguments = {};
	struct pci_device before;
	char message[MESSAGE_BYTES];
	if (help_wanted(argc, argv, unbind_help))
		return CONTROL_EXIT_OK;
	const int status = bind_arguments_parse(argc, argv, &arguments);
	if (status)
		return status;
	(void)!pci_get(arguments.address, &before);
	const int err = pci_unbind(arguments.address, message, sizeof(message));
	if (err)
		return move_failed(err, message);
	move_print(&before, arguments.address);
	return CONTROL_EXIT_OK;
}
