//go:build protocol

package router_test

import (
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	"pgregory.net/rapid"
)

// protocolWorld is what random series are made of: tables, and statements about them.
type protocolWorld struct {
	name    string
	servers int
	seed    int // of the series that are run where SHARDING_SEED names no other
	// setup makes the tables, reset their rows.
	setup, reset []string
	// texts are statements without parameters; control those of transactions.
	texts, control []string
	// bound are statements with parameters.
	bound []boundText
	// copies are COPY statements from the client, with data that fits them.
	copies []copyText
	// atOnce is how many statements a Query has at most; call: function calls too.
	atOnce int
	call   bool
	// keyed: integers are keys, not NULL, and a Bind has as many as its statement;
	// tidy: what a COPY sends is good, and ends.
	keyed, tidy bool
}

type boundText struct {
	sql    string
	params []string // what fits: "i" an integer, "t" a text
}

type copyText struct {
	sql  string
	data []string
}

type messages = []pgproto3.FrontendMessage

// gen draws a series of bursts.
type gen struct {
	*rapid.T
	w      *protocolWorld
	closes int
}

func (g gen) n(most int) int      { return rapid.IntRange(0, most-1).Draw(g.T, "n") }
func (g gen) one(in, of int) bool { return rapid.IntRange(1, of).Draw(g.T, "chance") <= in }
func (g gen) of(list ...string) string {
	return rapid.SampledFrom(list).Draw(g.T, "of")
}

func (w *protocolWorld) series(t *rapid.T) (out [][]pgproto3.FrontendMessage) {
	g := &gen{T: t, w: w}
	for range 1 + g.n(5) {
		out = append(out, g.burst())
	}
	return out
}

func (g *gen) burst() (out messages) {
	g.closes = 0
	for range 1 + g.n(5) {
		switch g.n(10) {
		case 0, 1, 2:
			out = append(out, g.query())
		case 3, 4, 5, 6:
			out = append(out, g.unit()...)
		case 7:
			out = append(out, g.copy()...)
		default:
			out = append(out, g.wild())
		}
		if g.one(1, 2) {
			out = append(out, &pgproto3.Sync{})
		}
	}
	return out
}

func (g *gen) text() string {
	if g.one(1, 3) {
		return g.of(g.w.control...)
	}
	return g.of(g.w.texts...)
}

// query is a simple Query of one or a few statements.
func (g *gen) query() pgproto3.FrontendMessage {
	var parts []string
	n := 1
	if g.one(1, 3) {
		n = 1 + g.n(g.w.atOnce)
	}
	for range n {
		parts = append(parts, g.text())
	}
	return &pgproto3.Query{String: strings.Join(parts, "; ")}
}

func (g *gen) statementName() string { return g.of("", "", "", "s1", "s2") }
func (g *gen) portalName() string    { return g.of("", "", "", "p1", "p2") }

// statement is one to prepare.
func (g *gen) statement() boundText {
	if g.one(1, 3) {
		return boundText{sql: g.text()}
	}
	return rapid.SampledFrom(g.w.bound).Draw(g.T, "bound")
}

func (g *gen) parse(name string, b boundText) *pgproto3.Parse {
	m := &pgproto3.Parse{Name: name, Query: b.sql}
	if g.one(1, 4) {
		for _, p := range b.params {
			oid := uint32(0)
			if g.one(2, 3) {
				oid = map[string]uint32{"i": 23, "t": 25}[p]
			}
			m.ParameterOIDs = append(m.ParameterOIDs, oid)
		}
		if g.one(1, 12) {
			m.ParameterOIDs = append(m.ParameterOIDs, rapid.SampledFrom([]uint32{23, 25, 705, 20, 16}).Draw(g.T, "oid"))
		}
	}
	return m
}

func (g *gen) value(kind string, binary bool) []byte {
	if g.one(1, 12) && !(g.w.keyed && kind == "i") {
		return nil
	}
	if binary && kind == "i" {
		if g.one(1, 15) {
			return []byte{1, 2}
		}
		return []byte{0, 0, 0, byte(g.n(9))}
	}
	if kind == "t" {
		return []byte(g.of("a", "", "b", "c'd", "é"))
	}
	if g.one(1, 15) {
		return []byte(g.of("x", "2147483648", "", " 3 "))
	}
	return []byte(g.of("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"))
}

func (g *gen) bind(portal, name string, params []string) *pgproto3.Bind {
	m := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}
	mode := g.n(6) // 0: all binary, 1: each by itself, else text
	for i, p := range params {
		binary := mode == 0 || mode == 1 && i%2 == 0
		m.Parameters = append(m.Parameters, g.value(p, binary))
		if mode == 1 {
			format := int16(0)
			if binary {
				format = 1
			}
			m.ParameterFormatCodes = append(m.ParameterFormatCodes, format)
		}
	}
	if mode == 0 {
		m.ParameterFormatCodes = []int16{1}
	}
	if portal == "" && g.one(1, 20) && !g.w.keyed {
		m.Parameters = append(m.Parameters, []byte("1"))
	}
	if g.one(1, 4) {
		m.ResultFormatCodes = []int16{int16(g.n(2))}
	} else if g.one(1, 20) {
		m.ResultFormatCodes = []int16{0, 1, int16(g.n(3))}
	}
	return m
}

