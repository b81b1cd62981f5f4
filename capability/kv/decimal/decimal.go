package decimal

import (
	"errors"
	"math"
	"strconv"
)

// Why nothing could be added.
var (
	ErrNotNumber = errors.New("the key holds no whole number of 64 bits")
	ErrOverflow  = errors.New("the sum does not fit into 64 bits")
)

// Parse reads a number.
func Parse(text []byte) (int64, error) {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || string(strconv.AppendInt(nil, n, 10)) != string(text) {
		return 0, ErrNotNumber
	}
	return n, nil
}

// Add returns the sum of a number and by.
func Add(text []byte, by int64) (int64, error) {
	n, err := Parse(text)
	switch {
	case err != nil:
		return 0, err
	case by > 0 && n > math.MaxInt64-by, by < 0 && n < math.MinInt64-by:
		return 0, ErrOverflow
	}
	return n + by, nil
}
