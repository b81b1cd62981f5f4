// Package browser opens pages in a real Chromium without a window, for tests and benchmarks.
//
// A test has one browser with a profile of its own, and as many pages in it as it opens. It waits for what it
// means: an expression that becomes true, a text that appears.
//
// The package is no part of the product.
package browser