func (g *gen) describe(kind byte, name string) pgproto3.FrontendMessage {
	return &pgproto3.Describe{ObjectType: kind, Name: name}
}

// unit is what a driver sends for a statement, more or less.
func (g *gen) unit() (out messages) {
	name, portal, b := g.statementName(), g.portalName(), g.statement()
	if name != "" && g.one(3, 4) {
		out = append(out, g.close('S', name)...)
	}
	out = append(out, g.parse(name, b))
	if g.one(1, 3) {
		out = append(out, g.describe('S', name))
	}
	if g.one(1, 8) {
		out = append(out, g.between())
	}
	for range 1 + g.n(2) {
		if portal != "" && g.one(3, 4) {
			out = append(out, g.close('P', portal)...)
		}
		out = append(out, g.bind(portal, name, b.params))
		if g.one(2, 3) {
			out = append(out, g.describe('P', portal))
		}
		if g.one(1, 8) {
			out = append(out, g.between())
		}
		for range 1 + g.n(3)/2 {
			out = append(out, &pgproto3.Execute{Portal: portal, MaxRows: g.rows()})
		}
		if g.one(1, 6) {
			out = append(out, g.between())
		}
	}
	return out
}

func (g *gen) rows() uint32 {
	if g.one(2, 3) {
		return 0
	}
	return uint32(g.n(4))
}

func (g *gen) between() pgproto3.FrontendMessage {
	if g.one(1, 2) {
		return &pgproto3.Flush{}
	}
	return &pgproto3.Sync{}
}

func (g *gen) close(kind byte, name string) messages {
	if g.closes++; g.closes >= closes {
		return nil
	}
	return messages{&pgproto3.Close{ObjectType: kind, Name: name}}
}

// copy is a COPY from the client, by either protocol, with data that may be bad.
func (g *gen) copy() (out messages) {
	c := rapid.SampledFrom(g.w.copies).Draw(g.T, "copy")
	if g.one(1, 2) {
		sql := c.sql
		if g.one(1, 5) {
			sql = g.of("SELECT 5; "+sql, sql+"; SELECT 6", "BEGIN; "+sql, sql+"; SELECT 1/0")
		}
		out = append(out, &pgproto3.Query{String: sql})
	} else {
		name, portal := g.statementName(), g.portalName()
		if name != "" {
			out = append(out, g.close('S', name)...)
		}
		out = append(out, &pgproto3.Parse{Name: name, Query: c.sql}, &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name})
		if g.one(1, 2) {
			out = append(out, g.describe('P', portal))
		}
		out = append(out, &pgproto3.Execute{Portal: portal})
		if g.one(1, 3) && !g.w.tidy {
			out = append(out, g.between())
		}
	}
	for range g.n(4) {
		data := g.of(c.data...)
		if g.one(1, 8) && !g.w.tidy {
			data = g.of("x\n", "", "\\.\n", "1", "\t\t\t\t\n")
		}
		out = append(out, &pgproto3.CopyData{Data: []byte(data)})
		if g.one(1, 10) && !g.w.tidy {
			out = append(out, g.between())
		}
	}
	switch n := g.n(10); {
	case n == 0 && !g.w.tidy:
	case n < 3:
		out = append(out, &pgproto3.CopyFail{Message: "no more"})
	default:
		out = append(out, &pgproto3.CopyDone{})
	}
	return out
}

// wild is any message.
func (g *gen) wild() pgproto3.FrontendMessage {
	switch g.n(12) {
	case 0:
		return g.parse(g.statementName(), g.statement())
	case 1:
		if !g.w.keyed {
			return g.bind(g.portalName(), g.of("", "s1", "s2", "s3"), nil)
		}
	case 2:
		return g.describe('S', g.of("", "s1", "s2", "s3"))
	case 3:
		return g.describe('P', g.of("", "p1", "c", "p3"))
	case 4, 5:
		return &pgproto3.Execute{Portal: g.of("", "p1", "p2", "c", "p3"), MaxRows: g.rows()}
	case 6:
		if m := g.close(byte('P'+3*g.n(2)), g.of("", "p1", "s1", "c")); m != nil {
			return m[0]
		}
	case 7:
		return &pgproto3.CopyData{Data: []byte("1\n")}
	case 8:
		return &pgproto3.CopyDone{}
	case 9:
		return &pgproto3.CopyFail{Message: "stray"}
	case 10:
		if g.w.call {
			return g.function()
		}
	}
	return &pgproto3.Flush{}
}

// function is a call of int4pl, or of nothing.
func (g *gen) function() pgproto3.FrontendMessage {
	m := &pgproto3.FunctionCall{Function: 177, ArgFormatCodes: []uint16{0}, Arguments: [][]byte{[]byte("1"), []byte("2")}}
	switch g.n(5) {
	case 0:
		m.Arguments = m.Arguments[:1]
	case 1:
		m.Function = 4294967295
	case 2:
		m.Arguments[0] = []byte("x")
	case 3:
		m.ResultFormatCode = 1
	}
	return m
}
