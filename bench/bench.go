package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// bench takes measurements one after the other. It stands in for a test where the rig wants one:
// what that creates lasts until the end of the measurement.
type bench struct {
	root    string
	product rig.Product
	rounds  int
	steady  time.Duration
	rows    []row

	failed   bool
	cleanups []func()
}

type row struct {
	what, measured, promised string
	kept                     bool
}

// broken ends a measurement that can't go on.
type broken struct{}

// take takes one measurement and says whether it went through.
func (b *bench) take(f figure) (ok bool) {
	b.failed = false
	defer func() {
		for _, undo := range slices.Backward(b.cleanups) {
			undo()
		}
		b.cleanups = nil
		if r := recover(); r != nil {
			if _, expected := r.(broken); !expected {
				panic(r)
			}
			b.failed = true
		}
		ok = !b.failed
	}()
	f.measure(b)
	return true
}

// report adds a line to the table: a value, and the limit it was promised to keep; 0 for none.
func report[V int | float64 | time.Duration](b *bench, what string, measured, promised V, unit string) {
	r := row{what: what, measured: show(measured, unit), kept: promised == 0 || measured <= promised}
	if promised != 0 {
		r.promised = "≤ " + show(promised, unit)
	}
	b.rows = append(b.rows, r)
	fmt.Fprintf(os.Stderr, "  %s: %s\n", what, r.measured)
}

func show(v any, unit string) string {
	switch v := v.(type) {
	case time.Duration:
		switch {
		case v < 100*time.Microsecond:
			return fmt.Sprintf("%.2f µs", float64(v)/float64(time.Microsecond))
		case v < 10*time.Millisecond:
			return fmt.Sprintf("%.2f ms", float64(v)/float64(time.Millisecond))
		case v < time.Second:
			return fmt.Sprintf("%.0f ms", float64(v)/float64(time.Millisecond))
		}
		return fmt.Sprintf("%.2f s", v.Seconds())
	case float64:
		if unit == "times" { // where a hundredth matters
			return fmt.Sprintf("%.2f %s", v, unit)
		}
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%v %s", v, unit)
}

// print writes the table in Markdown.
func (b *bench) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "\n| figure\t| measured\t| promised\t| kept\t|")
	fmt.Fprintln(t, "| ---\t| ---\t| ---\t| ---\t|")
	for _, r := range b.rows {
		kept := "yes"
		if !r.kept {
			kept = "**no**"
		}
		fmt.Fprintf(t, "| %s\t| %s\t| %s\t| %s\t|\n", r.what, r.measured, r.promised, kept)
	}
	_ = t.Flush() // to stdout
}

// quantile returns the value below which that part of the sample lies.
func quantile(sample []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(sample))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

var _ rig.T = (*bench)(nil)

// Helper does nothing: there is no stack to cut.
func (b *bench) Helper() {}

// Failed says whether something went wrong in this measurement.
func (b *bench) Failed() bool { return b.failed }

// Cleanup keeps what is to be undone after the measurement.
func (b *bench) Cleanup(undo func()) { b.cleanups = append(b.cleanups, undo) }

// Logf writes to stderr.
func (b *bench) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Errorf writes to stderr and marks the measurement as broken.
func (b *bench) Errorf(format string, args ...any) {
	b.Logf(format, args...)
	b.failed = true
}

// Fatal ends the measurement.
func (b *bench) Fatal(args ...any) {
	b.failed = true
	fmt.Fprintln(os.Stderr, args...)
	panic(broken{})
}

// Fatalf ends the measurement.
func (b *bench) Fatalf(format string, args ...any) { b.Fatal(fmt.Sprintf(format, args...)) }

// TempDir returns a directory that lasts until the end of the measurement.
func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp("", "wasmatrix-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
