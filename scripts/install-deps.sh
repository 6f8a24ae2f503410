#!/bin/sh
# Installs what building and testing need beside Go: a PostgreSQL server (12 or
# newer, with pgbench, psql and pg_dump) and a C compiler. Silent when all is
# there. Uses apt where there is apt, with sudo only where it must; elsewhere it
# names what to install and fails.
set -eu

minimum_go=1.26
minimum_postgres=12

say() { printf '%s\n' "$*" >&2; }

# postgres_bin prints the directory of the newest PostgreSQL that is complete
# and new enough, or nothing.
postgres_bin() {
	{
		[ -z "${PG_BIN:-}" ] || printf '%s\n' "$PG_BIN"
		pg_config --bindir 2>/dev/null || true
		ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin 2>/dev/null | sort -rV || true
		p=$(command -v postgres 2>/dev/null) && dirname "$p" || true
	} | while IFS= read -r dir; do
		for tool in postgres initdb pg_ctl psql pg_dump pgbench; do
			[ -x "$dir/$tool" ] || continue 2
		done
		major=$("$dir/postgres" --version | sed -n 's/.*) \([0-9][0-9]*\).*/\1/p')
		[ -n "$major" ] && [ "$major" -ge "$minimum_postgres" ] || continue
		printf '%s\n' "$dir"
		break
	done
}

c_compiler() { command -v cc || command -v gcc || command -v clang; }

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		say "error: root is needed for: $*"
		say "hint: run it as root, or install sudo"
		return 1
	fi
}

# apt_install keeps Debian's packaging from starting a PostgreSQL of its own:
# ours are started on demand, in directories of our own.
apt_install() {
	conf=/etc/postgresql-common/createcluster.d/sharding-no-main.conf
	as_root mkdir -p "$(dirname "$conf")"
	printf 'create_main_cluster = false\n' | as_root tee "$conf" >/dev/null
	status=0
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2 &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@" >&2 ||
		status=$?
	as_root rm -f "$conf"
	return "$status"
}

if ! command -v go >/dev/null 2>&1; then
	say "error: Go $minimum_go or newer is needed and was not found"
	say "hint: https://go.dev/doc/install"
	exit 1
fi

packages=
[ -n "$(postgres_bin)" ] || packages="postgresql postgresql-contrib"
c_compiler >/dev/null 2>&1 || packages="$packages gcc libc6-dev"
[ -n "$packages" ] || exit 0

if command -v apt-get >/dev/null 2>&1; then
	say "installing: $packages"
	# shellcheck disable=SC2086 # a list of package names
	apt_install $packages
else
	say "error: missing on this machine: PostgreSQL server $minimum_postgres or newer (with psql, pg_dump, pgbench) and/or a C compiler"
	say "hint: Fedora, RHEL: dnf install postgresql-server postgresql-contrib gcc"
	say "hint: Alpine:       apk add postgresql postgresql-contrib gcc musl-dev"
	say "hint: Arch:         pacman -S postgresql gcc"
	say "hint: macOS:        brew install postgresql@16 && xcode-select --install"
	say "hint: a PostgreSQL elsewhere is named by PG_BIN=/its/bin/directory"
	exit 1
fi

[ -n "$(postgres_bin)" ] || { say "error: still no complete PostgreSQL $minimum_postgres or newer after installing"; exit 1; }
c_compiler >/dev/null 2>&1 || { say "error: still no C compiler after installing"; exit 1; }
