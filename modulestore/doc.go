// Package modulestore keeps the modules that a node holds, by their SHA-256.
//
// A module is there whole and verified, or it is not there: bytes arrive in a part file, are
// hashed, synced, and only then renamed into place. A transfer that breaks leaves its part, and the
// next one of the same module goes on from there. Bytes are verified again each time they are read,
// so a damaged file is noticed and dropped before it runs.
//
// The store does not fetch, compile or choose what to keep.
package modulestore
