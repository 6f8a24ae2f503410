package twophase

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sharding-system/sharding"
)

// maxName is the longest name of a prepared transaction: PostgreSQL's GIDSIZE is
// 200 and counts the closing NUL.
const maxName = 199

// prefix begins every name of ours; the digit is the format's version.
const prefix = "sharding1:"

// maxGID leaves room for a branch's number behind the transaction's name.
const maxGID = maxName - len(":9999")

// GID names a transaction over several shards. It is never used twice: Boot is
// new at every start of a router, Counter grows within it.
type GID struct {
	Incarnation string           // of the cluster: another cluster's transactions are left alone
	Decision    sharding.ShardID // id of the decision shard, set when the coordinator chooses it
	Router      string           // id of the router that coordinates
	Boot        string           // of that router's process
	Counter     uint64
}

// Validate says whether the name can be used: no part is missing, and all together
// fit into PostgreSQL's 199 bytes. They do if the ids of the shard and the router
// have no more than 100 bytes together.
func (g GID) Validate() error {
	for _, part := range []struct{ name, value string }{
		{"incarnation", g.Incarnation}, {"decision shard", string(g.Decision)}, {"router", g.Router}, {"boot", g.Boot},
	} {
		if part.value == "" {
			return fmt.Errorf("gid: the %s is empty", part.name)
		}
	}
	if s := g.String(); len(s) > maxGID {
		return fmt.Errorf("gid: %q has %d bytes, at most %d fit: shorten the router's or the shard's id", s, len(s), maxGID)
	}
	return nil
}

// String is the name, at most 194 bytes if the GID is valid, of characters that
// need no escape in a literal under any setting: letters, digits and ". _ % : -".
func (g GID) String() string {
	return incarnationPrefix(g.Incarnation) + escape(string(g.Decision)) + ":" + escape(g.Router) + ":" +
		escape(g.Boot) + ":" + strconv.FormatUint(g.Counter, 10)
}

// Branch is the name under which participant n is prepared. It differs between
// participants, so that two shards may be databases of one PostgreSQL server,
// whose prepared transactions share one space of names.
func (g GID) Branch(n int) string { return g.String() + ":" + strconv.Itoa(n) }

// incarnationPrefix begins every name of one cluster and no name of another.
func incarnationPrefix(incarnation string) string { return prefix + escape(incarnation) + ":" }

// ParseGID reads what String wrote, and nothing else.
func ParseGID(s string) (GID, error) {
	rest, ok := strings.CutPrefix(s, prefix)
	parts := strings.Split(rest, ":")
	if !ok || len(parts) != 5 {
		return GID{}, fmt.Errorf("%q is not a transaction's name of this system", s)
	}
	var g GID
	var decision string
	for i, to := range []*string{&g.Incarnation, &decision, &g.Router, &g.Boot} {
		v, err := unescape(parts[i])
		if err != nil {
			return GID{}, fmt.Errorf("transaction's name %q: %w", s, err)
		}
		*to = v
	}
	n, err := strconv.ParseUint(parts[4], 10, 64)
	if err != nil {
		return GID{}, fmt.Errorf("transaction's name %q: counter: %w", s, err)
	}
	g.Decision, g.Counter = sharding.ShardID(decision), n
	if err := g.Validate(); err != nil {
		return GID{}, err
	}
	if g.String() != s {
		return GID{}, fmt.Errorf("transaction's name %q is not in canonical form", s)
	}
	return g, nil
}

// ParseBranch reads what Branch wrote, and nothing else.
func ParseBranch(s string) (GID, int, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return GID{}, 0, fmt.Errorf("%q is not a branch's name of this system", s)
	}
	g, err := ParseGID(s[:i])
	if err != nil {
		return GID{}, 0, err
	}
	n, err := strconv.Atoi(s[i+1:])
	if err != nil || n < 0 || g.Branch(n) != s {
		return GID{}, 0, fmt.Errorf("%q is not a branch's name of this system", s)
	}
	return g, n, nil
}

const hexDigits = "0123456789ABCDEF"

func plain(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.'
}

// escape writes every byte that is not plain as % and two hexadecimal digits.
func escape(s string) string {
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	b := append(make([]byte, 0, len(s)+8), s[:i]...)
	for ; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errors.New("an escape is cut off")
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("escape %q: %w", s[i:i+3], err)
		}
		b, i = append(b, byte(n)), i+2
	}
	return string(b), nil
}
