package sharding

import (
	"strings"
	"testing"
)

func TestNumericsThatAreEqual(t *testing.T) {
	for want, texts := range map[string][]string{
		"0":         {"-0", "0.000", "+.0", "0e10", "0e400000", "-0e-5"},
		"1":         {"1.0", "1.00", "+1", " 01 ", "10e-1", "0.1e1", "1."},
		"-1.5":      {"-1.50", "-15e-1", "-0.15e1", "-0.00015E+4"},
		"0.0001":    {"1e-4", ".00010"},
		"12345":     {"12345.0000000000000000000000"},
		"NaN":       {"nan", " NAN "},
		"Infinity":  {"inf", "+Inf", "infinity", "+INFINITY"},
		"-Infinity": {"-inf", "-Infinity"},
		"100000000000000000000.00000000000000000001": {"100000000000000000000.0000000000000000000100"},
	} {
		first, err := ParseValue(KeyNumeric, []byte(want))
		if err != nil || first.String() != want {
			t.Errorf("%q reads as %v, %v", want, first, err)
		}
		for _, s := range texts {
			if v, err := ParseValue(KeyNumeric, []byte(s)); err != nil || v != first {
				t.Errorf("%q reads as %v, %v; want %s", s, v, err, want)
			}
		}
	}
	for _, s := range []string{"", ".", "-", "e5", "1e", "1e+", "1..2", "1 2", "--1", "0x", "_1", "1_", "infin", "NaN0", "1e99999999999999999999"} {
		if v, err := ParseValue(KeyNumeric, []byte(s)); err == nil || err.(*ValueError).Unclear() {
			t.Errorf("%q reads as %v, %v; want an error", s, v, err)
		}
	}
	for _, n := range []int64{0, 7, -7, 10000, -1 << 63, 1<<63 - 1} {
		v, err := ParseValue(KeyNumeric, []byte(Int(n).String()))
		if err != nil || IntNumeric(n) != v {
			t.Errorf("IntNumeric(%d) = %v; as text %v, %v", n, IntNumeric(n), v, err)
		}
	}
}

// TestNumericBeyondTheFormat: numeric(10,2) takes what has too many digits for
// a plain numeric, so that the text alone does not say what it is.
func TestNumericBeyondTheFormat(t *testing.T) {
	for s, unclear := range map[string]bool{"0x1F": true, "1_000": true, "-0b1": true, "1e-16384": true, "0." + strings.Repeat("0", 16384): true, "1e131072": false} {
		_, err := ParseValue(KeyNumeric, []byte(s))
		if err == nil || err.(*ValueError).Unclear() != unclear {
			t.Errorf("%.20q: %v; unclear %v is wanted", s, err, unclear)
		}
	}
}

func TestUnclearTimes(t *testing.T) {
	for s, code := range map[string]string{
		"today": codeUnclear, "NOW": codeUnclear, "01/02/2024": codeUnclear, "20240102": codeUnclear, "Jan 2 2024": codeUnclear,
		"2024-01-02 24:00:00+00": codeUnclear, "2024-01-02 10:00:00 Europe/Zurich": codeUnclear, "2024-01-02 10:00:00": codeUnclear,
		"2024-01-02": codeUnclear, "epoch": codeUnclear, "J2451187": codeUnclear,
		"": codeInvalidDatetime, "soon": codeInvalidDatetime, "2024-02-30 10:00:00Z": codeDatetimeOverflow,
		"2024-13-01 10:00:00Z": codeDatetimeOverflow, "0000-01-01 10:00:00Z": codeDatetimeOverflow, "294277-01-01 00:00:00Z": codeDatetimeOverflow,
	} {
		v, err := ParseValue(KeyTimestampTZ, []byte(s))
		if ve, ok := err.(*ValueError); !ok || ve.Code != code {
			t.Errorf("%q reads as %v, %v; want SQLSTATE %s", s, v, err, code)
		}
	}
}
