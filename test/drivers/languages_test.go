package drivers

import (
	"os"
	"os/exec"
	"path/filepath"
)

// checks are what every program tries, in this order; README.md says what each
// one means.
var checks = []string{
	"connect-tls", "connect-plain", "wrong-password", "migrate", "crud", "returning", "transaction", "savepoint",
	"prepared", "unique", "failed-block", "arrays", "json", "uuid", "numeric", "timestamps", "bytea", "nulls", "large",
	"copy", "batch", "cursor", "cancel", "timeout", "notify", "pool",
}

// driver is one driver, or one way of using it.
type driver struct {
	name  string
	args  []string
	lacks []string // the checks that it has nothing for
}

// language is a folder with programs.
type language struct {
	name    string
	prepare func(build string) error // installs and compiles what is missing
	command func(build string, d driver) []string
	drivers []driver
}

func (l language) dir() string { return here(l.name) }

func languageNames() (names []string) {
	for _, l := range languages {
		names = append(names, l.name)
	}
	return names
}

var languages = []language{
	{
		name:    "psql",
		prepare: func(string) error { return packages("psql", "postgresql-client") },
		command: func(_ string, d driver) []string { return []string{"sh", "run.sh"} },
		drivers: []driver{{name: "psql", lacks: []string{"batch", "pool"}}},
	},
	{
		name: "go",
		prepare: func(build string) error {
			return output(here("go"), nil, "go", "build", "-o", filepath.Join(build, "drivers"), ".")
		},
		command: func(build string, d driver) []string {
			return append([]string{filepath.Join(build, "drivers")}, d.args...)
		},
		drivers: []driver{
			{name: "pgx-cache_statement", args: []string{"pgx", "cache_statement"}, lacks: []string{"pool"}},
			{name: "pgx-cache_describe", args: []string{"pgx", "cache_describe"}, lacks: []string{"pool"}},
			{name: "pgx-describe_exec", args: []string{"pgx", "describe_exec"}, lacks: []string{"pool"}},
			{name: "pgx-exec", args: []string{"pgx", "exec"}, lacks: []string{"pool"}},
			{name: "pgx-simple", args: []string{"pgx", "simple_protocol"}, lacks: []string{"pool"}},
			{name: "pgxpool", args: []string{"pgxpool"}},
			{name: "pgx-stdlib", args: []string{"sql", "pgx"}, lacks: []string{"copy", "batch", "notify"}},
			{name: "lib-pq", args: []string{"sql", "postgres"}, lacks: []string{"batch"}},
			{name: "gorm", args: []string{"gorm"}, lacks: []string{"copy", "notify"}},
		},
	},
	{
		name: "python",
		prepare: func(string) error {
			return aptInstall("python3", "python3-psycopg2", "python3-psycopg", "python3-psycopg-pool", "python3-asyncpg", "python3-sqlalchemy", "python3-django")
		},
		// Debian's own interpreter: another one does not have Debian's packages.
		command: func(_ string, d driver) []string { return append([]string{"/usr/bin/python3", "-B"}, d.args...) },
		drivers: []driver{
			{name: "psycopg2", args: []string{"dbapi.py", "psycopg2"}},
			{name: "psycopg3", args: []string{"dbapi.py", "psycopg"}},
			{name: "asyncpg", args: []string{"asyncpg_.py"}},
			{name: "sqlalchemy", args: []string{"sqlalchemy_.py"}, lacks: []string{"prepared", "copy", "notify"}},
			{name: "django", args: []string{"django_.py"}, lacks: []string{"prepared", "copy", "notify", "pool"}},
		},
	},
	{
		name: "node",
		prepare: func(string) error {
			if err := packages("npm", "nodejs", "npm"); err != nil {
				return err
			}
			return output(here("node"), nil, "npm", "ci", "--no-audit", "--no-fund", "--prefer-offline")
		},
		command: func(_ string, d driver) []string { return append([]string{"node"}, d.args...) },
		drivers: []driver{
			{name: "node-pg", args: []string{"pg.mjs"}, lacks: []string{"batch"}},
			{name: "postgres.js", args: []string{"postgres.mjs"}},
			{name: "sequelize", args: []string{"sequelize.mjs"}, lacks: []string{"prepared", "copy", "cursor", "cancel", "notify"}},
		},
	},
	{
		name: "java",
		prepare: func(build string) error {
			if err := packages("javac", "default-jdk-headless"); err != nil {
				return err
			}
			if err := aptInstall("libpostgresql-jdbc-java"); err != nil {
				return err
			}
			return output(here("java"), nil, "javac", "-encoding", "UTF-8", "-cp", pgjdbc, "-d", build, "Checks.java")
		},
		command: func(build string, d driver) []string {
			return append([]string{"java", "-cp", build + ":" + pgjdbc, "Checks"}, d.args...)
		},
		drivers: []driver{
			{name: "pgjdbc-prepared", args: []string{"1"}, lacks: []string{"pool"}},
			{name: "pgjdbc-unprepared", args: []string{"0"}, lacks: []string{"pool"}},
			{name: "pgjdbc-binary", args: []string{"-1"}, lacks: []string{"pool"}},
		},
	},
	{
		name:    "ruby",
		prepare: func(string) error { return aptInstall("ruby", "ruby-pg") },
		command: func(string, driver) []string { return []string{"/usr/bin/ruby", "checks.rb"} },
		drivers: []driver{{name: "ruby-pg", lacks: []string{"pool"}}},
	},
	{
		name:    "perl",
		prepare: func(string) error { return aptInstall("perl", "libdbd-pg-perl") },
		command: func(string, driver) []string { return []string{"/usr/bin/perl", "checks.pl"} },
		drivers: []driver{{name: "dbd-pg", lacks: []string{"pool"}}},
	},
}

// pgjdbc is where Debian's package puts the driver.
const pgjdbc = "/usr/share/java/postgresql.jar"

// packages installs Debian's packages where a command is missing.
func packages(command string, names ...string) error {
	if _, err := exec.LookPath(command); err == nil {
		return nil
	}
	return aptInstall(names...)
}

// aptInstall installs Debian's packages that are missing.
func aptInstall(names ...string) error {
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	var missing []string
	for _, n := range names {
		if output("", nil, "dpkg", "-s", n) != nil {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	apt := []string{"apt-get", "-q", "-y"}
	if os.Geteuid() != 0 {
		apt = append([]string{"sudo", "-n", "env", env[0]}, apt...)
	}
	if err := output("", env, append(apt, "update")...); err != nil {
		return err
	}
	return output("", env, append(append(apt, "install", "--no-install-recommends"), missing...)...)
}
