#!/bin/sh
# fetch.sh DIR: PostgreSQL's regression suite, from Debian's source package of the
# installed server's major version, with its library built, in DIR/regress.
# It changes nothing on the system but, where they are missing, installs the
# server's headers.
set -eu
dir=$1
major=${PG_MAJOR:-15}
[ -x "$dir/regress/pg_regress" ] && exit 0
mkdir -p "$dir/apt/lists/partial"
dir=$(cd "$dir" && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
cat > "$dir/apt/src.sources" <<S
Types: deb-src
URIs: http://deb.debian.org/debian
Suites: $suite $suite-updates
Components: main
Signed-By: $keyring
S
apt="apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$dir/apt -o Dir::State::Lists=$dir/apt/lists -o APT::Sandbox::User=root"
include=/usr/lib/postgresql/$major/lib/pgxs
if [ ! -d "/usr/include/postgresql/$major/server" ] || [ ! -d "$include" ]; then
	apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "postgresql-server-dev-$major"
fi
$apt update
cd "$dir"
$apt source --download-only "postgresql-$major"
tar xjf postgresql-"$major"_*.orig.tar.bz2
rm -rf regress.new && mv postgresql-"$major".*/src/test/regress regress.new
cc -O2 -fPIC -shared -I"/usr/include/postgresql/$major/server" -o regress.new/regress.so regress.new/regress.c
cp "$include/src/test/regress/pg_regress" regress.new/
rm -rf regress postgresql-"$major".*/ && mv regress.new regress
chmod -R a+rX "$dir"
