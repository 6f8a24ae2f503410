package auth

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// frontend reads a client's messages.
type frontend struct {
	net.Conn
	b []byte
}

func (f *frontend) take(frame func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := frame(f.b)
		if err != nil {
			return nil, err
		}
		if n > 0 && n <= len(f.b) {
			m := f.b[:n]
			f.b = f.b[n:]
			return m, nil
		}
		chunk := make([]byte, 4096)
		k, err := f.Read(chunk)
		if err != nil {
			return nil, err
		}
		f.b = append(f.b, chunk[:k]...)
	}
}

func (f *frontend) message() ([]byte, error) {
	m, err := f.take(func(b []byte) (int, error) { _, n, err := pgwire.FrontendFrame(b); return n, err })
	if err != nil {
		return nil, err
	}
	if m[0] != pgwire.TypePassword {
		return nil, errors.New("the client sent " + string(m[:1]))
	}
	return m[pgwire.HeaderSize:], nil
}

// serveOnce takes one client, with TLS if there is a certificate, authenticates it
// as the verifier's role, and says why not.
func serveOnce(l net.Listener, v Verifier, cert *tls.Certificate) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	f := &frontend{Conn: conn}
	var opts []Option
	mechanisms := []string{ScramSHA256}
	if cert != nil {
		if _, err := f.take(pgwire.StartupFrame); err != nil { // SSLRequest
			return err
		}
		if _, err := conn.Write([]byte{pgwire.AnswerYes}); err != nil {
			return err
		}
		f.Conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*cert}})
		binding, err := TLSServerEndPoint(cert.Leaf)
		if err != nil {
			return err
		}
		opts, mechanisms = append(opts, WithChannelBinding(binding)), []string{ScramSHA256Plus, ScramSHA256}
	}
	if _, err := f.take(pgwire.StartupFrame); err != nil {
		return err
	}
	s, err := NewServer(v, opts...)
	if err != nil {
		return err
	}
	if _, err := f.Write(pgwire.AppendAuthenticationSASL(nil, mechanisms...)); err != nil {
		return err
	}
	if err := f.exchange(s, mechanisms[0]); err != nil {
		if _, werr := f.Write(pgwire.AppendError(nil, pgerr.From(err))); werr != nil {
			return werr
		}
		return err
	}
	out := pgwire.AppendBackendKeyData(pgwire.AppendAuthenticationOK(nil), 1, []byte("1234"))
	_, err = f.Write(pgwire.AppendReadyForQuery(out, pgwire.TxIdle))
	return err
}

func (f *frontend) exchange(s *Server, mechanism string) error {
	m, err := f.message()
	if err != nil {
		return err
	}
	selected, data, err := pgwire.ParseSASLInitial(m)
	if err != nil {
		return err
	}
	if string(selected) != mechanism {
		return errors.New("the client selected " + string(selected))
	}
	first, err := s.First(data)
	if err != nil {
		return err
	}
	if _, err := f.Write(pgwire.AppendAuthenticationSASLContinue(nil, first)); err != nil {
		return err
	}
	if m, err = f.message(); err != nil {
		return err
	}
	final, _, err := s.Final(m)
	if err != nil {
		return err
	}
	_, err = f.Write(pgwire.AppendAuthenticationSASLFinal(nil, final))
	return err
}
