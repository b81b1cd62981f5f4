// Package house checks that the tree keeps the rules by which it was built, and says why each is a rule.
//
// It has no code of its own beside its tests: which room may import which, that each room says what
// it is for, that the wire and the flags are documented, and that files stay chapters.
package house
