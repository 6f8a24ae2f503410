package pgwire

import "github.com/sharding-system/sharding/internal/pgerr"

// ParseQuery is the SQL of a Query.
func ParseQuery(body []byte) (sql []byte, err error) {
	r := reader{b: body}
	sql = r.cstring()
	return sql, r.end("Query")
}

// ParseView is a Parse message.
type ParseView struct {
	Name, SQL []byte
	OIDs      OIDs   // types that the client prescribes; 0 leaves it open
	Rest      []byte // all that follows SQL's NUL, to be relayed under another name
}

// ParseParse reads a Parse message.
func ParseParse(body []byte) (ParseView, error) {
	r := reader{b: body}
	v := ParseView{Name: r.cstring(), SQL: r.cstring(), Rest: r.b}
	v.OIDs = OIDs{r.bytes(4 * r.uint16())}
	return v, r.end("Parse")
}

// BindView is a Bind message.
type BindView struct {
	Portal, Statement []byte
	Formats           Codes // of the parameters: none, one for all, or one each
	NumParams         int
	Results           Codes  // formats of the result's columns
	Rest              []byte // all that follows Statement's NUL, to be relayed under other names
	values            []byte
}

// Params iterates over the parameters' values.
func (v *BindView) Params() Values { return Values{v.values} }

// Param is the value of parameter i (from 0, below NumParams), nil for NULL. It
// walks over those before it.
func (v *BindView) Param(i int) []byte {
	it := v.Params()
	for range i {
		it.Next()
	}
	value, _ := it.Next()
	return value
}

// ParseBind reads a Bind message. Whether the formats are known ones (22023 if not),
// and fit the statement's columns, is for who knows the statement.
func ParseBind(body []byte) (BindView, error) {
	r := reader{b: body}
	v := BindView{Portal: r.cstring(), Statement: r.cstring(), Rest: r.b}
	v.Formats = Codes{r.bytes(2 * r.uint16())}
	v.NumParams = r.uint16()
	v.values = r.values(v.NumParams)
	v.Results = Codes{r.bytes(2 * r.uint16())}
	if err := r.end("Bind"); err != nil {
		return BindView{}, err
	}
	if n := v.Formats.Len(); n > 1 && n != v.NumParams {
		return BindView{}, pgerr.New(pgerr.ProtocolViolation, "bind message has %d parameter formats but %d parameters", n, v.NumParams)
	}
	return v, nil
}

// Target is what a Describe or Close message is about.
type Target struct {
	Kind byte // KindStatement or KindPortal
	Name []byte
}

// ParseDescribe reads a Describe message.
func ParseDescribe(body []byte) (Target, error) { return parseTarget(body, "Describe", "DESCRIBE") }

// ParseClose reads a Close message.
func ParseClose(body []byte) (Target, error) { return parseTarget(body, "Close", "CLOSE") }

func parseTarget(body []byte, message, upper string) (Target, error) {
	r := reader{b: body}
	t := Target{Kind: r.byte(), Name: r.cstring()}
	if err := r.end(message); err != nil {
		return Target{}, err
	}
	if t.Kind != KindStatement && t.Kind != KindPortal {
		return Target{}, pgerr.New(pgerr.ProtocolViolation, "invalid %s message subtype %d", upper, t.Kind)
	}
	return t, nil
}

// ParseExecute reads an Execute message. maxRows of 0 or below is no limit.
func ParseExecute(body []byte) (portal []byte, maxRows int32, err error) {
	r := reader{b: body}
	portal, maxRows = r.cstring(), int32(r.uint32())
	return portal, maxRows, r.end("Execute")
}

// ParsePassword is the password of a PasswordMessage.
func ParsePassword(body []byte) (password []byte, err error) {
	r := reader{b: body}
	password = r.cstring()
	return password, r.end("PasswordMessage")
}

// ParseSASLInitial reads a SASLInitialResponse. data is nil if the client sent none;
// a SASLResponse is all data.
func ParseSASLInitial(body []byte) (mechanism, data []byte, err error) {
	r := reader{b: body}
	mechanism = r.cstring()
	if size := int32(r.uint32()); size != -1 {
		data = r.bytes(int(size))
	}
	return mechanism, data, r.end("SASLInitialResponse")
}

// ParseCopyFail is the client's reason.
func ParseCopyFail(body []byte) (reason []byte, err error) {
	r := reader{b: body}
	reason = r.cstring()
	return reason, r.end("CopyFail")
}

// CheckEmpty refuses a body in a message that has none: Sync, Flush, Terminate,
// CopyDone, and the backend's completions.
func CheckEmpty(body []byte) error {
	r := reader{b: body}
	return r.end("message without a body")
}

// FunctionCallView is a FunctionCall message.
type FunctionCallView struct {
	OID     uint32
	Formats Codes
	NumArgs int
	Result  int16 // format
	values  []byte
}

// Args iterates over the arguments.
func (v *FunctionCallView) Args() Values { return Values{v.values} }

// ParseFunctionCall reads a FunctionCall message.
func ParseFunctionCall(body []byte) (FunctionCallView, error) {
	r := reader{b: body}
	v := FunctionCallView{OID: r.uint32()}
	v.Formats = Codes{r.bytes(2 * r.uint16())}
	v.NumArgs = r.uint16()
	v.values = r.values(v.NumArgs)
	v.Result = int16(r.uint16())
	if err := r.end("FunctionCall"); err != nil {
		return FunctionCallView{}, err
	}
	if n := v.Formats.Len(); n > 1 && n != v.NumArgs {
		return FunctionCallView{}, pgerr.New(pgerr.ProtocolViolation, "function call message contains %d argument formats but %d arguments", n, v.NumArgs)
	}
	for i := range v.Formats.Len() {
		if f := v.Formats.At(i); f != FormatText && f != FormatBinary {
			return FunctionCallView{}, unsupportedFormat(f)
		}
	}
	if v.Result != FormatText && v.Result != FormatBinary {
		return FunctionCallView{}, unsupportedFormat(v.Result)
	}
	return v, nil
}

func unsupportedFormat(code int16) error {
	return pgerr.New(pgerr.InvalidParameterValue, "unsupported format code: %d", code)
}
