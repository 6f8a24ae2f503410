// Package client speaks both HTTP APIs of the Sharding System: the manager's
// (keyspaces, tables, shards, users) and the router's (statements, and where a
// key lives). It uses the standard library only.
//
// Every method makes one request, ends with its context, and returns *Error
// for an answer that is not a success; other errors mean that no answer came.
// Nothing is retried: the caller knows what may be asked twice.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what is read of one answer, in bytes.
const maxAnswer = 64 << 20

// Error is the one form in which both APIs refuse a request.
type Error struct {
	// Status is the HTTP status code.
	Status int `json:"-"`
	// Code is stable, like SHARD_NOT_FOUND; SQLState and ShardingCode are set
	// where the refusal is a statement's.
	Code         string `json:"code"`
	Message      string `json:"message"`
	Detail       string `json:"detail,omitempty"`
	Hint         string `json:"hint,omitempty"`
	SQLState     string `json:"sqlstate,omitempty"`
	ShardingCode string `json:"sharding_code,omitempty"`
	Position     int    `json:"position,omitempty"`
	RequestID    string `json:"request_id,omitempty"`
	// RetryAfter is how long to wait before asking again; 0 where the server
	// did not say.
	RetryAfter time.Duration `json:"-"`
}

// Error gives the message alone; Detail and Hint are for whoever shows it.
func (e *Error) Error() string { return e.Message }

// IsNotFound reports whether err is an answer of status 404.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsConflict reports whether err is an answer of status 409: the thing exists,
// was changed by another, or stands in the way.
func IsConflict(err error) bool { return hasStatus(err, http.StatusConflict) }

func hasStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// Option changes how a client asks.
type Option func(*caller)

// WithToken sends the bearer token with every request.
func WithToken(token string) Option { return func(c *caller) { c.token = token } }

// WithHTTPClient asks through h, for TLS settings and proxies of one's own.
func WithHTTPClient(h *http.Client) Option { return func(c *caller) { c.http = h } }

// WithUserAgent names the program that asks.
func WithUserAgent(name string) Option { return func(c *caller) { c.agent = name } }

// caller makes the requests of both clients. It is safe for concurrent use.
type caller struct {
	base  string
	token string
	agent string
	http  *http.Client
}

func newCaller(base string, options []Option) (*caller, error) {
	u, err := url.Parse(strings.TrimRight(base, "/"))
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", base, err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("address %q: want http://host:port or https://host:port", base)
	}
	c := &caller{base: u.String(), agent: "sharding-client", http: http.DefaultClient}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// request is what one method asks for.
type request struct {
	method  string
	path    string // each part already escaped
	query   url.Values
	body    any   // sent as JSON unless nil
	version int64 // sent as If-Match unless 0
}

// do sends r and reads the answer into out, unless that is nil.
func (c *caller) do(ctx context.Context, r request, out any) error {
	what := r.method + " " + r.path
	hr, err := c.prepare(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	resp, err := c.http.Do(hr)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%s: reading the answer: %w", what, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("%s: the answer is longer than %d bytes", what, maxAnswer)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return refusal(resp, body)
	}
	if out == nil || len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s: the answer is not what was expected: %w", what, err)
	}
	return nil
}

func (c *caller) prepare(ctx context.Context, r request) (*http.Request, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	hr, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	hr.Header.Set("Accept", "application/json")
	hr.Header.Set("User-Agent", c.agent)
	if body != nil {
		hr.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		hr.Header.Set("Authorization", "Bearer "+c.token)
	}
	if r.version != 0 {
		hr.Header.Set("If-Match", strconv.Quote(strconv.FormatInt(r.version, 10)))
	}
	return hr, nil
}

// refusal makes an *Error of an answer, also of one that a proxy in between
// wrote in a form of its own.
func refusal(resp *http.Response, body []byte) *Error {
	var form struct {
		Error *Error `json:"error"`
	}
	e := form.Error
	if json.Unmarshal(body, &form) == nil && form.Error != nil {
		e = form.Error
	}
	if e == nil || e.Message == "" {
		e = &Error{Code: "HTTP_" + strconv.Itoa(resp.StatusCode), Message: resp.Status}
	}
	e.Status = resp.StatusCode
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}
