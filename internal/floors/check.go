package floors

import (
	"fmt"
	"slices"
	"strings"
)

// Check holds packages against the plan and returns what is wrong, a line each,
// sorted.
func Check(packages []*Source) []string {
	var wrong []string
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, s := range packages {
		row, ok := find(s.Path)
		if !ok {
			report("%s: not in the plan of the house (internal/floors/floors.go)", s.Path)
			continue
		}
		if !s.Doc {
			report("%s: no package comment", s.Path)
		}
		if slices.Contains(BadNames, s.Name) {
			report("%s: %q says nothing of what the package provides", s.Path, s.Name)
		}
		for imported, files := range s.Imports {
			if why := allowed(row, s.Path, imported); why != "" {
				report("%s imports %s: %s", strings.Join(files, ", "), imported, why)
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

func find(pkg string) (Package, bool) {
	for _, row := range House {
		if matches(row.Path, pkg) {
			return row, true
		}
	}
	return Package{}, false
}

// allowed returns why a package must not import another, "" if it may.
func allowed(from Package, pkg, imported string) string {
	own, ours := strings.CutPrefix(imported, Module)
	if ours && own != "" && own[0] != '/' {
		ours = false // another module whose name starts like ours
	}
	if !ours {
		return allowedForeign(from, pkg, imported)
	}
	own = strings.TrimPrefix(own, "/")
	if own == "" {
		own = "."
	}
	to, ok := find(own)
	if !ok {
		return "not in the plan of the house"
	}
	for _, e := range Exceptions {
		if e.From == pkg && e.To == own {
			return ""
		}
	}
	switch {
	case from.Floor == Harness:
		return ""
	case to.Floor == Harness:
		return "the harness is for tests"
	case from.Floor == Public:
		return "a public client has the standard library only"
	case to.Floor == Public && from.Floor < 4:
		return "the client of the HTTP APIs is for what stands on them"
	case to.Floor == Public:
		return ""
	case from.Floor == Beside && to.Floor != 0:
		return "a package beside the house imports floor 0 only"
	case to.Floor == Beside && from.Floor == 0:
		return "floor 0 imports floor 0 only"
	case from.Floor == 0 && to.Floor == 0, from.Floor == Beside, to.Floor == Beside:
		return "" // Go itself refuses a circle
	case to.Floor >= from.Floor:
		return fmt.Sprintf("floor %d is not below floor %d", to.Floor, from.Floor)
	}
	return ""
}

func allowedForeign(from Package, pkg, imported string) string {
	first, _, _ := strings.Cut(imported, "/")
	if from.Floor == Public && strings.Contains(first, ".") {
		return "a public client has the standard library only"
	}
	for _, f := range Foreigners {
		if imported != f.Prefix && !strings.HasPrefix(imported, f.Prefix+"/") {
			continue
		}
		if !slices.ContainsFunc(f.Only, func(pattern string) bool { return matches(pattern, pkg) }) {
			return "only " + strings.Join(f.Only, ", ") + " may: " + f.Why
		}
	}
	return ""
}
