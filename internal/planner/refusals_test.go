package planner

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/pgerr"
)

const refusalsPage = "../../docs/reference/refusals.md"

// TestRefusalsPage holds the reference's list of codes against the registry, with
// a statement of the golden files for each. -update writes it.
func TestRefusalsPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Refusals

What the router cannot prove to be PostgreSQL's own answer it refuses before anything happens: SQLSTATE ` + "`0A000`" + `
(feature_not_supported), one of the codes below at the start of the error's DETAIL, a position where one can be
pointed at, and a hint. Codes are stable: scripts may hold on to them.

This page is made from the registry in ` + "`internal/pgerr/codes.go`" + ` and the planner's golden files
(` + "`go test ./internal/planner -run RefusalsPage -update`" + `).
`)
	examples := exampleStatements(t)
	for _, r := range pgerr.Refusals() {
		fmt.Fprintf(&b, "\n## %s\n\nNot supported: %s.\n\n%s\n", r.Code, r.Title, r.Hint)
		if e := examples[r.Code]; e != "" {
			fmt.Fprintf(&b, "\n```sql\n%s\n```\n", e)
		}
	}
	if *update {
		if err := os.MkdirAll(filepath.Dir(refusalsPage), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(refusalsPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(refusalsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("%s is not what the registry says: run with -update", refusalsPage)
	}
}

var refusalCode = regexp.MustCompile(`\bSH\d{4}\b`)

// exampleStatements is the first statement of the golden files for each code.
func exampleStatements(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range strings.Split(string(b), "\n\n") {
			head, result, _ := strings.Cut(c, "\n----")
			code := refusalCode.FindString(result)
			if code == "" || out[code] != "" {
				continue
			}
			var sql []string
			for _, l := range strings.Split(head, "\n") {
				if !strings.HasPrefix(l, "#") && !strings.HasPrefix(l, "@") {
					sql = append(sql, l)
				}
			}
			out[code] = strings.Join(sql, "\n")
		}
	}
	return out
}
