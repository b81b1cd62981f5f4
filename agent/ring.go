package agent

import (
	"encoding/binary"
	"time"
)

// Streams of a log entry, as they are kept in a ring.
const (
	streamStdout byte = iota
	streamStderr
	streamAgent // the agent itself says something about the output
)

var streamNames = [...]string{streamStdout: "stdout", streamStderr: "stderr", streamAgent: "wasmatrix"}

const (
	// entryOverhead is what an entry takes besides its line: length, time, stream.
	entryOverhead = 4 + 8 + 1
	// firstBlock is what the first line of an instance costs.
	firstBlock = 512
	// lastBlock is what blocks grow to; the granularity in which old output is dropped.
	lastBlock = 64 << 10
)

// logLine is one entry of a ring.
type logLine struct {
	seq    uint64
	time   time.Time
	stream byte
	line   []byte
}

// ring keeps the newest output of one instance, in no more bytes than its limit.
//
// Lines are packed into blocks without pointers, so that a full ring costs the garbage collector
// nothing; the oldest block goes when there is no room for a new one. An empty ring has no memory.
// It is not safe for concurrent use.
type ring struct {
	limit  int
	size   int // the capacities of all blocks
	blocks []block
	next   uint64 // the seq of the next entry, less one
}

// block holds the entries from seq first on.
type block struct {
	first uint64
	data  []byte
}

// maxLine is the longest line that a ring of this limit takes in one entry.
func maxLine(limit int) int { return min(16<<10, limit/8) }

// append adds an entry, which must be no longer than maxLine, and returns its seq.
func (r *ring) append(at time.Time, stream byte, line []byte) uint64 {
	b := r.room(entryOverhead + len(line))
	b.data = binary.LittleEndian.AppendUint32(b.data, uint32(len(line)))
	b.data = binary.LittleEndian.AppendUint64(b.data, uint64(at.UnixNano()))
	b.data = append(b.data, stream)
	b.data = append(b.data, line...)
	r.next++
	return r.next
}

// room returns a block that has need bytes free, making and dropping blocks as it must.
func (r *ring) room(need int) *block {
	if n := len(r.blocks); n > 0 {
		if last := &r.blocks[n-1]; cap(last.data)-len(last.data) >= need {
			return last
		}
	}
	want := max(need, min(max(r.size, firstBlock), lastBlock, r.limit/4))
	var spare []byte
	for len(r.blocks) > 0 && r.size+want > r.limit {
		oldest := r.blocks[0].data
		r.size -= cap(oldest)
		r.blocks = r.blocks[1:]
		if cap(oldest) >= want && cap(oldest) <= 2*want { // as good as a new one
			spare = oldest[:0]
			want = cap(oldest)
		}
	}
	if cap(spare) < want {
		spare = make([]byte, 0, want)
	}
	r.size += cap(spare)
	r.blocks = append(r.blocks, block{first: r.next + 1, data: spare})
	return &r.blocks[len(r.blocks)-1]
}

// first is the seq of the oldest entry kept; of the next one, if none is.
func (r *ring) first() uint64 {
	if len(r.blocks) == 0 {
		return r.next + 1
	}
	return r.blocks[0].first
}

// last is the seq of the newest entry; 0 if there never was one.
func (r *ring) last() uint64 { return r.next }

// read copies the entries after seq, the oldest first: at least one, if there is one, then as many
// as bytes allows.
func (r *ring) read(after uint64, bytes int) []logLine {
	var lines []logLine
	for i, b := range r.blocks {
		if i+1 < len(r.blocks) && r.blocks[i+1].first <= after+1 {
			continue
		}
		seq := b.first
		for data := b.data; len(data) > 0; seq++ {
			n := int(binary.LittleEndian.Uint32(data))
			if seq > after {
				if len(lines) > 0 && bytes < n+entryOverhead {
					return lines
				}
				bytes -= n + entryOverhead
				lines = append(lines, logLine{
					seq:    seq,
					time:   time.Unix(0, int64(binary.LittleEndian.Uint64(data[4:]))),
					stream: data[12],
					line:   append([]byte(nil), data[entryOverhead:entryOverhead+n]...),
				})
			}
			data = data[entryOverhead+n:]
		}
	}
	return lines
}
