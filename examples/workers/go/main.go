//go:build wasip1

// workers is a pool: each worker answers some of the jobs, and a producer sends them and prints the answers.
//
//	workers work         reverses the text of jobs
//	workers send TEXT... sends jobs
package main

import (
	"fmt"
	"os"
	"slices"
	"time"

	wasmatrix "github.com/wasmatrix/wasmatrix/sdk/go"
)

func main() {
	var err error
	switch bus := wasmatrix.Messaging("messaging"); {
	case len(os.Args) == 2 && os.Args[1] == "work":
		err = work(bus)
	case len(os.Args) > 2 && os.Args[1] == "send":
		err = send(bus, os.Args[2:])
	default:
		err = fmt.Errorf("usage: workers work | workers send TEXT...")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// work answers jobs. Instances of one name share them.
func work(bus wasmatrix.Bus) error {
	jobs, err := bus.Subscribe("jobs.reverse")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for job, err := range jobs.Messages() {
		if err != nil {
			return err
		}
		text := []rune(string(job.Data))
		slices.Reverse(text)
		fmt.Println("job", string(job.Data))
		if !job.ExpectsReply {
			continue
		}
		if err := job.Reply([]byte(string(text))); err != nil {
			return err
		}
	}
	return nil
}

func send(bus wasmatrix.Bus, jobs []string) error {
	for _, job := range jobs {
		answer, err := bus.Request("jobs.reverse", []byte(job), 5*time.Second)
		if err != nil {
			return err
		}
		fmt.Println(job, "->", string(answer))
	}
	return nil
}
