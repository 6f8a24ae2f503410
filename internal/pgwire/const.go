package pgwire

// Types of the frontend's messages. PasswordMessage, SASLInitialResponse,
// SASLResponse and GSSResponse share one: only the state tells them apart.
const (
	TypeBind         byte = 'B'
	TypeClose        byte = 'C'
	TypeCopyFail     byte = 'f'
	TypeDescribe     byte = 'D'
	TypeExecute      byte = 'E'
	TypeFlush        byte = 'H'
	TypeFunctionCall byte = 'F'
	TypeParse        byte = 'P'
	TypePassword     byte = 'p'
	TypeQuery        byte = 'Q'
	TypeSync         byte = 'S'
	TypeTerminate    byte = 'X'
)

// Types of both sides' messages.
const (
	TypeCopyData byte = 'd'
	TypeCopyDone byte = 'c'
)

// Types of the backend's messages.
const (
	TypeAuthentication           byte = 'R'
	TypeBackendKeyData           byte = 'K'
	TypeBindComplete             byte = '2'
	TypeCloseComplete            byte = '3'
	TypeCommandComplete          byte = 'C'
	TypeCopyBothResponse         byte = 'W'
	TypeCopyInResponse           byte = 'G'
	TypeCopyOutResponse          byte = 'H'
	TypeDataRow                  byte = 'D'
	TypeEmptyQueryResponse       byte = 'I'
	TypeErrorResponse            byte = 'E'
	TypeFunctionCallResponse     byte = 'V'
	TypeNegotiateProtocolVersion byte = 'v'
	TypeNoData                   byte = 'n'
	TypeNoticeResponse           byte = 'N'
	TypeNotificationResponse     byte = 'A'
	TypeParameterDescription     byte = 't'
	TypeParameterStatus          byte = 'S'
	TypeParseComplete            byte = '1'
	TypePortalSuspended          byte = 's'
	TypeReadyForQuery            byte = 'Z'
	TypeRowDescription           byte = 'T'
)

// Versions of the protocol: major in the upper 16 bits, minor in the lower.
const (
	Version30 uint32 = 3 << 16
	Version32 uint32 = 3<<16 | 2
)

// Request codes in the place of a version.
const (
	CodeCancelRequest uint32 = 1234<<16 | 5678
	CodeSSLRequest    uint32 = 1234<<16 | 5679
	CodeGSSENCRequest uint32 = 1234<<16 | 5680
)

// One-byte answers to SSLRequest and GSSENCRequest, and the first byte of a TLS
// handshake that came without asking (PostgreSQL 17's sslnegotiation=direct).
const (
	AnswerYes    byte = 'S' // to SSLRequest
	AnswerGSS    byte = 'G' // to GSSENCRequest
	AnswerNo     byte = 'N'
	TLSHandshake byte = 0x16
)

// Codes of Authentication messages.
const (
	AuthOK           uint32 = 0
	AuthKerberosV5   uint32 = 2
	AuthCleartext    uint32 = 3
	AuthMD5          uint32 = 5
	AuthGSS          uint32 = 7
	AuthGSSContinue  uint32 = 8
	AuthSSPI         uint32 = 9
	AuthSASL         uint32 = 10
	AuthSASLContinue uint32 = 11
	AuthSASLFinal    uint32 = 12
)

// Transaction status in ReadyForQuery.
const (
	TxIdle   byte = 'I' // in no transaction block
	TxActive byte = 'T' // in a transaction block
	TxFailed byte = 'E' // in a failed transaction block
)

// What Describe and Close are about.
const (
	KindStatement byte = 'S'
	KindPortal    byte = 'P'
)

// Format codes of values.
const (
	FormatText   int16 = 0
	FormatBinary int16 = 1
)

// Bounds that PostgreSQL sets, in bytes, counting the length field but not the type.
const (
	MaxStartup = 10000 + 4      // MAX_STARTUP_PACKET_LENGTH, which does not count the length field
	MaxSmall   = 10000          // PQ_SMALL_MESSAGE_LIMIT
	MaxLarge   = 0x3fffffff - 1 // PQ_LARGE_MESSAGE_LIMIT
)
