package pgerr

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"testing"
)

func TestRefusalsAreSortedUniqueAndExplained(t *testing.T) {
	form := regexp.MustCompile(`^SH[0-9]{4}$`)
	last := ""
	for _, r := range Refusals() {
		if !form.MatchString(r.Code) {
			t.Errorf("%q is not SH and four digits", r.Code)
		}
		if r.Code <= last {
			t.Errorf("%s stands after %s", r.Code, last)
		}
		last = r.Code
		if r.Title == "" || r.Hint == "" {
			t.Errorf("%s lacks a title or a hint", r.Code)
		}
		if e := r.New("m %d", 1); e.Code != FeatureNotSupported || e.ShardingCode != r.Code || e.Hint != r.Hint || e.Detail != r.Title || e.Message != "m 1" {
			t.Errorf("%s.New = %+v", r.Code, e)
		}
	}
}

// A variable that is missing from Refusals would be missing from the reference.
func TestEveryRefusalIsListed(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, v := range spec.Values {
			if lit, ok := v.(*ast.CompositeLit); ok {
				if id, ok := lit.Type.(*ast.Ident); ok && id.Name == "Refusal" {
					declared++
				}
			}
		}
		return true
	})
	if declared == 0 || declared != len(Refusals()) {
		t.Errorf("%d refusals are declared, %d are listed", declared, len(Refusals()))
	}
}
