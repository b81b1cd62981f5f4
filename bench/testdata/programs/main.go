// Command programs does some work in Go, and prints a checksum: "sieve N" counts the primes below a million, "sha256 N" hashes a
// mebibyte, each N times.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) != 3 {
		os.Exit(2)
	}
	times, err := strconv.Atoi(os.Args[2])
	if err != nil {
		os.Exit(2)
	}
	switch os.Args[1] {
	case "sieve":
		fmt.Println(sieve(times))
	case "sha256":
		fmt.Printf("%x\n", hash(times))
	default:
		os.Exit(2)
	}
}

func sieve(times int) (primes int) {
	for range times {
		primes = 0
		composite := make([]bool, 1_000_000)
		for i := 2; i < len(composite); i++ {
			if composite[i] {
				continue
			}
			primes++
			for k := 2 * i; k < len(composite); k += i {
				composite[k] = true
			}
		}
	}
	return primes
}

func hash(times int) (sum [sha256.Size]byte) {
	data := make([]byte, 1<<20)
	for range times {
		copy(data, sum[:])
		sum = sha256.Sum256(data)
	}
	return sum
}
