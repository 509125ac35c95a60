/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names of NVMe devices, and how their transports are opened:
 *
 *   0000:5e:00.0    pci:0000:5e:00.0/2       an address on the PCI bus, and a namespace
 *   emu:/path/image,cache=16M,lba=512        an emulated drive over a medium: an image, a block device, ram:64M; ns=N: a namespace
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme_internal.h"
#include "nvme/pci.h"
#include "reactor/blocking.h"

static const char pci_prefix[] = "pci:", emu_prefix[] = "emu:";

static bool is_pci_address(const char *text)
{
	static const char shape[] = "xxxx:xx:xx.x";
	for (size_t i = 0; i < sizeof(shape) - 1; i++)
		if (shape[i] == 'x' ? !isxdigit((unsigned char)text[i]) : text[i] != shape[i])
			return false;
	return true;
}

bool nvme_target(const char *target, bool *pci)
{
	*pci = !strncmp(target, pci_prefix, strlen(pci_prefix)) || is_pci_address(target);
	return *pci || !strncmp(target, emu_prefix, strlen(emu_prefix));
}

void nvme_target_file(const char *target, char *path, size_t path_size)
{
	bool pci;
	const bool nvme = nvme_target(target, &pci);
	const char *medium = target + (nvme && !pci ? strlen(emu_prefix) : 0);
	const char *end = nvme ? strchrnul(medium, ',') : medium + strlen(medium);
	if (pci || !strncmp(medium, "ram:", 4))
		end = medium;
	snprintf(path, path_size, "%.*s", (int)(end - medium), medium);
}

static int parse_nsid(const char *text, uint32_t *nsid)
{
	char *end;
	const unsigned long value = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end != '\0' || value == 0 || value >= UINT32_MAX)
		return -EINVAL;
	*nsid = (uint32_t)value;
	return 0;
}

static int parse_pci(const char *target, struct nvme_place *out, char *message, size_t message_size)
{
	const char *text = target + (strncmp(target, pci_prefix, strlen(pci_prefix)) ? 0 : strlen(pci_prefix));
	const char *slash = strchr(text, '/');
	char address[PCI_ADDRESS_BYTES];
	snprintf(address, sizeof(address), "%.*s", (int)(slash ? slash - text : (ptrdiff_t)strlen(text)), text);
	_Static_assert(sizeof(out->address) >= PCI_ADDRESS_BYTES, "");
	if ((slash && slash - text >= PCI_ADDRESS_BYTES) || pci_address_parse(address, out->address) != 0 ||
		(slash && parse_nsid(slash + 1, &out->nsid) != 0)) {
		snprintf(message, message_size, "%s: not a PCI address; write for example 0000:5e:00.0, or 0000:5e:00.0/2 for "
			"namespace 2; lanefs devices lists them", target);
		return -EINVAL;
	}
	return 0;
}

/* Takes "ns=N" out of the options: it is ours, the rest is the drive's. */
static int take_namespace(struct nvme_place *place)
{
	char *at = place->options;
	while (at) {
		char *next = strchr(at, ',');
		if (!strncmp(at, "ns=", 3)) {
			if (next)
				*next = '\0';
			const int err = parse_nsid(at + 3, &place->nsid);
			if (next)
				memmove(at, next + 1, strlen(next + 1) + 1);
			else
				*(at > place->options ? at - 1 : at) = '\0';
			return err;
		}
		at = next ? next + 1 : NULL;
	}
	return 0;
}

int nvme_place_parse(const char *target, struct nvme_place *out, char *message, size_t message_size)
{
	bool pci;
	memset(out, 0, sizeof(*out));
	if (!nvme_target(target, &pci)) {
		snprintf(message, message_size, "%s: no NVMe device; write for example 0000:5e:00.0 or emu:/path/image", target);
		return -EINVAL;
	}
	out->emu = !pci;
	if (pci)
		return parse_pci(target, out, message, message_size);
	const char *path = target + strlen(emu_prefix), *comma = strchr(path, ',');
	const size_t length = comma ? (size_t)(comma - path) : strlen(path);
	if (length == 0 || length >= sizeof(out->path) || (comma && strlen(comma + 1) >= sizeof(out->options)) ||
		!strncmp(path, emu_prefix, strlen(emu_prefix))) {
		snprintf(message, message_size, "%s: names no medium; write for example emu:/path/image or emu:/path/image,cache=16M",
			target);
		return -EINVAL;
	}
	memcpy(out->path, path, length);
	if (comma)
		memcpy(out->options, comma + 1, strlen(comma + 1));
	if (take_namespace(out) == 0)
		return 0;
	snprintf(message, message_size, "%s: ns= wants the number of a namespace, for example ns=2", target);
	return -EINVAL;
}

bool nvme_place_equal(const struct nvme_place *a, const struct nvme_place *b)
{
	return a->emu == b->emu && !strcmp(a->emu ? a->path : a->address, b->emu ? b->path : b->address);
}

/* ---- memory ---- */

bool nvme_target_memory(const char *target, struct memory_options *out)
{
	bool pci;
	if (!nvme_target(target, &pci) || !pci)
		return false;
	struct nvme_place *place = calloc(1, sizeof(*place));
	struct pci_device *device = calloc(1, sizeof(*device));
	char message[256];
	const bool uio = place && device && nvme_place_parse(target, place, message, sizeof(message)) == 0 &&
		pci_get(place->address, device) == 0 && !strcmp(device->driver, "uio_pci_generic");
	out->use_eal = true;
	out->physical = out->need_hugepages = uio;
	free(place);
	free(device);
	return true;
}

/* ---- transports ---- */

struct pci_open {
	const char *address;
	struct nvme_transport **out;
	char *message;
	size_t message_size;
};

static int pci_open(void *arg)
{
	const struct pci_open *open = arg;
	struct pci_device *device = calloc(1, sizeof(*device));
	if (!device)
		return -ENOMEM;
	const int err = pci_get(open->address, device);
	const bool uio = !strcmp(device->driver, "uio_pci_generic");
	const unsigned class_code = device->class_code;
	free(device);
	if (err == -EMEDIUMTYPE) {
		snprintf(open->message, open->message_size, "%s: is no NVMe controller (class %06x); lanefs devices lists them",
			open->address, class_code);
		return err;
	}
	if (err) {
		snprintf(open->message, open->message_size, "%s: no such device on the PCI bus; lanefs devices lists them",
			open->address);
		return err;
	}
	return uio ? nvme_uio_open(open->address, open->out, open->message, open->message_size) :
		nvme_vfio_open(open->address, open->out, open->message, open->message_size);
}

MAY_WAIT int nvme_place_open(struct bdev_registry *registry, const struct nvme_place *place, bool read_only,
	struct emu_drive **drive, struct nvme_transport **out, char *message, size_t message_size)
{
	if (!place->emu) {
		struct pci_open open = {.address = place->address, .out = out, .message = message, .message_size = message_size};
		return reactor_blocking(pci_open, &open);
	}
	int err = *drive ? 0 : emu_drive_create(registry, place, read_only, drive, message, message_size);
	if (err)
		return err;
	err = emu_plug(emu_drive_emu(*drive), out);
	if (err)
		snprintf(message, message_size, "emu:%s: %s", place->path, err == -EBUSY ? "is plugged in already" : strerror(-err));
	return err;
}
