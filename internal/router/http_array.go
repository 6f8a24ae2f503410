package router

// maxArrayDims bounds the dimensions of an array: PostgreSQL's MAXDIM.
const maxArrayDims = 6

// appendArray writes PostgreSQL's text output of an array (manual, 8.15.6) as
// nested JSON arrays. Bounds in front ("[0:1]={...}") are dropped. false, and dst
// as it was, for what is not of that form.
func appendArray(dst []byte, t valueType, v []byte) ([]byte, bool) {
	n := len(dst)
	if len(v) > 0 && v[0] == '[' {
		i := 0
		for i < len(v) && v[i] != '=' {
			i++
		}
		if i == len(v) {
			return dst, false
		}
		v = v[i+1:]
	}
	a := arrayReader{in: v, t: t, out: dst}
	if !a.array(1) || a.at != len(v) {
		return dst[:n], false
	}
	return a.out, true
}

// arrayReader walks over one array's text.
type arrayReader struct {
	in   []byte
	at   int
	t    valueType
	out  []byte
	elem []byte // an element that had escapes
}

// array reads "{...}" at depth, counted from 1.
func (a *arrayReader) array(depth int) bool {
	if depth > maxArrayDims || !a.take('{') {
		return false
	}
	a.out = append(a.out, '[')
	if a.take('}') {
		a.out = append(a.out, ']')
		return true
	}
	for {
		if !a.member(depth) {
			return false
		}
		if a.take('}') {
			a.out = append(a.out, ']')
			return true
		}
		if !a.take(a.t.delim) {
			return false
		}
		a.out = append(a.out, ',')
	}
}

func (a *arrayReader) take(c byte) bool {
	if a.at < len(a.in) && a.in[a.at] == c {
		a.at++
		return true
	}
	return false
}

// member reads what stands between two delimiters.
func (a *arrayReader) member(depth int) bool {
	if a.at < len(a.in) && a.in[a.at] == '{' {
		return a.array(depth + 1)
	}
	if a.take('"') {
		return a.quoted()
	}
	from := a.at
	for a.at < len(a.in) && a.in[a.at] != a.t.delim && a.in[a.at] != '}' {
		switch a.in[a.at] {
		case '"', '{', '\\':
			return false // PostgreSQL quotes elements with these
		}
		a.at++
	}
	word := a.in[from:a.at]
	switch {
	case len(word) == 0:
		return false
	case string(word) == "NULL":
		a.out = append(a.out, "null"...)
	default:
		a.out = appendElement(a.out, a.t.form, word)
	}
	return true
}

// quoted reads an element behind its opening quote.
func (a *arrayReader) quoted() bool {
	a.elem = a.elem[:0]
	for a.at < len(a.in) {
		c := a.in[a.at]
		a.at++
		switch c {
		case '"':
			a.out = appendElement(a.out, a.t.form, a.elem)
			return true
		case '\\':
			if a.at == len(a.in) {
				return false
			}
			c = a.in[a.at]
			a.at++
		}
		a.elem = append(a.elem, c)
	}
	return false
}
