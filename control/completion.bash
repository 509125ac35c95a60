# SPDX-License-Identifier: BSD-3-Clause
# bash completion for lanefs, mkfs.lanefs, mount.lanefs, umount.lanefs and fsck.lanefs.
#
# Options and subcommands are read off the --help of the command that is being completed, so that they are those of the
# installed version. What stands here is which kind of word goes where.

# The options in a command's help text: "-x" and "--long".
_lanefs_options() {
	{
		"$@" --help 2>/dev/null | grep -oE -- '(^|[][ ,|(])(-[A-Za-z]|--[A-Za-z][A-Za-z-]*)([] ,=;:|)]|$)' |
			grep -oE -- '--?[A-Za-z][A-Za-z-]*'
		printf '%s\n' --help
	} | sort -u
}

# The first words of the indented lines of a help text.
_lanefs_rows() {
	"$@" 2>/dev/null | sed -nE 's/^  ([a-z][a-z-]*)( .*|$)/\1/p'
}

_lanefs_mounts() {
	local directory type rest
	while read -r _ directory type rest; do
		[[ $type == fuse.lanefs ]] && printf '%b\n' "${directory//\\/\\0}"
	done </proc/self/mounts
}

_lanefs_addresses() {
	"$1" devices 2>/dev/null | grep -oE '[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]'
}

# Lines that begin with the current word become answers. What the shell takes for words of their own (':' and '=' break
# words) must not be repeated.
_lanefs_lines() {
	local line head=
	[[ $word == *[:=]* ]] && head=${word%"${word##*[:=]}"}
	[[ $COMP_WORDBREAKS == *:* || $head != *:* ]] || head=
	while IFS= read -r line; do
		[[ -n $line && $line == "$word"* ]] && COMPREPLY+=("${line#"$head"}")
	done
}

_lanefs_files() {
	local line path=${word##*[:=]} IFS=$'\n'
	while IFS= read -r line; do
		COMPREPLY+=("$line")
	done < <(compgen "$1" -- "$path")
	# Only for files: it would quote the colons of others.
	((${#COMPREPLY[@]})) && compopt -o filenames 2>/dev/null
}

# An image, a block device, emu:IMAGE, a PCI address.
_lanefs_target() {
	if [[ $word == emu:* ]]; then
		_lanefs_files -f
	elif [[ $word == pci:* ]]; then
		_lanefs_lines < <(_lanefs_addresses "$lanefs" | sed 's/^/pci:/')
	else
		_lanefs_files -f
		_lanefs_lines < <(_lanefs_addresses "$lanefs")
		[[ -n $word && emu: == "$word"* && $word != emu: ]] && COMPREPLY+=(emu:) && compopt -o nospace 2>/dev/null
	fi
}

_lanefs_mount_options() {
	local list=${word##*,} before= option
	[[ $word == *,* ]] && before=${word%"$list"}
	case $list in
	on_removal=*) set -- on_removal=unmount on_removal=wait on_removal=wait= ;;
	*=*) return ;;
	*) set -- $("$1" --help 2>/dev/null | sed -n '/^Options:/,/^Each/p' | grep -oE '[a-z_]{2,}(=|\|)?' | grep -vE '^(ach|unmount|wait|is|explained|in|mount|lanefs|ptions)') ;;
	esac
	compopt -o nospace 2>/dev/null
	for option; do
		_lanefs_lines <<<"$before${option%|}"
	done
}

# How many words before the current one, from the one numbered $1 on, are no options; "$2": options that take a value.
_lanefs_place() {
	local i count=0
	for ((i = $1; i < ${#words[@]} - 1; i++)); do
		if [[ " $2 " == *" ${words[i]} "* ]]; then
			((i++))
		elif [[ ${words[i]} != -* ]]; then
			((count++))
		fi
	done
	printf '%s' "$count"
}

# The line up to the cursor as words between blanks (COMP_WORDS breaks them at ':' and '=').
_lanefs_words() {
	local line=${COMP_LINE:0:COMP_POINT}
	read -ra words <<<"$line"
	[[ $line == *[[:blank:]] || ${#words[@]} == 0 ]] && words+=('')
	word=${words[-1]}
	previous=${words[-2]-}
	COMPREPLY=()
}

_lanefs_subcommand() {
	local place
	place=$(_lanefs_place 2 '--interval --view --count --driver --program -o -l -m -r --offset --length --minimum --rate')
	case ${words[1]}:$place in
	help:0) _lanefs_lines < <(_lanefs_rows "$lanefs" help) ;;
	status:0 | top:0 | stats:0 | log-level:0 | unmount:0 | identify:0 | health:0 | reset:0 | detach:0 | attach:0 | emu:0 | \
		trim:0 | grow:0 | scrub:0 | upgrade:0)
		compopt -o filenames 2>/dev/null
		_lanefs_lines < <(_lanefs_mounts) ;;
	log-level:1) _lanefs_lines <<<$'error\nwarn\ninfo\ndebug' ;;
	attach:1 | dump:0) _lanefs_target ;;
	bind:0 | unbind:0) _lanefs_lines < <(_lanefs_addresses "$lanefs") ;;
	dump:1) _lanefs_lines < <(_lanefs_rows "$lanefs" dump --help) ;;
	emu:1) _lanefs_lines <<<$'rule\nrules\nclear\npower-cut\ncut\nrequest\nhealth\nresize\nstats' ;;
	emu:2) [[ ${words[3]} == cut ]] && _lanefs_lines <<<$'all\nrandom\nnone' ;;
	esac
}

_lanefs() {
	local words word previous lanefs=$1
	_lanefs_words
	if ((${#words[@]} == 2)); then
		_lanefs_lines < <(_lanefs_rows "$1" help; printf '%s\n' --help --version)
		return
	fi
	case $previous in
	--view) _lanefs_lines <<<$'mounts\ndevices\nreactors\nrequests' ;;
	--driver) _lanefs_lines <<<$'vfio-pci\nuio_pci_generic\nnvme' ;;
	--interval | --count | -o | -l | -m | -r | --offset | --length | --minimum | --rate) ;;
	*)
		if [[ $word == -* ]]; then
			_lanefs_lines < <(_lanefs_options "$1" "${words[1]}")
		else
			_lanefs_subcommand
		fi
		;;
	esac
}

_lanefs_tool() {
	local words word previous lanefs=lanefs
	_lanefs_words
	case ${1##*/}:$previous in
	mount.*:-o) _lanefs_mount_options "$1"; return ;;
	mkfs.*:-[LUjg] | mkfs.*:--label | mkfs.*:--uuid | mkfs.*:--*-size | fsck.*:-b | *mount.*:-[tN]) return ;;
	esac
	if [[ $word == -* ]]; then
		_lanefs_lines < <(_lanefs_options "$1")
		return
	fi
	case ${1##*/}:$(_lanefs_place 1 '-o -t -N -L -U -j -g -b --label --uuid --journal-size --ag-size') in
	mkfs.*:0 | fsck.*:0 | mount.*:0) _lanefs_target ;;
	mount.*:1) _lanefs_files -d ;;
	umount.*:0)
		compopt -o filenames 2>/dev/null
		_lanefs_lines < <(_lanefs_mounts) ;;
	esac
}

complete -F _lanefs lanefs
complete -o default -F _lanefs_tool mkfs.lanefs mount.lanefs umount.lanefs fsck.lanefs
