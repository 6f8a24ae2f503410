// Package config reads the JSON configuration of the router and the manager.
//
// It promises that a mistake is reported together with all others, each with
// the path of its key: unknown keys (with the one that was probably meant),
// keys given twice, wrong types, impossible values, missing environment
// variables, and settings that this release does not honour yet. What such a
// setting cannot do is never passed over in silence: it is a problem, or a
// warning where the deployment guide's own files have it. No error, and no
// form in which a configuration is printed, shows a secret.
package config
