// Package web serves the status page, the JSON API, health and metrics over HTTP.
//
// Everything it shows comes through one client of ControlPlaneService that is connected to this very
// node, which forwards to the leader: so any node shows the leader's data, and this package needs to
// know nothing of who leads. Nothing here changes anything: there is GET and HEAD, and no more.
//
// What guests and users wrote is only ever text. There is no authentication yet: whoever reaches the
// port may look.
package web
