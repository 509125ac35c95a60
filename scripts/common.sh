# SPDX-License-Identifier: BSD-3-Clause
# Shared by scripts/quickstart and scripts/check: what must be installed, and small helpers. Sourced, not run.

# What the build needs (Debian 12). libdpdk is linked statically, its environment layer only.
build_packages="gcc libc6-dev pkg-config meson ninja-build libdpdk-dev libnuma-dev libbsd-dev libfdt-dev liburing-dev
	liburcu-dev libfuse3-dev fuse3 libjson-c-dev libisal-dev libxxhash-dev libblkid-dev libmount-dev uuid-dev
	libcap-dev libseccomp-dev libcmocka-dev libncurses-dev"

# What the tests need on top.
test_packages="clang llvm libclang-rt-14-dev gdb python3 rsync git sqlite3 fio attr acl groff-base e2fsprogs procps util-linux qemu-system-x86 busybox-static
	pciutils valgrind stress-ng dbench fsmark bonnie++ postgresql fuse2fs"

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Prints those of its arguments that are not installed.
missing_packages() {
	for package in "$@"; do
		state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=
		[ "$state" = installed ] || printf '%s ' "$package"
	done
}

# Installs what is missing of its arguments; asks for root only when there is something to do.
install_packages() {
	command -v dpkg-query >/dev/null 2>&1 || die "this script installs Debian packages and found no dpkg-query"
	missing=$(missing_packages "$@")
	if [ -z "$missing" ]; then
		say "    all there"
		return 0
	fi
	if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
		die "missing packages: ${missing}- install them as root, then run this again"
	fi
	say "    installing: $missing"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
	case "$missing" in *postgresql*) guard=without_database_server ;; *) guard= ;; esac
	# shellcheck disable=SC2086 # a list of words
	$guard as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -y --no-install-recommends install $missing >/dev/null
}

# Debian's PostgreSQL makes a database and starts a server for it when it is first installed; the tests want the programs only.
without_database_server() {
	drop_in=/etc/postgresql-common/createcluster.d/lanefs-tests.conf
	as_root mkdir -p "${drop_in%/*}" && say 'create_main_cluster = false' | as_root tee "$drop_in" >/dev/null
	"$@"
	status=$?
	as_root rm -f "$drop_in"
	as_root rmdir "${drop_in%/*}" 2>/dev/null || true
	return $status
}

# True when its argument is the mount point of a lanefs, alive or dead.
is_lanefs() {
	[ "$(findmnt -n -o FSTYPE --mountpoint "$1" 2>/dev/null | tail -n 1)" = fuse.lanefs ]
}

# Runs a command quietly: its output goes to the file $1, and is shown when it fails.
quietly() {
	log=$1
	shift
	"$@" >"$log" 2>&1 || {
		tail -n 30 "$log" >&2
		die "$1 failed; all of its output is in $log"
	}
	rm -f "$log"
}
