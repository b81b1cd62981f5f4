package modulestore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

const (
	prefix    = "sha256:"
	hexDigits = 2 * sha256.Size
)

// Hash names a module: "sha256:" and 64 lower-case hex digits.
type Hash string

// ParseHash returns the hash that s spells, or says how it ought to look.
func ParseHash(s string) (Hash, error) {
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok || len(digits) != hexDigits || strings.ToLower(digits) != digits {
		return "", fmt.Errorf("module hash %q: want sha256: and 64 lower-case hex digits", s)
	}
	if _, err := hex.DecodeString(digits); err != nil {
		return "", fmt.Errorf("module hash %q: want sha256: and 64 lower-case hex digits", s)
	}
	return Hash(s), nil
}

// Sum returns the hash of a module's bytes.
func Sum(module []byte) Hash { return ofDigest(sha256.Sum256(module)) }

// Short is enough of the hash for people to tell modules apart.
func (h Hash) Short() string {
	if len(h) < len(prefix)+12 {
		return string(h)
	}
	return string(h[len(prefix) : len(prefix)+12])
}

func (h Hash) digits() string { return strings.TrimPrefix(string(h), prefix) }

func ofDigest(d [sha256.Size]byte) Hash { return Hash(prefix + hex.EncodeToString(d[:])) }
