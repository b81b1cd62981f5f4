package decimal

import (
	"errors"
	"math/big"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

func TestSumsAreThoseOfNumbersWithoutLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, by := rapid.Int64().Draw(t, "n"), rapid.Int64().Draw(t, "by")
		want := new(big.Int).Add(big.NewInt(n), big.NewInt(by))
		got, err := Add([]byte(strconv.FormatInt(n, 10)), by)
		switch {
		case want.IsInt64() && (err != nil || got != want.Int64()):
			t.Errorf("%d + %d = %d, %v", n, by, got, err)
		case !want.IsInt64() && !errors.Is(err, ErrOverflow):
			t.Errorf("%d + %d = %d, %v: want an overflow", n, by, got, err)
		}
	})
}

func TestWhatIsWrittenDifferentlyIsNoNumber(t *testing.T) {
	for _, s := range []string{"", " ", "+1", "01", "-0", "1 ", " 1", "1.0", "1e3", "0x1", "1_000", "9223372036854775808", "١", "a"} {
		if n, err := Parse([]byte(s)); !errors.Is(err, ErrNotNumber) {
			t.Errorf("%q is %d, %v", s, n, err)
		}
	}
}
