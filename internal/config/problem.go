package config

import (
	"fmt"
	"strings"
)

// Problem is one mistake: the path of its key ("server.port"; empty for the
// file as a whole) and what is wrong there.
type Problem struct {
	Path, Text string
}

// String gives "path: text".
func (p Problem) String() string {
	if p.Path == "" {
		return p.Text
	}
	return p.Path + ": " + p.Text
}

// Error is all that is wrong with a configuration.
type Error struct {
	File     string
	Problems []Problem
}

// Error names the file and gives each problem a line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", e.File)
	if n := len(e.Problems); n == 1 {
		b.WriteString("1 problem")
	} else {
		fmt.Fprintf(&b, "%d problems", n)
	}
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// problems gathers what is wrong.
type problems struct{ list []Problem }

func (p *problems) add(path, format string, args ...any) {
	p.list = append(p.list, Problem{path, fmt.Sprintf(format, args...)})
}

// has says whether something is wrong with the key already: it is not looked
// at further then.
func (p *problems) has(path string) bool {
	for _, q := range p.list {
		if q.Path == path {
			return true
		}
	}
	return false
}
