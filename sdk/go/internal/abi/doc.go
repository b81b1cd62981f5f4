// Package abi is what the packages of the SDK share: the imports of docs/guest-abi.md, and how their results are read.
package abi
