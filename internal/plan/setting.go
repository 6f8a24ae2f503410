package plan

import (
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// CheckSetting refuses, in a keyspace of several shards, values of settings under which statements would be read, or keys placed,
// otherwise by the shards than by the router. It is asked at SET and at set_config.
func CheckSetting(name, value string) error {
	v := strings.ToLower(strings.TrimSpace(value))
	// A boolean may be cut short as long as it is unique (parse_bool_with_len).
	off := v != "" && (strings.HasPrefix("false", v) || strings.HasPrefix("no", v) || v == "of" || v == "off" || v == "0")
	switch name = strings.ToLower(name); name {
	case "client_encoding":
		return CheckEncoding(value)
	case "standard_conforming_strings":
		if off {
			return pgerr.Setting.New("%s = off", name)
		}
	case "transform_null_equals", "session_replication_role":
		if v != "" && !off && v != "origin" {
			return pgerr.Setting.New("%s = %s", name, value)
		}
	}
	return nil
}

// CheckEncoding refuses a client_encoding that the router does not read.
func CheckEncoding(v string) error {
	switch strings.ToUpper(strings.Trim(v, "'\" ")) {
	case "UTF8", "UTF-8", "UNICODE", "":
		return nil
	}
	return pgerr.New(pgerr.FeatureNotSupported, "client_encoding %q is not supported by the router", v).WithHint("Use UTF8.")
}
