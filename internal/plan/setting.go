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

// CheckEncoding refuses a client_encoding under which the router cannot read what clients
// send. It reads UTF-8, and that is what a server with a UTF8 database takes and sends
// under SQL_ASCII too (PostgreSQL manual, "Character Set Support").
func CheckEncoding(v string) error {
	switch encodingName(v) {
	case "utf8", "unicode", "sqlascii", "":
		return nil
	}
	return pgerr.New(pgerr.FeatureNotSupported, "client_encoding %q is not supported over several shards", v).WithHint("Use UTF8.")
}

// IsUTF8 says whether an encoding's name is UTF8, however it is written; servers tell the older
// name UNICODE from it in what they report.
func IsUTF8(v string) bool {
	return encodingName(v) == "utf8"
}

// encodingName is the name of an encoding as PostgreSQL compares it: without what is no
// letter and no digit, in lower case (clean_encoding_name, common/encnames.c).
func encodingName(v string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return -1
	}, v)
}
