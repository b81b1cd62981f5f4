// Package otlp takes spans to a collector, by OTLP, as the standard OTEL_ variables of the environment say.
//
// Without them there is no provider, no connection and no goroutine. What this package does not decide is read by
// OpenTelemetry's SDK itself: how the collector is reached, how many spans wait for it, which are sampled.
//
// The SDK has one global that can't be avoided: what it finds wrong with the value of a variable it tells the process's own error
// handler, which writes to stderr.
package otlp
