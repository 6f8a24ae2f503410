package router

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A parameter travels to PostgreSQL as text, and PostgreSQL reads it as the type
// that it infers for the parameter: numbers keep their digits, booleans are true
// and false, null is NULL, an array is an array literal, an object is its JSON.
// For a parameter of type json or jsonb an array is its JSON too.

// composite says whether a parameter's text depends on its type.
func composite(params []any) bool {
	for _, p := range params {
		if _, ok := p.([]any); ok {
			return true
		}
	}
	return false
}

// paramTexts gives the parameters' texts. types are their OIDs where they are
// known, and otherwise empty.
func paramTexts(params []any, types []uint32) ([][]byte, error) {
	if len(params) == 0 {
		return nil, nil
	}
	out := make([][]byte, len(params))
	for i, p := range params {
		asJSON := i < len(types) && isJSON(types[i])
		text, err := paramText(p, asJSON)
		if err != nil {
			return nil, badRequest("params[%d]: %v", i, err)
		}
		out[i] = text
	}
	return out, nil
}

// paramText gives one parameter's text, nil for null.
func paramText(p any, asJSON bool) ([]byte, error) {
	switch v := p.(type) {
	case nil:
		return nil, nil
	case bool:
		return fmt.Appendf(nil, "%t", v), nil
	case json.Number:
		return []byte(v), nil
	case string:
		if strings.IndexByte(v, 0) >= 0 {
			return nil, errNUL
		}
		return []byte(v), nil
	case []any:
		if asJSON {
			return json.Marshal(v)
		}
		return appendArrayLiteral([]byte{}, v, 1)
	}
	return json.Marshal(p)
}

var errNUL = fmt.Errorf("PostgreSQL's texts cannot hold the character NUL (\\u0000)")

// appendArrayLiteral writes a JSON array in PostgreSQL's array input syntax
// (manual, 8.15.2). Every element but null is quoted, so that nothing in it can be
// read as syntax.
func appendArrayLiteral(dst []byte, elems []any, depth int) ([]byte, error) {
	if depth > maxArrayDims {
		return nil, fmt.Errorf("an array of more than %d dimensions", maxArrayDims)
	}
	dst = append(dst, '{')
	for i, e := range elems {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		switch v := e.(type) {
		case nil:
			dst = append(dst, "NULL"...)
		case []any:
			if dst, err = appendArrayLiteral(dst, v, depth+1); err != nil {
				return nil, err
			}
		default:
			text, err := paramText(e, true)
			if err != nil {
				return nil, err
			}
			dst = appendQuotedElement(dst, text)
		}
	}
	return append(dst, '}'), nil
}

func appendQuotedElement(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}
