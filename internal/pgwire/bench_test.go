package pgwire

import "testing"

// What the relay pays per message for framing, and per Bind for finding a key.
func BenchmarkFrame(b *testing.B) {
	stream := AppendReadyForQuery(AppendCommandRows(AppendDataRow(nil, [][]byte{[]byte("abc")}), "SELECT", 1), TxIdle)
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		for rest := stream; len(rest) > 0; {
			_, n, _ := Frame(rest)
			rest = rest[n:]
		}
	}
}

func BenchmarkBind(b *testing.B) {
	body := must(AppendBind(nil, &Bind{Statement: "s1", Formats: []int16{1}, Params: [][]byte{{0, 0, 0, 42}, []byte("abc")}}))[HeaderSize:]
	b.ReportAllocs()
	for b.Loop() {
		v, err := ParseBind(body)
		if err != nil || len(v.Param(0)) != 4 {
			b.Fatal(err)
		}
	}
}
