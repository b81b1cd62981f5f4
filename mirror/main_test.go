package mirror

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// Most of these tests wait, for an etcd that starts, hangs or is asked again: so more of them run at once than there are
// processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
