package exec

import (
	"github.com/sharding-system/sharding/internal/copydata"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// copyFormat is how the client writes its rows; server is the major version of the
// servers that they go to.
func copyFormat(c *plan.CopyPlan, server int) (copydata.Format, error) {
	o := &c.Options
	f, err := copydata.FromOptions(copydata.Options{
		CSV: o.Format == "csv", Header: o.Header,
		Delimiter: o.Delimiter, HasDelimiter: o.HasDelimiter, Null: o.Null, HasNull: o.HasNull,
		Quote: o.Quote, HasQuote: o.HasQuote, Escape: o.Escape, HasEscape: o.HasEscape,
		Server: server,
	})
	if err != nil {
		return f, err
	}
	if len(o.ForceNull)+len(o.ForceNotNull) > 0 {
		return f, pgerr.New(pgerr.FeatureNotSupported, "FORCE_NULL and FORCE_NOT_NULL are not supported for a table whose rows go to several shards")
	}
	f.Table = c.Table.Name
	return f, nil
}

// majorVersion reads a server_version: "15.20 (Debian ...)", "18beta1".
func majorVersion(text string) (n int) {
	for i := 0; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		n = 10*n + int(text[i]-'0')
	}
	return n
}
