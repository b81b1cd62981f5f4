package rig

import (
	"container/heap"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Slow has bad weather, from now on, on all that the node sends and is sent, and returns what ends it.
//
// No module of the kernel is needed (netem is missing from many): the router sends these packets round by a
// device whose other end is this process. What nobody slows never goes there.
func (n *Network) Slow(node *Node, w Weather) (end func()) {
	n.t.Helper()
	if n.detour == nil {
		n.detour = n.newDetour()
	}
	rules := []string{detourRule + "from " + node.IP + detourRoute, detourRule + "to " + node.IP + detourRoute}
	n.detour.set(node.IP, newLink(w))
	n.rules("rule add ", rules)
	return func() {
		n.t.Helper()
		n.rules("rule del ", rules)
		n.detour.set(node.IP, nil)
	}
}

// The router's rules, in the order in which they count: what is cut is dropped, also where it went round;
// what comes from the detour goes where it is to go; what goes to or from a slowed node goes round.
const (
	cutRule     = "pref 1000 "
	backRule    = "pref 2000 iif detour lookup main"
	detourRule  = "pref 3000 "
	detourRoute = " lookup 87"
)

// detour carries packets of the router's from one moment to another.
type detour struct {
	device *os.File

	// mu guards what follows.
	mu    sync.Mutex
	links map[string]*link // by address
	under queue            // under way
	count uint64
	next  *time.Timer // for the first that is under way
}

// newDetour makes the device, and what comes out of it go on to where it was sent.
func (n *Network) newDetour() *detour {
	n.t.Helper()
	var device *os.File
	err := inNamespace(n.router, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq("detour")
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		device = os.NewFile(uintptr(fd), "detour") // not before it is one that can be waited for
		return nil
	})
	if err != nil {
		n.t.Fatalf("make a device that packets are held up by: %v", err)
	}
	// What comes back is from addresses that are not beyond the device.
	n.must(ip("", "netns", "exec", n.router, "sh", "-c", "for f in all detour; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done"))
	n.must(ip("link set detour up\nroute add default dev detour table 87\nrule add "+backRule, "-n", n.router, "-batch", "-"))
	d := &detour{device: device, links: map[string]*link{}, next: time.NewTimer(time.Hour)}
	var work sync.WaitGroup
	ended := make(chan struct{})
	work.Go(func() { n.goesOn(d.take()) })
	work.Go(func() { n.goesOn(d.give(ended)) })
	n.t.Cleanup(func() {
		close(ended)
		n.goesOn(device.Close())
		work.Wait()
	})
	return d
}

// goesOn notes what went wrong with a detour. That it was closed is not wrong.
func (n *Network) goesOn(err error) {
	if err != nil && !errors.Is(err, os.ErrClosed) {
		n.t.Errorf("hold packets up: %v", err)
	}
}

func (d *detour) set(address string, l *link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l == nil {
		delete(d.links, address)
	} else {
		d.links[address] = l
	}
}

// take takes packets in until the device is closed.
func (d *detour) take() error {
	buffer := make([]byte, 1<<16)
	for {
		size, err := d.device.Read(buffer)
		if err != nil {
			return err
		}
		if size < 20 || buffer[0]>>4 != 4 {
			continue // the device itself says hello in IPv6
		}
		d.hold(append([]byte(nil), buffer[:size]...), time.Now())
	}
}

// hold has a packet befall what the links at both its ends have for it.
func (d *detour) hold(packet []byte, now time.Time) {
	from := fmt.Sprintf("%d.%d.%d.%d", packet[12], packet[13], packet[14], packet[15])
	to := fmt.Sprintf("%d.%d.%d.%d", packet[16], packet[17], packet[18], packet[19])
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, up := range d.links[from].fate() {
		for _, down := range d.links[to].fate() {
			d.count++
			heap.Push(&d.under, held{now.Add(up + down), d.count, packet})
		}
	}
	if len(d.under) > 0 {
		d.next.Reset(time.Until(d.under[0].at))
	}
}

// give gives each packet back when its time has come.
func (d *detour) give(ended <-chan struct{}) error {
	for {
		select {
		case <-ended:
			return nil
		case <-d.next.C:
		}
		for _, packet := range d.due(time.Now()) {
			if _, err := d.device.Write(packet); err != nil {
				return err
			}
		}
	}
}

// due returns the packets whose time has come, and sets the timer for the first of the others.
func (d *detour) due(now time.Time) [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	var packets [][]byte
	for len(d.under) > 0 && !d.under[0].at.After(now) {
		packets = append(packets, heap.Pop(&d.under).(held).packet)
	}
	if len(d.under) > 0 {
		d.next.Reset(d.under[0].at.Sub(now))
	}
	return packets
}

// held is a packet under way.
type held struct {
	at     time.Time
	number uint64 // of two with the same time, the first comes first
	packet []byte
}

// queue is a heap of packets, the first to arrive on top.
type queue []held

var _ heap.Interface = (*queue)(nil)

// Len returns how many are under way.
func (q queue) Len() int { return len(q) }

// Less says whether one arrives before another.
func (q queue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].number < q[j].number
	}
	return q[i].at.Before(q[j].at)
}

// Swap swaps two.
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push adds a packet.
func (q *queue) Push(one any) { *q = append(*q, one.(held)) }

// Pop takes the last one away.
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
