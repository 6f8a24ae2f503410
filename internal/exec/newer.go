package exec

import (
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// unmoved refuses a statement of an open transaction that the newest shard map
// sends elsewhere than the one that the transaction began under: it would look for
// a key's rows where they are no longer.
func (x *Exec) unmoved(p *plan.Plan, a *plan.Args) error {
	was, now := x.Place, x.Newer.Map
	if was.Map.Epoch() == now.Epoch() {
		return nil
	}
	var shards []int
	switch p.Route.Kind {
	case plan.Keyed:
		var err error
		if shards, err = p.Route.Bind(nil, a, now); err != nil {
			return err
		}
	case plan.Rows:
		var split plan.RowSplit
		if err := p.BindRows(&split, a, now); err != nil {
			return err
		}
		for i, s := range split.ShardOf {
			if old := x.split.ShardOf[i]; (s < 0) != (old < 0) || s >= 0 && now.Shards()[s] != was.Shards[old] {
				return movedOn(x)
			}
		}
		return nil
	default:
		return nil
	}
	if len(shards) == 0 {
		return nil // no row anywhere matches
	}
	if len(shards) != len(x.shbuf) {
		return movedOn(x)
	}
	for i, s := range shards {
		if now.Shards()[s] != was.Shards[x.shbuf[i]] {
			return movedOn(x)
		}
	}
	return nil
}

func movedOn(x *Exec) error {
	return pgerr.New(pgerr.SerializationFailure, "a key of the statement has its place on another shard since the transaction began").
		WithDetail("The shard map is at epoch %d, the transaction at %d.", x.Newer.Map.Epoch(), x.Place.Map.Epoch()).
		WithHint("Run the transaction again.")
}
