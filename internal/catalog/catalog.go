package catalog

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// DefaultPrefix is the prefix of all keys where Config names none.
const DefaultPrefix = "/sharding"

// Config says how etcd is reached.
type Config struct {
	Endpoints []string    // host:port or URLs; at least one
	TLS       *tls.Config // nil: no TLS
	// Username and Password for etcd's own access control; both or none.
	Username, Password string
	DialTimeout        time.Duration // of one connection; 5 s where zero
	Timeout            time.Duration // of one request; 5 s where zero
	Prefix             string        // DefaultPrefix where empty
	// LeaseTTL is how long locks, leadership and registrations outlive a
	// crashed holder; 10 s where zero, 2 s at least.
	LeaseTTL time.Duration
	// PollInterval is how often a View asks for a sign of life; three without
	// an answer make it stale. 2 s where zero.
	PollInterval time.Duration
	Logger       *slog.Logger // nil discards
}

const (
	defaultTimeout  = 5 * time.Second
	defaultLeaseTTL = 10 * time.Second
	minLeaseTTL     = 2 * time.Second // below it etcd raises it itself
	defaultPoll     = 2 * time.Second
	// maxReconnect bounds the wait between two attempts to connect: gRPC's own
	// bound of two minutes would leave a router without news long after etcd is back.
	maxReconnect = 2 * time.Second
)

// errNotConnected: etcd demands a login, which has not succeeded yet.
var errNotConnected = errors.New("not logged in to etcd yet")

// Catalog is a connection to the metadata of one cluster. It can be used by
// any number of goroutines at once.
type Catalog struct {
	keys         keys
	timeout      time.Duration
	leaseTTL     time.Duration
	pollInterval time.Duration
	logger       *slog.Logger

	client      atomic.Pointer[clientv3.Client] // nil until the login to etcd succeeds
	loginErr    atomic.Pointer[error]           // of the last failed login
	incarnation atomic.Pointer[string]

	stop context.CancelFunc
	ctx  context.Context // ends with Close
	wg   sync.WaitGroup
}

// Open makes a Catalog. It does not wait for etcd, which may be down: what
// needs it meanwhile fails with ErrUnavailable, and a View waits. Mistakes in
// the configuration are reported at once. ctx bounds nothing but this call.
func Open(ctx context.Context, cfg Config) (*Catalog, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, &Error{Op: "open catalog", Kind: ErrInvalid, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	c := &Catalog{
		keys: keys{cfg.Prefix}, timeout: cfg.Timeout, leaseTTL: cfg.LeaseTTL,
		pollInterval: cfg.PollInterval, logger: cfg.Logger,
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	// With a user name the client logs in while it is made, and fails if etcd
	// is away; without one it connects by itself, later.
	if cfg.Username != "" {
		c.wg.Add(1)
		go c.login(cfg.clientConfig(c.ctx))
		return c, nil
	}
	client, err := clientv3.New(cfg.clientConfig(c.ctx))
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	c.client.Store(client)
	return c, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = defaultTimeout
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = defaultLeaseTTL
	}
	if cfg.PollInterval == 0 {
		cfg.PollInterval = defaultPoll
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func (cfg Config) validate() error {
	var errs []error
	if len(cfg.Endpoints) == 0 {
		errs = append(errs, errors.New("no endpoint of etcd is named"))
	}
	if err := checkPrefix(cfg.Prefix); err != nil {
		errs = append(errs, err)
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		errs = append(errs, errors.New("a user name and a password belong together"))
	}
	if cfg.DialTimeout < 0 || cfg.Timeout < 0 || cfg.PollInterval < 0 {
		errs = append(errs, errors.New("a timeout is negative"))
	}
	if cfg.LeaseTTL < minLeaseTTL {
		errs = append(errs, fmt.Errorf("lease TTL %s is below %s", cfg.LeaseTTL, minLeaseTTL))
	}
	return errors.Join(errs...)
}

func (cfg Config) clientConfig(ctx context.Context) clientv3.Config {
	return clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password,
		DialTimeout: cfg.DialTimeout, Context: ctx, Logger: zap.NewNop(),
		// A peer that vanished without a word is noticed after 10 + 3 s; etcd
		// refuses pings more often than every 5 s.
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnect},
			MinConnectTimeout: cfg.DialTimeout,
		})},
	}
}

func (c *Catalog) login(cfg clientv3.Config) {
	defer c.wg.Done()
	wait := newBackoff()
	for {
		client, err := clientv3.New(cfg)
		if err == nil {
			c.client.Store(client)
			return
		}
		err = fmt.Errorf("%w: %w", errNotConnected, err)
		c.loginErr.Store(&err)
		if !wait.sleep(c.ctx) {
			return
		}
	}
}

func (c *Catalog) connected() (*clientv3.Client, error) {
	if client := c.client.Load(); client != nil {
		return client, nil
	}
	if err := c.loginErr.Load(); err != nil {
		return nil, *err
	}
	return nil, errNotConnected
}

// Close ends the connection and returns when all that the Catalog started has
// ended. Views, locks, leaderships and registrations are to be closed before;
// those that are not lose their lease.
func (c *Catalog) Close() error {
	c.stop()
	c.wg.Wait()
	client := c.client.Swap(nil)
	if client == nil {
		return nil
	}
	if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close catalog: %w", err)
	}
	return nil
}

type incarnationJSON struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
}

// Incarnation is the cluster's id, 16 hexadecimal digits, made at random by
// whoever asks first. It names the cluster where names outlive it, such as
// prepared transactions left on a shard.
func (c *Catalog) Incarnation(ctx context.Context) (string, error) {
	if id := c.incarnation.Load(); id != nil {
		return *id, nil
	}
	const op = "read the cluster's incarnation"
	client, err := c.connected()
	if err != nil {
		return "", failed(ctx, op, err)
	}
	var raw [8]byte
	rand.Read(raw[:])
	mine, err := json.Marshal(incarnationJSON{hex.EncodeToString(raw[:]), time.Now().UTC()})
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	key := c.keys.incarnation()
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if _, err := client.Txn(bounded).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, string(mine))).Commit(); err != nil {
		return "", failed(ctx, op, err)
	}
	// Whether the answer was ours or another's: the stored one counts.
	resp, err := client.Get(bounded, key)
	if err != nil {
		return "", failed(ctx, op, err)
	}
	var stored incarnationJSON
	if len(resp.Kvs) != 1 {
		return "", &Error{Op: op, Kind: ErrConflict, Detail: "it was removed"}
	}
	if err := json.Unmarshal(resp.Kvs[0].Value, &stored); err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	c.incarnation.Store(&stored.ID)
	return stored.ID, nil
}
