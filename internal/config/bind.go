package config

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// binder carries a tree of JSON into structs and gathers what does not fit.
type binder struct {
	problems
	env   func(string) string
	given map[string]bool // paths that the file has
	// expanded are paths whose value holds a variable's, and is not shown.
	expanded map[string]bool
}

var (
	durationType = reflect.TypeFor[Duration]()
	secretType   = reflect.TypeFor[Secret]()
)

// bind sets v, which is addressable, from n.
func (b *binder) bind(path string, n node, v reflect.Value) {
	b.given[path] = true
	if n.value == nil {
		b.add(path, "must not be null; leave the key out for its default")
		return
	}
	switch {
	case v.Type() == durationType:
		b.bindDuration(path, n, v)
	case v.Type() == secretType:
		if s, ok := b.text(path, n); ok {
			v.SetString(s)
		}
	case v.Kind() == reflect.Struct:
		b.bindObject(path, n, v)
	case v.Kind() == reflect.Slice:
		b.bindList(path, n, v)
	case isText(v):
		if s, ok := b.text(path, n); ok {
			if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
				b.refuse(path, err)
			}
		}
	default:
		b.bindScalar(path, n, v)
	}
}

// refuse reports an error that repeats the value, unless that may be secret.
func (b *binder) refuse(path string, err error) {
	if b.expanded[path] {
		b.add(path, "cannot be what its environment variable holds")
		return
	}
	b.add(path, "%v", err)
}

// show gives the value for a message, unless it may be secret.
func (b *binder) show(path, value string) string {
	if b.expanded[path] {
		return "what its environment variable holds"
	}
	return strconv.Quote(value)
}

func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

func (b *binder) bindScalar(path string, n node, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if s, ok := b.text(path, n); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if x, ok := n.value.(bool); ok {
			v.SetBool(x)
		} else {
			b.add(path, "must be true or false, not %s", n.describe())
		}
	case reflect.Int:
		number, ok := n.value.(json.Number)
		x, err := strconv.ParseInt(string(number), 10, 32)
		if !ok {
			b.add(path, "must be a whole number, not %s", n.describe())
		} else if err != nil {
			b.add(path, "must be a whole number of 32 bits, not %s", number)
		} else {
			v.SetInt(x)
		}
	case reflect.Float64:
		number, ok := n.value.(json.Number)
		x, err := number.Float64()
		if !ok || err != nil {
			b.add(path, "must be a number, not %s", n.describe())
		} else {
			v.SetFloat(x)
		}
	default:
		panic("config: no rule for a field of type " + v.Type().String())
	}
}

// text gives a string with its variables replaced.
func (b *binder) text(path string, n node) (string, bool) {
	s, ok := n.value.(string)
	if !ok {
		b.add(path, "must be a string, not %s", n.describe())
		return "", false
	}
	written := s
	s, missing := expand(s, b.env)
	if s != written {
		b.expanded[path] = true
	}
	for _, name := range missing {
		if name == "" {
			b.add(path, `"${" without "}"`)
		} else {
			b.add(path, "environment variable %s is not set", name)
		}
	}
	return s, len(missing) == 0
}

func (b *binder) bindDuration(path string, n node, v reflect.Value) {
	if _, ok := n.value.(string); !ok {
		b.add(path, `must be a time span such as "30s", not %s`, n.describe())
		return
	}
	s, ok := b.text(path, n)
	if !ok {
		return
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		b.add(path, `must be a time span such as "30s" or "5m", not %q`, n.value)
	case d < 0:
		b.add(path, "must not be negative")
	default:
		v.SetInt(int64(d))
	}
}

func (b *binder) bindList(path string, n node, v reflect.Value) {
	list, ok := n.value.([]node)
	if !ok {
		b.add(path, "must be a list, not %s", n.describe())
		return
	}
	out := reflect.MakeSlice(v.Type(), len(list), len(list))
	for i, item := range list {
		b.bind(path+"["+strconv.Itoa(i)+"]", item, out.Index(i))
	}
	v.Set(out)
}

func (b *binder) bindObject(path string, n node, v reflect.Value) {
	o, ok := n.value.(*object)
	if !ok {
		b.add(path, "must be an object, not %s", n.describe())
		return
	}
	fields := map[string]int{}
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("json"); name != "-" {
			fields[name] = i
		}
	}
	for _, key := range o.twice {
		b.add(join(path, key), "given twice")
	}
	for _, key := range o.keys {
		if i, known := fields[key]; known {
			b.bind(join(path, key), o.fields[key], v.Field(i))
			continue
		}
		text := "unknown key"
		if near := nearest(key, fields); near != "" {
			text += "; did you mean " + near + "?"
		}
		b.add(join(path, key), "%s", text)
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// nearest gives the known key that was probably meant, or "".
func nearest(key string, known map[string]int) string {
	plain := func(s string) string { return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s)) }
	best, bestDistance := "", 1+len(key)/3
	for k := range known {
		d := distance(plain(key), plain(k))
		if d < bestDistance || d == bestDistance && best != "" && k < best {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is Levenshtein's: the fewest insertions, removals and replacements.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
