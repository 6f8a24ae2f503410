package demo

import (
	"fmt"
	"io"
	"time"
)

// source is the rows of one table in COPY's text format, made as they are
// read. The same number of customers gives the same rows on every run.
type source struct {
	name string
	rows int
	row  func(dst []byte, i int) []byte
}

var countries = []struct{ code, name string }{
	{"AT", "Austria"}, {"BE", "Belgium"}, {"BR", "Brazil"}, {"CA", "Canada"}, {"CH", "Switzerland"},
	{"CL", "Chile"}, {"CZ", "Czechia"}, {"DE", "Germany"}, {"DK", "Denmark"}, {"EG", "Egypt"},
	{"ES", "Spain"}, {"FI", "Finland"}, {"FR", "France"}, {"GR", "Greece"}, {"IE", "Ireland"},
	{"IN", "India"}, {"IS", "Iceland"}, {"IT", "Italy"}, {"JP", "Japan"}, {"KE", "Kenya"},
	{"MX", "Mexico"}, {"NL", "Netherlands"}, {"NO", "Norway"}, {"NZ", "New Zealand"}, {"PL", "Poland"},
	{"PT", "Portugal"}, {"SE", "Sweden"}, {"SN", "Senegal"}, {"US", "United States"}, {"VN", "Vietnam"},
}

var (
	givenNames  = []string{"Ada", "Blaise", "Chloé", "Dana", "Emil", "Fatou", "Grace", "Hana", "Ivo", "Jun"}
	familyNames = []string{"Arbor", "Brook", "Castle", "Dale", "Elm", "Field", "Grove", "Hill", "Isle", "Jarvis", "Knoll"}
	products    = []string{"lamp", "kettle", "notebook", "umbrella", "teapot", "blanket", "bicycle bell", "chess set"}
)

// epoch is when the first order was placed.
var epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// shop is all tables in the order in which foreign keys want them filled.
func shop(customers int) []source {
	orders := customers * ordersEach
	return []source{
		{"countries", len(countries), func(dst []byte, i int) []byte {
			return fmt.Appendf(dst, "%s\t%s\n", countries[i].code, countries[i].name)
		}},
		{"customers", customers, func(dst []byte, i int) []byte {
			name := givenNames[i%len(givenNames)] + " " + familyNames[i%len(familyNames)]
			return fmt.Appendf(dst, "%d\t%s\t%s\t0\n", i+1, name, countries[i*7%len(countries)].code)
		}},
		{"orders", orders, func(dst []byte, i int) []byte {
			placed := epoch.Add(time.Duration(i) * 17 * time.Minute)
			return fmt.Appendf(dst, "%d\t%d\t%s\n", i/ordersEach+1, i+1, placed.Format(time.RFC3339))
		}},
		{"order_items", orders * itemsEach, func(dst []byte, i int) []byte {
			order := i / itemsEach
			return fmt.Appendf(dst, "%d\t%d\t%d\t%s\t%d\t%d\n",
				order/ordersEach+1, order+1, i%itemsEach+1, products[i*5%len(products)], i%4+1, 250+i*37%9_000)
		}},
	}
}

// reader gives the rows as one stream and tells how many it has handed out.
func (s source) reader(sent func(rows int)) io.Reader { return &rowReader{source: s, sent: sent} }

type rowReader struct {
	source source
	next   int
	rest   []byte
	buf    []byte
	sent   func(int)
}

func (r *rowReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.next == r.source.rows {
			return 0, io.EOF
		}
		r.buf = r.buf[:0]
		from := r.next
		for r.next < r.source.rows && len(r.buf) < 32<<10 {
			r.buf = r.source.row(r.buf, r.next)
			r.next++
		}
		r.rest = r.buf
		r.sent(r.next - from)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
