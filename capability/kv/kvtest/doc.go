// Package kvtest is what every engine of keys and values must do, as tests that run against each of them.
package kvtest
