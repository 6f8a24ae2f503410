// Package telemetry is a process's log and its figures for Prometheus.
//
// It promises that counting costs a statement a few atomic additions on memory
// that only its own event loop writes: no lock and no cache line is shared
// between loops, nothing is allocated, and the adding up happens when
// Prometheus asks. The names and labels of the metrics are an outside contract.
package telemetry
