// Package guest builds guest modules from their sources, for tests and benchmarks.
//
// Guests are compiled by the stock Go toolchain and by clang with wasi-libc, so that what is tested
// is what users run. A module is kept in the user's cache directory under the hash of its sources and
// its compiler, so that it is built once.
//
// The package is no part of the product.
package guest
