package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/devcluster"
	"github.com/sharding-system/sharding/internal/pgproc"
)

var update = flag.Bool("update", false, "write what the scripts show now")

// TestScripts replays testdata/*.txt against a local cluster of two shards and
// a spare server. A script is a session as one would type it:
//
//	$ shardctl where 42 --table t        a command line, words split at blanks,
//	                                     'quoted' where they hold some
//	  what it writes to standard output
//	2> what it writes to standard error
//	[exit 1]                             unless it is 0
//
// <...> in an expected line stands for any text, $SPARE in a command for the
// spare server's address; < gives the command a line on standard input.
func TestScripts(t *testing.T) {
	ready := cluster(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { replay(t, file, ready) })
	}
}

func cluster(t *testing.T) devcluster.Ready {
	t.Helper()
	if _, err := pgproc.Find(""); err != nil {
		if os.Getenv("SHARDING_TEST_STRICT") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "shardctl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	o := devcluster.DefaultOptions(filepath.Join(dir, "data"))
	o.Shards, o.SpareShards, o.LogLevel = 2, 1, "warn"
	o.PostgresPort, o.RouterPort, o.ManagerPort, o.RouterMetricsPort, o.ManagerMetricsPort, o.ShardBasePort = 0, 0, 0, 0, 0, 0
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	c, err := devcluster.Start(ctx, o, devcluster.Watcher{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c.Ready()
}

// block is one command of a script with what is expected of it.
type block struct {
	lead    []string // comments and blank lines before it
	command string
	input   string
	want    []string // "  ", "2> " and "[exit N]" lines as they stand
}

func parse(text string) (blocks []block, tail []string) {
	var lead []string
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "$ "):
			blocks = append(blocks, block{lead: lead, command: line[2:]})
			lead = nil
		case strings.HasPrefix(line, "< "):
			blocks[len(blocks)-1].input += line[2:] + "\n"
		case strings.HasPrefix(line, "  "), strings.HasPrefix(line, "2> "), strings.HasPrefix(line, "[exit "):
			last := &blocks[len(blocks)-1]
			last.want = append(last.want, line)
		default:
			lead = append(lead, line)
		}
	}
	return blocks, lead
}

func replay(t *testing.T, file string, ready devcluster.Ready) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks, tail := parse(string(text))
	var rewritten strings.Builder
	for _, b := range blocks {
		got := run(t, b, ready)
		shown := make([]string, len(got))
		for i, line := range got {
			shown[i] = line
			if i < len(b.want) && matches(b.want[i], line) {
				shown[i] = b.want[i] // keeps its <...>
			} else if !*update {
				t.Errorf("$ %s\nline %d: got  %q\n        want %q", b.command, i+1, line, at(b.want, i))
			}
		}
		if len(b.want) > len(got) && !*update {
			t.Errorf("$ %s\nmissing: %q", b.command, b.want[len(got):])
		}
		for _, l := range b.lead {
			fmt.Fprintln(&rewritten, l)
		}
		fmt.Fprintln(&rewritten, "$ "+b.command)
		for _, l := range strings.SplitAfter(b.input, "\n") {
			if l != "" {
				fmt.Fprint(&rewritten, "< "+l)
			}
		}
		for _, l := range shown {
			fmt.Fprintln(&rewritten, l)
		}
	}
	for _, l := range tail {
		fmt.Fprintln(&rewritten, l)
	}
	if *update {
		if err := os.WriteFile(file, []byte(rewritten.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

// matches compares a line with an expected one in which <...> is any text.
func matches(want, got string) bool {
	parts := strings.Split(want, "<...>")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got)
}

func run(t *testing.T, b block, ready devcluster.Ready) []string {
	t.Helper()
	words, err := split(b.command)
	if err != nil || len(words) == 0 || words[0] != "shardctl" {
		t.Fatalf("script line %q: %v", b.command, err)
	}
	env := map[string]string{"SHARDCTL_READY_FILE": ready.ReadyFile, "HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent"}
	args := words[1:]
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "$SPARE", ready.Spares()[0].Addresses["postgres"])
	}
	if len(args) > 0 && args[0] == "--nowhere" {
		args, env["SHARDCTL_READY_FILE"] = args[1:], ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	status := Run(ctx, args, strings.NewReader(b.input), &out, &errOut, func(name string) string { return env[name] })
	var lines []string
	add := func(prefix, text string) {
		for _, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
			if text != "" {
				lines = append(lines, strings.TrimRight(prefix+l, " "))
			}
		}
	}
	add("  ", out.String())
	add("2> ", errOut.String())
	if status != 0 {
		lines = append(lines, fmt.Sprintf("[exit %d]", status))
	}
	return lines
}

// split splits a command line at blanks outside single quotes.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quoted := false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, inWord = !quoted, true
		case r == ' ' && !quoted:
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed")
	}
	return words, nil
}
