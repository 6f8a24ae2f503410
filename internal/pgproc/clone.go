package pgproc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// CloneOptions say how a data directory is copied.
type CloneOptions struct {
	Account Account
	// NextOID, if not 0, is the first object id that the server will give out.
	NextOID uint32
	// NoSync leaves it to the operating system when files reach the disk.
	NoSync bool
}

// Clone makes a data directory in dir, which must be missing or empty, as InitDB made
// the one in from, whose server has not been started yet; it takes a tenth of InitDB's
// time. The two servers are no replicas of each other: the copy has a system identifier
// of its own. If it fails, what it wrote is removed again.
func (in Install) Clone(ctx context.Context, from, dir string, o CloneOptions) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("copying a data directory to %s: %w", dir, err)
	}
	if err := empty(dir); err != nil {
		return fmt.Errorf("copying a data directory to %s: %w", dir, err)
	}
	if err := o.Account.own(ctx, dir); err != nil {
		return err
	}
	if err := in.clone(ctx, from, dir, o); err != nil {
		return errors.Join(fmt.Errorf("copying the data directory %s: %w", from, err), removeContents(dir))
	}
	return nil
}

func (in Install) clone(ctx context.Context, from, dir string, o CloneOptions) error {
	if err := o.Account.run(ctx, nil, "cp", "-R", from+"/.", dir); err != nil {
		return err
	}
	var id [8]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	if err := identify(dir, id); err != nil {
		return err
	}
	if err := in.startOIDs(ctx, dir, o.Account, o.NextOID); err != nil {
		return err
	}
	if o.NoSync {
		return nil
	}
	return o.Account.run(ctx, nil, in.Path("initdb"), "--sync-only", "-D", dir)
}

// startOIDs sets the first object id that the server of a data directory will give out.
func (in Install) startOIDs(ctx context.Context, dir string, account Account, oid uint32) error {
	if oid == 0 {
		return nil
	}
	return account.run(ctx, nil, in.Path("pg_resetwal"), "-o", fmt.Sprint(oid), dir)
}

// walIdentifier is where the system identifier stands in a segment of the log: behind the
// short header of its first page (xlp_sysid of XLogLongPageHeaderData, access/xlog_internal.h).
const walIdentifier = 24

// identify gives a data directory whose server does not run another system identifier:
// in pg_control, which begins with it and has a checksum (ControlFileData,
// catalog/pg_control.h), and in the segments of the log, which are checked against it.
func identify(dir string, id [8]byte) error {
	control, err := os.OpenFile(filepath.Join(dir, "global", "pg_control"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	old := make([]byte, 512) // no control file is longer, so that one write is whole
	if _, err := control.ReadAt(old, 0); err != nil {
		return err
	}
	at, err := checksumPlace(old)
	if err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(dir, "pg_wal", "0*"))
	if err != nil {
		return err
	}
	for _, name := range segments {
		if err := replaceAt(name, walIdentifier, old[:8], id[:]); err != nil {
			return err
		}
	}
	copy(old, id[:])
	binary.NativeEndian.PutUint32(old[at:], crc32.Checksum(old[:at], castagnoli))
	_, err = control.WriteAt(old, 0)
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumPlace is where the checksum of what stands before it is in a control file: it
// is another place in each version.
func checksumPlace(control []byte) (int, error) {
	for at := 64; at+4 <= len(control); at += 4 {
		if binary.NativeEndian.Uint32(control[at:]) == crc32.Checksum(control[:at], castagnoli) {
			return at, nil
		}
	}
	return 0, errors.New("pg_control has no checksum where one is looked for")
}

// replaceAt writes b in the place of what must stand there.
func replaceAt(name string, at int64, old, b []byte) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	is := make([]byte, len(old))
	if _, err = f.ReadAt(is, at); err == nil && string(is) != string(old) {
		err = fmt.Errorf("%s does not begin as a segment of this server's log", name)
	}
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	return errors.Join(err, f.Close())
}
