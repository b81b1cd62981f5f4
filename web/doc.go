// Package web is the HTTP side of a node: a status page, the JSON API, health and metrics.
//
// It only reads, and only through this node's own control plane service, which forwards to the leader:
// so every node shows the leader's data, and this package knows nothing of leaders but their names. It
// serves from the first moment; as long as the node knows no leader it says that it is starting.
//
// The page is a set of views, each made of pieces that html/template draws. An open page has a stream (live.go)
// that carries those pieces that changed. One hub looks at the cluster for all pages of the node (hub.go): after
// each event it makes a moment, in which what the views need is asked once (moment.go).
//
// Whoever can reach the port may ask. So everything is bounded: connections, requests at once, streams, drawing,
// and how long each may take. What guests chose (names, arguments, output) is only ever text; the policy lets the
// browser run our script and load our style, and nothing else.
//
// It changes nothing, keeps nothing once the last page has closed, and checks nobody's identity.
package web
