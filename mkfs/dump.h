/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "lanefs dump": prints the structures of an image readably, each with what its verifier says.
 */
#ifndef LANEFS_MKFS_DUMP_H
#define LANEFS_MKFS_DUMP_H

/* @argv begins with the subcommand's own name. Returns the exit status: 0; 1 when the target cannot be read, has not
 * got what was asked for, or something shown is bad; 2 for wrong usage. */
int dump_main(int argc, char **argv);

#endif
