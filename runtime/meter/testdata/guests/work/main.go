// work computes in many ways, prints what comes of it, and ends with what its argument says: "trap" by a trap deep in its calls,
// "exit" with an exit code.
package main

import (
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"
)

type leaf struct {
	Name  string
	Parts []*leaf
	Sizes map[string]float64
}

func grow(depth int, name string) *leaf {
	l := &leaf{Name: name, Sizes: map[string]float64{}}
	for n := range 3 {
		l.Sizes[fmt.Sprint(name, n)] = math.Sqrt(float64(depth + n))
		if depth > 0 {
			l.Parts = append(l.Parts, grow(depth-1, fmt.Sprintf("%s.%d", name, n)))
		}
	}
	return l
}

func (l *leaf) text() string {
	said := fmt.Sprint(l.Name, l.Sizes)
	for _, part := range l.Parts {
		said += part.text()
	}
	return said
}

// sums has goroutines share work.
func sums(workers, each int) (total uint64) {
	results := make(chan uint64)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			var sum uint64
			for n := range each {
				sum += uint64(w*n) ^ sum<<1
				if n%1000 == 0 {
					runtime.Gosched()
				}
			}
			results <- sum
		})
	}
	go func() { all.Wait(); close(results) }()
	for sum := range results {
		total += sum
	}
	return total
}

func recovered(n int) (said string) {
	defer func() { said = fmt.Sprint(recover()) }()
	return fmt.Sprint([]int{1, 2, 3}[n])
}

//go:noinline
func descend(depth int) {
	if depth == 0 {
		breakDown()
	}
	descend(depth - 1)
	fmt.Print()
}

//go:noinline
func breakDown() {
	var nobody *leaf
	fmt.Println(nobody.Name)
}

func main() {
	text := grow(5, "root").text()
	fmt.Printf("tree: %d bytes, %x\n", len(text), sha256.Sum256([]byte(text)))
	words := strings.Fields(strings.Repeat("the quick brown fox jumps over the lazy dog ", 2000))
	sort.Strings(words)
	fmt.Println("words:", len(words), words[0], words[len(words)-1])
	fmt.Println("sums:", sums(8, 20_000))
	fmt.Println("recovered:", recovered(5))
	runtime.GC()
	switch strings.Join(os.Args[1:], " ") {
	case "exit":
		os.Exit(3)
	case "trap":
		descend(20)
	}
}
