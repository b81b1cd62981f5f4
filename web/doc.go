// Package web is the HTTP side of a node: a status page, the JSON API, health and metrics.
//
// It only reads, and only through this node's own control plane service, which forwards to the leader:
// so every node shows the leader's data, and this package knows nothing of leaders but their names. It
// serves from the first moment; as long as the node knows no leader it says that it is starting.
//
// Whoever can reach the port may ask. So everything is bounded: connections, requests at once, streams,
// and how long each may take. What guests chose (names, arguments, last words) is only ever text: the
// page allows no script, not even its own, and loads nothing but its style sheet.
//
// It changes nothing, keeps nothing between two requests, and checks nobody's identity.
package web
