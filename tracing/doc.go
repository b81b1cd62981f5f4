// Package tracing follows a request through all rooms, and over the wire from node to node.
//
// A request has a correlation id, which its caller gives it or which is made where it comes in, and, where somebody
// traces, a span of a W3C trace. Both travel in its context: so whoever has the context can log with it
// ([LogHandler] adds the ids to the line), make an event that names the request, or say with [Start] that a
// part of the work begins. What goes on after the request takes them along with [Follow].
//
// Nothing is global, and no part needs to be told whether there is tracing: a span knows the provider that it was made by.
// Providers are made in package otlp below, by those who begin traces. Where nobody does, a part of the work costs one look at
// its context.
package tracing
