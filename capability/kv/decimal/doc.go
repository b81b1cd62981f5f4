// Package decimal adds to numbers that are kept as text, in the one way that all engines have in common.
//
// A number is what strconv.FormatInt writes: no plus, no leading zero, no space. Redis accepts no more either.
package decimal
