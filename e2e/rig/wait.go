package rig

import (
	"fmt"
	"time"
)

// How often a condition is looked at.
const pollEvery = 100 * time.Millisecond

// Wait looks at a condition until it holds, and fails the test with what it last said if that takes
// longer than the deadline. It returns how long it took.
func Wait(t T, what string, deadline time.Duration, condition func() error) time.Duration {
	t.Helper()
	began := time.Now()
	err := poll(deadline, condition)
	if err != nil {
		t.Fatalf("waited %s for %s: %v", deadline, what, err)
	}
	return time.Since(began)
}

// Hold looks at a condition over and over and fails the test as soon as it does not hold.
func Hold(t T, what string, over time.Duration, condition func() error) {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(2 * pollEvery)
	defer tick.Stop()
	for time.Since(began) < over {
		if err := condition(); err != nil {
			t.Fatalf("%s did not hold after %s: %v", what, time.Since(began).Round(time.Millisecond), err)
		}
		<-tick.C
	}
}

func poll(deadline time.Duration, condition func() error) error {
	end := time.Now().Add(deadline)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil || time.Now().After(end) {
			return err
		}
		<-tick.C
	}
}

// Want returns nil where got is want, and else an error that names both.
func Want[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, want %v", what, got, want)
	}
	return nil
}
