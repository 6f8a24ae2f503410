package pgwire

import "encoding/binary"

// AppendQuery appends a Query.
func AppendQuery[T text](dst []byte, sql T) []byte { return appendString(dst, TypeQuery, sql) }

// AppendParse appends a Parse. More than 65535 types are an error, 54000.
func AppendParse[N, S text](dst []byte, name N, sql S, oids []uint32) ([]byte, error) {
	if len(oids) > 65535 {
		return dst, errTooMany("parameter types", len(oids))
	}
	dst, at := begin(dst, TypeParse)
	dst = appendCString(dst, name)
	dst = appendCString(dst, sql)
	return finish(appendOIDs(dst, oids), at), nil
}

// AppendParseRest appends a client's Parse under another name: rest is the view's.
func AppendParseRest[N, S text](dst []byte, name N, sql S, rest []byte) []byte {
	dst, at := begin(dst, TypeParse)
	dst = appendCString(dst, name)
	dst = appendCString(dst, sql)
	return finish(append(dst, rest...), at)
}

// Bind is what AppendBind writes.
type Bind struct {
	Portal, Statement string
	Formats           []int16  // of the parameters: none, one for all, or one each
	Params            [][]byte // nil is NULL
	Results           []int16  // formats of the result's columns
}

// AppendBind appends a Bind. More than 65535 of anything are an error, 54000.
func AppendBind(dst []byte, b *Bind) ([]byte, error) {
	if n := max(len(b.Params), len(b.Formats), len(b.Results)); n > 65535 {
		return dst, errTooMany("parameters", n)
	}
	dst, at := begin(dst, TypeBind)
	dst = appendCString(dst, b.Portal)
	dst = appendCString(dst, b.Statement)
	dst = appendCodes(dst, b.Formats)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(b.Params)))
	for _, p := range b.Params {
		dst = AppendValue(dst, p)
	}
	return finish(appendCodes(dst, b.Results), at), nil
}

// AppendBindRest appends a client's Bind under other names: rest is the view's.
func AppendBindRest[P, S text](dst []byte, portal P, statement S, rest []byte) []byte {
	dst, at := begin(dst, TypeBind)
	dst = appendCString(dst, portal)
	dst = appendCString(dst, statement)
	return finish(append(dst, rest...), at)
}

// AppendDescribe appends a Describe of KindStatement or KindPortal.
func AppendDescribe[T text](dst []byte, kind byte, name T) []byte {
	return appendTarget(dst, TypeDescribe, kind, name)
}

// AppendClose appends a Close of KindStatement or KindPortal.
func AppendClose[T text](dst []byte, kind byte, name T) []byte {
	return appendTarget(dst, TypeClose, kind, name)
}

func appendTarget[T text](dst []byte, typ, kind byte, name T) []byte {
	dst, at := begin(dst, typ)
	return finish(appendCString(append(dst, kind), name), at)
}

// AppendExecute appends an Execute; maxRows 0 is no limit.
func AppendExecute[T text](dst []byte, portal T, maxRows int32) []byte {
	dst, at := begin(dst, TypeExecute)
	dst = appendCString(dst, portal)
	return finish(binary.BigEndian.AppendUint32(dst, uint32(maxRows)), at)
}

// AppendSync appends a Sync.
func AppendSync(dst []byte) []byte { return appendEmpty(dst, TypeSync) }

// AppendFlush appends a Flush.
func AppendFlush(dst []byte) []byte { return appendEmpty(dst, TypeFlush) }

// AppendTerminate appends a Terminate.
func AppendTerminate(dst []byte) []byte { return appendEmpty(dst, TypeTerminate) }

// AppendPassword appends a PasswordMessage.
func AppendPassword[T text](dst []byte, password T) []byte {
	return appendString(dst, TypePassword, password)
}

// AppendSASLInitial appends a SASLInitialResponse; nil data is none at all.
func AppendSASLInitial[T text](dst []byte, mechanism T, data []byte) []byte {
	dst, at := begin(dst, TypePassword)
	return finish(AppendValue(appendCString(dst, mechanism), data), at)
}

// AppendSASLResponse appends a SASLResponse.
func AppendSASLResponse(dst, data []byte) []byte { return appendRaw(dst, TypePassword, data) }

// AppendCopyData appends a CopyData, of either side.
func AppendCopyData(dst, data []byte) []byte { return appendRaw(dst, TypeCopyData, data) }

// AppendCopyDone appends a CopyDone, of either side.
func AppendCopyDone(dst []byte) []byte { return appendEmpty(dst, TypeCopyDone) }

// AppendCopyFail appends a CopyFail.
func AppendCopyFail[T text](dst []byte, reason T) []byte {
	return appendString(dst, TypeCopyFail, reason)
}

// AppendFunctionCall appends a FunctionCall; a nil argument is NULL. More than 65535
// arguments are an error, 54000.
func AppendFunctionCall(dst []byte, oid uint32, formats []int16, args [][]byte, result int16) ([]byte, error) {
	if n := max(len(args), len(formats)); n > 65535 {
		return dst, errTooMany("arguments", n)
	}
	dst, at := begin(dst, TypeFunctionCall)
	dst = binary.BigEndian.AppendUint32(dst, oid)
	dst = appendCodes(dst, formats)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(args)))
	for _, a := range args {
		dst = AppendValue(dst, a)
	}
	return finish(binary.BigEndian.AppendUint16(dst, uint16(result)), at), nil
}
