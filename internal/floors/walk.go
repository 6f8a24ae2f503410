package floors

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Source is a package as it stands in the module, its tests left out.
type Source struct {
	Path    string // relative to the module's root
	Name    string
	Doc     bool                // has a package comment
	Imports map[string][]string // import path -> files that import it
}

// Read walks the module whose root is dir and returns its packages by path.
// Folders that go build ignores (testdata, names that start with a dot or an
// underscore, modules of their own) are skipped.
func Read(dir string) ([]*Source, error) {
	found := map[string]*Source{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return enter(dir, name)
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		rel, err := filepath.Rel(dir, filepath.Dir(name))
		if err != nil {
			return err
		}
		return readFile(found, filepath.ToSlash(rel), name)
	})
	if err != nil {
		return nil, fmt.Errorf("read the module in %s: %w", dir, err)
	}
	var out []*Source
	for _, s := range found {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Source) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func enter(root, name string) error {
	base := filepath.Base(name)
	if name == root {
		return nil
	}
	if base == "testdata" || base == "vendor" || base == "node_modules" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func readFile(found map[string]*Source, pkg, name string) error {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return err
	}
	s := found[pkg]
	if s == nil {
		s = &Source{Path: pkg, Name: file.Name.Name, Imports: map[string][]string{}}
		found[pkg] = s
	}
	s.Doc = s.Doc || file.Doc != nil && strings.TrimSpace(file.Doc.Text()) != ""
	for _, spec := range file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		s.Imports[p] = append(s.Imports[p], path.Join(pkg, filepath.Base(name)))
	}
	return nil
}

// matches says whether pattern, a path or "path/...", covers a package.
func matches(pattern, pkg string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == below || strings.HasPrefix(pkg, below+"/")
	}
	return pattern == pkg
}
