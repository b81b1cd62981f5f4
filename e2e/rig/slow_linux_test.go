package rig

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"
)

func TestASlowLinkDelaysLosesDoublesAndReordersAndAHealedOneDoesNot(t *testing.T) {
	network, err := NewNetwork(t, 3)
	if err != nil {
		t.Skip(err)
	}
	var nodes []*Node
	for _, host := range network.Hosts() {
		nodes = append(nodes, &Node{IP: host.IP, enter: host.enter})
	}
	w := Weather{Delay: 50 * time.Millisecond, Lost: 10, Doubled: 10, HeldUp: 10, Seed: 1}
	end := network.Slow(nodes[0], w)
	const packets = 1000
	bad := carry(t, nodes[1], nodes[0], packets)
	if bad.lost < packets/20 || bad.doubled < packets/20 || bad.overtaken < packets/100 || bad.fastest < w.Delay {
		t.Errorf("a link of %+v has, of %d packets, %+v", w, packets, bad)
	}
	none := tally{fastest: bad.fastest}
	for what, pair := range map[string][2]*Node{"beside a slow one": {nodes[1], nodes[2]}, "that is slow no more": {nodes[1], nodes[0]}} {
		if what == "that is slow no more" {
			end()
		}
		good := carry(t, pair[0], pair[1], packets)
		if none.fastest = good.fastest; good != none || good.fastest >= w.Delay {
			t.Errorf("a link %s has, of %d packets, %+v", what, packets, good)
		}
	}
	network.Slow(nodes[0], w)
	network.Cut(nodes[:1], nodes[1:])
	if cut := carry(t, nodes[1], nodes[0], 100); cut.lost != 100 {
		t.Errorf("a slow link that is cut loses %d of 100 packets", cut.lost)
	}
}

// tally is what became of packets.
type tally struct {
	lost, doubled, overtaken int
	fastest                  time.Duration
}

// carry sends packets from one host to another, and waits for the last of them, or for nothing to come.
func carry(t *testing.T, from, to *Node, packets int) tally {
	t.Helper()
	var inbox *net.UDPConn
	err := inNamespace(to.enter[3], func() (err error) {
		inbox, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(to.IP)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer inbox.Close()
	var out net.Conn
	err = inNamespace(from.enter[3], func() (err error) {
		var dialer net.Dialer
		out, err = dialer.DialContext(context.Background(), "udp4", inbox.LocalAddr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	sent := make([]time.Time, packets)
	var mu sync.Mutex // guards sent
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range packets {
			mu.Lock()
			sent[i] = time.Now()
			mu.Unlock()
			if _, err := out.Write(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
				t.Errorf("packet %d: %v", i, err)
				return
			}
			<-tick.C
		}
	}()
	seen, last, r := make([]int, packets), -1, tally{fastest: time.Hour}
	buffer := make([]byte, 4)
	for {
		if err := inbox.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := inbox.Read(buffer); err != nil {
			break // nothing comes any more
		}
		i := int(binary.BigEndian.Uint32(buffer))
		mu.Lock()
		r.fastest = min(r.fastest, time.Since(sent[i]))
		mu.Unlock()
		seen[i]++
		if i < last {
			r.overtaken++
		}
		last = max(last, i)
	}
	for _, times := range seen {
		switch times {
		case 0:
			r.lost++
		case 1:
		default:
			r.doubled++
		}
	}
	return r
}
