// Package auth proves who somebody is: SCRAM-SHA-256 on both sides of the
// PostgreSQL protocol (RFC 5802 and 7677, PostgreSQL manual, section 55.3), and the
// bearer tokens of the HTTP APIs.
//
// Clients of the router are PostgreSQL's own roles. The catalog holds a role's
// Verifier, the same that every shard holds in pg_authid, from which the password
// cannot be computed. A client's proof reveals the role's ClientKey to whoever
// holds the verifier; with it the router logs in on the shards as that role. So no
// password is ever stored, and none is needed.
//
// It promises:
//   - Secrets are compared in constant time.
//   - An exchange about a role that does not exist (MockVerifier) cannot be told
//     from one with a wrong password.
//   - Whoever the router logs in to has proved that it knows the verifier, before
//     anything else is believed (Client.Verify).
//   - No error holds a secret, and all that a client may see are *pgerr.Error.
package auth
