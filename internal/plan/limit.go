package plan

import (
	"strconv"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// RowLimit is how many rows the shards' answers may have together; limited is false
// where they may have any number. A negative count is the shards' to refuse.
func (m *Merge) RowLimit(a *Args) (n int64, limited bool, err error) {
	if m.Limit == nil {
		return 0, false, nil
	}
	v, null, err := m.Limit.value(a)
	if err != nil {
		return 0, false, pgerr.CrossShardLimit.New("the count of LIMIT is not an integer that can be read here")
	}
	if null {
		return 0, false, nil
	}
	if n, err = strconv.ParseInt(v.String(), 10, 64); err != nil {
		return 0, false, pgerr.CrossShardLimit.New("the count of LIMIT is not an integer that can be read here")
	}
	return max(n, 0), true, nil
}
