package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

func (a *app) checkOutput() error {
	switch a.output {
	case "table", "json", "yaml":
		return nil
	}
	return misusef("--output %q is none of table, json, yaml", a.output)
}

// show writes v in the format asked for; draw makes the table for people.
func (a *app) show(v any, draw func(*table)) error {
	switch a.output {
	case "json":
		e := json.NewEncoder(a.stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err
		}
		y, err := yaml.JSONToYAML(b.Bytes())
		if err != nil {
			return fmt.Errorf("writing YAML: %w", err)
		}
		_, err = a.stdout.Write(y)
		return err
	}
	t := &table{bold: isTerminal(a.stdout)}
	draw(t)
	return t.write(a.stdout)
}

// table collects rows and writes them with their columns aligned. Without a
// terminal it writes no control sequences.
type table struct {
	rows   [][]string
	bold   bool
	titled bool
}

// head gives the columns' titles; it comes first.
func (t *table) head(cells ...string) { t.rows = append(t.rows, cells); t.titled = true }

// row adds a row; cells are printed as %v.
func (t *table) row(cells ...any) {
	r := make([]string, len(cells))
	for i, c := range cells {
		r[i] = printable(fmt.Sprint(c))
	}
	t.rows = append(t.rows, r)
}

// line adds text that takes part in no column.
func (t *table) line(text string) { t.rows = append(t.rows, []string{text}) }

func (t *table) write(w io.Writer) error {
	var widths []int
	for _, r := range t.rows {
		if len(r) == 1 {
			continue
		}
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for n, r := range t.rows {
		var line strings.Builder
		for i, c := range r {
			line.WriteString(c)
			if i < len(r)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2))
			}
		}
		text := strings.TrimRight(line.String(), " ")
		if t.bold && t.titled && n == 0 {
			text = "\x1b[1m" + text + "\x1b[0m"
		}
		b.WriteString(text + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable keeps what came from outside from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '\u00b7'
		}
		return r
	}, s)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
