// Package httpclient makes HTTP requests for guests: to hosts that their grants allow, and to no other, whatever a
// redirect or a name server says. It is the engine of the directory capability/http, and not called http since whoever uses it has
// net/http at hand too.
//
// A request is followed hop by hop. At each hop the grant is asked for the host, as it is at that moment; what leads to
// another scheme than http and https ends there. Authorization and cookies don't follow to another host.
//
// A grant of all hosts, or of a wildcard, means hosts of the public Internet. What counts is the address that is connected to
// and not the one that a name had when somebody looked: it is checked in the dialer, after resolution. Private,
// loopback, link-local, metadata and other special addresses are refused, unless a permission names exactly that host.
// Connections to named hosts are kept apart from the others, so that none is reused under the wrong rule.
//
// Everything is bounded: the bodies, the headers, the redirects, and the time of it all, the response's body included.
//
// The proxies of the environment are not used: they would connect to addresses that nobody checked. Bodies are passed as they
// are: nothing is decompressed, so that sizes are honest. There is no cookie jar and no cache.
package httpclient
