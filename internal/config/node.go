package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// node is a JSON value as it stands in the file, with what encoding/json's own
// decoding forgets: keys given twice, and the order of keys.
type node struct {
	value any // nil, bool, json.Number, string, *object, []node
}

type object struct {
	keys   []string
	fields map[string]node
	twice  []string
}

// describe names the JSON type, as in "not a string".
func (n node) describe() string {
	switch v := n.value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []node:
		return "a list"
	case *object:
		return "an object"
	default:
		return fmt.Sprintf("a %T", v)
	}
}

// maxDepth bounds the nesting of a configuration file; none needs more than four.
const maxDepth = 32

// parse reads exactly one JSON value.
func parse(b []byte) (node, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	n, err := parseValue(d, 0)
	if err == nil {
		if _, err = d.Token(); err == nil {
			err = errors.New("more follows after the end of the configuration")
		} else if errors.Is(err, io.EOF) {
			return n, nil
		}
	}
	return node{}, fmt.Errorf("%s: %w", position(b, d.InputOffset(), err), syntaxError(err))
}

func syntaxError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file ends in the middle of a value")
	}
	return err
}

func position(b []byte, offset int64, err error) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = syntax.Offset
	}
	before := b[:min(max(offset, 0), int64(len(b)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return "line " + strconv.Itoa(line) + ", column " + strconv.Itoa(column)
}

func parseValue(d *json.Decoder, depth int) (node, error) {
	t, err := d.Token()
	if err != nil {
		return node{}, err
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return node{t}, nil
	}
	if depth == maxDepth {
		return node{}, errors.New("nested too deeply")
	}
	if delim == '{' {
		return parseObject(d, depth+1)
	}
	return parseList(d, depth+1)
}

func parseObject(d *json.Decoder, depth int) (node, error) {
	o := &object{fields: map[string]node{}}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return node{}, err
		}
		key, ok := t.(string)
		if !ok {
			return node{}, fmt.Errorf("a key must be a string, not %v", t)
		}
		v, err := parseValue(d, depth)
		if err != nil {
			return node{}, err
		}
		if _, given := o.fields[key]; given {
			o.twice = append(o.twice, key)
		} else {
			o.keys = append(o.keys, key)
		}
		o.fields[key] = v
	}
	_, err := d.Token()
	return node{o}, err
}

func parseList(d *json.Decoder, depth int) (node, error) {
	list := []node{}
	for d.More() {
		v, err := parseValue(d, depth)
		if err != nil {
			return node{}, err
		}
		list = append(list, v)
	}
	_, err := d.Token()
	return node{list}, err
}

// expand replaces ${NAME} in s by the environment's value and gives the names
// that have none; "$${" stands for "${" itself.
func expand(s string, env func(string) string) (expanded string, missing []string) {
	var out strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			out.WriteString(s)
			return out.String(), missing
		}
		if i > 0 && s[i-1] == '$' {
			out.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		name, rest, closed := strings.Cut(s[i+2:], "}")
		if !closed {
			out.WriteString(s)
			return out.String(), append(missing, "")
		}
		value := env(name)
		if value == "" {
			missing = append(missing, name)
		}
		out.WriteString(s[:i] + value)
		s = rest
	}
}
