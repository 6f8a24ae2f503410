package pgwire

import "encoding/binary"

// AppendAuthentication appends an Authentication message with what follows its code.
func AppendAuthentication(dst []byte, code uint32, data []byte) []byte {
	dst, at := begin(dst, TypeAuthentication)
	dst = binary.BigEndian.AppendUint32(dst, code)
	return finish(append(dst, data...), at)
}

// AppendAuthenticationOK appends an AuthenticationOk.
func AppendAuthenticationOK(dst []byte) []byte { return AppendAuthentication(dst, AuthOK, nil) }

// AppendAuthenticationSASL appends an AuthenticationSASL that offers the mechanisms.
func AppendAuthenticationSASL(dst []byte, mechanisms ...string) []byte {
	dst, at := begin(dst, TypeAuthentication)
	dst = binary.BigEndian.AppendUint32(dst, AuthSASL)
	for _, m := range mechanisms {
		dst = appendCString(dst, m)
	}
	return finish(append(dst, 0), at)
}

// AppendAuthenticationSASLContinue appends an AuthenticationSASLContinue.
func AppendAuthenticationSASLContinue(dst, data []byte) []byte {
	return AppendAuthentication(dst, AuthSASLContinue, data)
}

// AppendAuthenticationSASLFinal appends an AuthenticationSASLFinal.
func AppendAuthenticationSASLFinal(dst, data []byte) []byte {
	return AppendAuthentication(dst, AuthSASLFinal, data)
}

// AppendParameterStatus appends a ParameterStatus.
func AppendParameterStatus[N, V text](dst []byte, name N, value V) []byte {
	dst, at := begin(dst, TypeParameterStatus)
	return finish(appendCString(appendCString(dst, name), value), at)
}

// AppendBackendKeyData appends a BackendKeyData; protocol 3.0 wants a secret of 4
// bytes.
func AppendBackendKeyData(dst []byte, pid uint32, secret []byte) []byte {
	dst, at := begin(dst, TypeBackendKeyData)
	return finish(append(binary.BigEndian.AppendUint32(dst, pid), secret...), at)
}

// AppendReadyForQuery appends a ReadyForQuery with TxIdle, TxActive or TxFailed.
func AppendReadyForQuery(dst []byte, status byte) []byte {
	return append(dst, TypeReadyForQuery, 0, 0, 0, 5, status)
}

// AppendNegotiateProtocolVersion appends a NegotiateProtocolVersion: the newest
// version of ours (Version32), and the options that we do not know.
func AppendNegotiateProtocolVersion(dst []byte, newest uint32, options []string) []byte {
	dst, at := begin(dst, TypeNegotiateProtocolVersion)
	dst = binary.BigEndian.AppendUint32(dst, newest)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(options)))
	for _, o := range options {
		dst = appendCString(dst, o)
	}
	return finish(dst, at)
}

// AppendCommandComplete appends a CommandComplete with a whole tag. AppendCommandRows
// makes one from a verb and a count.
func AppendCommandComplete[T text](dst []byte, tag T) []byte {
	return appendString(dst, TypeCommandComplete, tag)
}

// AppendParameterDescription appends a ParameterDescription of at most 65535 types.
func AppendParameterDescription(dst []byte, oids []uint32) []byte {
	dst, at := begin(dst, TypeParameterDescription)
	return finish(appendOIDs(dst, oids), at)
}

// AppendNotification appends a NotificationResponse.
func AppendNotification[C, P text](dst []byte, pid uint32, channel C, payload P) []byte {
	dst, at := begin(dst, TypeNotificationResponse)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return finish(appendCString(appendCString(dst, channel), payload), at)
}

// AppendCopyResponse appends a TypeCopyInResponse, TypeCopyOutResponse or
// TypeCopyBothResponse.
func AppendCopyResponse(dst []byte, typ byte, format int16, columns []int16) []byte {
	dst, at := begin(dst, typ)
	return finish(appendCodes(append(dst, byte(format)), columns), at)
}

// AppendFunctionCallResponse appends a FunctionCallResponse; nil is NULL.
func AppendFunctionCallResponse(dst, value []byte) []byte {
	dst, at := begin(dst, TypeFunctionCallResponse)
	return finish(AppendValue(dst, value), at)
}

// AppendParseComplete appends a ParseComplete.
func AppendParseComplete(dst []byte) []byte { return appendEmpty(dst, TypeParseComplete) }

// AppendBindComplete appends a BindComplete.
func AppendBindComplete(dst []byte) []byte { return appendEmpty(dst, TypeBindComplete) }

// AppendCloseComplete appends a CloseComplete.
func AppendCloseComplete(dst []byte) []byte { return appendEmpty(dst, TypeCloseComplete) }

// AppendNoData appends a NoData.
func AppendNoData(dst []byte) []byte { return appendEmpty(dst, TypeNoData) }

// AppendPortalSuspended appends a PortalSuspended.
func AppendPortalSuspended(dst []byte) []byte { return appendEmpty(dst, TypePortalSuspended) }

// AppendEmptyQueryResponse appends an EmptyQueryResponse.
func AppendEmptyQueryResponse(dst []byte) []byte { return appendEmpty(dst, TypeEmptyQueryResponse) }
