package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// envName returns the environment variable of a flag.
func envName(flag string) string {
	return "WASMATRIX_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func env(flag string) []string { return []string{envName(flag)} }

// units are what a size may end in; the longer ones first. Sizes are powers of two, as memory is.
var units = []struct {
	suffix string
	bytes  uint64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40},
	{"B", 1}, {"", 1},
}

// parseSize reads a size such as 64MiB, 1.5GiB or 65536.
func parseSize(s string) (uint64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil && n <= math.MaxUint64/u.bytes {
			return n * u.bytes, nil
		}
		if strings.Trim(digits, "0123456789.") != "" { // ParseFloat also reads 0x1p4, inf and 1_000
			break
		}
		if f, err := strconv.ParseFloat(digits, 64); err == nil && f*float64(u.bytes) < math.MaxInt64 {
			return uint64(f * float64(u.bytes)), nil
		}
		break
	}
	return 0, fmt.Errorf("%q is no size; it would be like 64MiB, 1.5GiB or a number of bytes", s)
}

// formatSize writes a size for people, in the largest unit that keeps it exact to a tenth.
func formatSize(n uint64) string {
	for _, u := range []struct {
		suffix string
		bytes  uint64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', 1, 64), ".0") + u.suffix
		}
	}
	return strconv.FormatUint(n, 10) + "B"
}

// parsePairs reads a list of K=V. A key that comes again replaces the earlier value.
func parsePairs(list []string) (map[string]string, error) {
	pairs := make(map[string]string, len(list))
	for _, item := range list {
		key, value, ok := strings.Cut(item, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is no K=V", item)
		}
		pairs[key] = value
	}
	return pairs, nil
}

// splitCommas splits the items of a list that may also be given as one, with commas.
func splitCommas(list []string) []string {
	var items []string
	for _, item := range list {
		for part := range strings.SplitSeq(item, ",") {
			if part = strings.TrimSpace(part); part != "" {
				items = append(items, part)
			}
		}
	}
	return items
}

// sizeOf reads a flag that is a size.
func sizeOf(c *cli.Context, flag string) (uint64, error) {
	n, err := parseSize(c.String(flag))
	if err != nil {
		return 0, usagef(c, "--%s: %s", flag, err)
	}
	return n, nil
}

// pairsOf reads a flag that is a list of K=V.
func pairsOf(c *cli.Context, flag string, list []string) (map[string]string, error) {
	pairs, err := parsePairs(list)
	if err != nil {
		return nil, usagef(c, "--%s: %s", flag, err)
	}
	return pairs, nil
}
