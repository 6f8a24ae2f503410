package pgwire

import "github.com/sharding-system/sharding/internal/pgerr"

// Authentication is a message by which a server asks for, goes on with or ends an
// authentication.
type Authentication struct {
	Code uint32 // AuthOK, AuthSASL, ...
	Data []byte // what follows the code: SASL or GSS data, the salt of AuthMD5
}

// ParseAuthentication reads any Authentication message. Codes that we do not know
// come back as they are.
func ParseAuthentication(body []byte) (Authentication, error) {
	r := reader{b: body}
	a := Authentication{Code: r.uint32(), Data: r.b}
	want := -1
	switch a.Code {
	case AuthOK, AuthKerberosV5, AuthCleartext, AuthGSS, AuthSSPI:
		want = 0
	case AuthMD5:
		want = 4
	}
	if r.bad || want >= 0 && len(a.Data) != want {
		return Authentication{}, pgerr.New(pgerr.ProtocolViolation, "invalid authentication request from the server")
	}
	return a, nil
}

// Mechanisms are the SASL mechanisms that an AuthSASL offers, most wanted first.
func (a Authentication) Mechanisms() ([]string, error) {
	r := reader{b: a.Data}
	var names []string
	for {
		name := r.cstring()
		if len(name) == 0 {
			return names, r.end("AuthenticationSASL")
		}
		names = append(names, string(name))
	}
}

// ParseParameterStatus reads a ParameterStatus.
func ParseParameterStatus(body []byte) (name, value []byte, err error) {
	r := reader{b: body}
	name, value = r.cstring(), r.cstring()
	return name, value, r.end("ParameterStatus")
}

// ParseBackendKeyData reads a BackendKeyData. The secret has 4 bytes in protocol
// 3.0, up to 256 in 3.2.
func ParseBackendKeyData(body []byte) (pid uint32, secret []byte, err error) {
	r := reader{b: body}
	pid, secret = r.uint32(), r.b
	if r.bad || len(secret) < 4 || len(secret) > 256 {
		return 0, nil, pgerr.New(pgerr.ProtocolViolation, "invalid key data from the server")
	}
	return pid, secret, nil
}

// ParseReadyForQuery is the transaction status: TxIdle, TxActive or TxFailed.
func ParseReadyForQuery(body []byte) (status byte, err error) {
	if len(body) != 1 || body[0] != TxIdle && body[0] != TxActive && body[0] != TxFailed {
		return 0, pgerr.New(pgerr.ProtocolViolation, "invalid transaction status from the server")
	}
	return body[0], nil
}

// ParseCommandComplete is the command tag; ParseTag takes it apart.
func ParseCommandComplete(body []byte) (tag []byte, err error) {
	r := reader{b: body}
	tag = r.cstring()
	return tag, r.end("CommandComplete")
}

// ParseParameterDescription is the types of a statement's parameters.
func ParseParameterDescription(body []byte) (OIDs, error) {
	r := reader{b: body}
	o := OIDs{r.bytes(4 * r.uint16())}
	return o, r.end("ParameterDescription")
}

// Notification is a NotificationResponse.
type Notification struct {
	PID              uint32
	Channel, Payload []byte
}

// ParseNotification reads a NotificationResponse.
func ParseNotification(body []byte) (Notification, error) {
	r := reader{b: body}
	n := Notification{PID: r.uint32(), Channel: r.cstring(), Payload: r.cstring()}
	return n, r.end("NotificationResponse")
}

// CopyResponse is a CopyInResponse, CopyOutResponse or CopyBothResponse.
type CopyResponse struct {
	Format  int16 // of the whole: FormatText (also CSV) or FormatBinary
	Columns Codes // of each column
}

// ParseCopyResponse reads any of the three.
func ParseCopyResponse(body []byte) (CopyResponse, error) {
	r := reader{b: body}
	c := CopyResponse{Format: int16(r.byte())}
	c.Columns = Codes{r.bytes(2 * r.uint16())}
	if err := r.end("CopyResponse"); err != nil {
		return CopyResponse{}, err
	}
	if c.Format != FormatText && c.Format != FormatBinary {
		return CopyResponse{}, pgerr.New(pgerr.ProtocolViolation, "the server copies in the unknown format %d", c.Format)
	}
	return c, nil
}

// ParseNegotiateProtocolVersion is the newest version that the server speaks, and
// the protocol options ("_pq_.") that it does not know.
func ParseNegotiateProtocolVersion(body []byte) (newest uint32, options []string, err error) {
	r := reader{b: body}
	newest = r.uint32()
	count := r.uint32()
	if count > uint32(len(r.b)) { // each takes a byte at least
		r.fail()
		count = 0
	}
	for range count {
		options = append(options, string(r.cstring()))
	}
	return newest, options, r.end("NegotiateProtocolVersion")
}

// ParseFunctionCallResponse is a function's result, nil for NULL.
func ParseFunctionCallResponse(body []byte) (value []byte, err error) {
	r := reader{b: body}
	if size := int32(r.uint32()); size != -1 {
		value = r.bytes(int(size))
	}
	return value, r.end("FunctionCallResponse")
}
