package manager

import (
	"encoding/base64"
	"sort"
	"strconv"

	"github.com/sharding-system/sharding/client"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// page cuts one page out of a whole list: limit and cursor are the request's.
// key gives each item its place in the order; the cursor is the last key
// handed out, so that pages fit together while items come and go.
func page[T any](c *call, items []T, key func(T) string) (client.Page[T], error) {
	limit := defaultPage
	if v := c.URL.Query().Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxPage {
			return client.Page[T]{}, badRequest("limit: %q is not a number from 1 to %d", v, maxPage)
		}
		limit = n
	}
	after := ""
	if v := c.URL.Query().Get("cursor"); v != "" {
		b, err := base64.RawURLEncoding.DecodeString(v)
		if err != nil {
			return client.Page[T]{}, badRequest("cursor: %q is not one of ours", v)
		}
		after = string(b)
	}
	sort.Slice(items, func(i, j int) bool { return key(items[i]) < key(items[j]) })
	from := 0
	if after != "" {
		from = sort.Search(len(items), func(i int) bool { return key(items[i]) > after })
	}
	p := client.Page[T]{Items: items[from:]}
	if len(p.Items) > limit {
		p.Items = p.Items[:limit]
		p.Next = base64.RawURLEncoding.EncodeToString([]byte(key(p.Items[limit-1])))
	}
	if p.Items == nil {
		p.Items = []T{}
	}
	return p, nil
}
