package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/decimal"
)

// commandVersion opens each command. Replicas refuse one of another version, all alike.
const commandVersion = 1

// operation is what a command does.
type operation byte

const (
	opSet       operation = 1
	opDelete    operation = 2
	opIncrement operation = 3
	opSweep     operation = 4 // removes expired keys
)

// CallID is the number by which a repetition of a write is known. The zero one is never remembered.
type CallID [16]byte

// command is one entry of the log. Its bytes are, in this order: the version, the operation, the call's id, the
// time, for a write the provider, the bucket and the key, and what the operation needs. Whole numbers are
// big-endian or varints, texts begin with their length, and a value is what is left.
type command struct {
	Op     operation
	CallID CallID
	Now    int64 // the leader's clock in Unix nanoseconds, by which keys expire

	Provider, Bucket, Key string

	TTL        time.Duration
	IfRevision *uint64
	By         int64
	Limit      uint64 // of a sweep
	Value      []byte // shared with the encoded command
}

const (
	maxName = 255 // bytes of a provider's id or a bucket's name
	noMatch = 0   // no revision is asked for
	match   = 1
)

var errCommand = errors.New("the command is damaged, or of a version that this node does not know")

// encode returns the command's bytes.
func (c *command) encode() []byte {
	b := make([]byte, 0, 2+len(c.CallID)+8+len(c.Provider)+len(c.Bucket)+len(c.Key)+6+binary.MaxVarintLen64*2+len(c.Value))
	b = append(b, commandVersion, byte(c.Op))
	b = append(b, c.CallID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Now))
	if c.Op == opSweep {
		return binary.AppendUvarint(b, c.Limit)
	}
	for _, s := range []string{c.Provider, c.Bucket, c.Key} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	switch c.Op {
	case opSet:
		b = binary.AppendUvarint(b, uint64(c.TTL))
		b = appendMatch(b, c.IfRevision)
		b = append(b, c.Value...)
	case opDelete:
		b = appendMatch(b, c.IfRevision)
	case opIncrement:
		b = binary.AppendVarint(b, c.By)
	}
	return b
}

func appendMatch(b []byte, revision *uint64) []byte {
	if revision == nil {
		return append(b, noMatch)
	}
	return binary.AppendUvarint(append(b, match), *revision)
}

// decode reads a command that encode wrote, and refuses all else.
func decode(b []byte) (c command, err error) {
	const head = 2 + len(c.CallID) + 8
	if len(b) < head || b[0] != commandVersion {
		return c, errCommand
	}
	c.Op = operation(b[1])
	copy(c.CallID[:], b[2:])
	c.Now = int64(binary.BigEndian.Uint64(b[head-8:]))
	r := fields{rest: b[head:]}
	if c.Op != opSweep {
		c.Provider, c.Bucket, c.Key = r.text(maxName), r.text(maxName), r.text(capability.MaxKey)
	}
	switch c.Op {
	case opSet:
		c.TTL = time.Duration(r.uvarint(math.MaxInt64))
		c.IfRevision = r.match()
		c.Value, r.rest = r.rest, nil
		if len(c.Value) > capability.MaxValue {
			return c, errCommand
		}
	case opDelete:
		c.IfRevision = r.match()
	case opIncrement:
		c.By = r.varint()
	case opSweep:
		c.Limit = r.uvarint(math.MaxInt32)
	default:
		return c, errCommand
	}
	if r.damaged || len(r.rest) > 0 {
		return c, errCommand
	}
	return c, nil
}

// print is what a repetition has in common with the first: a call's id that is used for something else is refused.
func (c *command) print() uint32 {
	h := fnv.New32a()
	_, _ = h.Write(append(path(c.Provider, c.Bucket, c.Key), byte(c.Op))) // a hash takes all
	return h.Sum32()
}

// fields takes an encoded command apart. Once something was wrong it only gives zero values.
type fields struct {
	rest    []byte
	damaged bool
}

func (r *fields) fail() {
	r.rest, r.damaged = nil, true
}

func (r *fields) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > most {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *fields) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *fields) text(most int) string {
	n := r.uvarint(uint64(most))
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *fields) match() *uint64 {
	if len(r.rest) == 0 {
		r.fail()
		return nil
	}
	has := r.rest[0]
	r.rest = r.rest[1:]
	switch has {
	case noMatch:
		return nil
	case match:
		v := r.uvarint(math.MaxUint64)
		return &v
	}
	r.fail()
	return nil
}

// answer is how a write ended: small, since many of them are remembered.
type answer struct {
	Code   code
	Number uint64 // the revision, the sum, or whether there was something to remove
}

// code says what an answer means. The numbers are in snapshots.
type code byte

const (
	done       code = 0
	conflict   code = 1 // Number is the revision that the key is at
	notNumber  code = 2
	overflow   code = 3
	refused    code = 4 // the command is damaged
	otherCall  code = 5 // the call's id was used for something else
	storeBroke code = 6 // this node's working store can't be written; never remembered
)

// err returns what the answer means to the caller.
func (a answer) err() error {
	switch a.Code {
	case done:
		return nil
	case conflict:
		if a.Number == 0 {
			return capability.Errorf(capability.Conflict, "there is no such key")
		}
		return capability.Errorf(capability.Conflict, "the key is at revision %d", a.Number)
	case notNumber:
		return capability.Errorf(capability.InvalidRequest, "%w", decimal.ErrNotNumber)
	case overflow:
		return capability.Errorf(capability.InvalidRequest, "%w", decimal.ErrOverflow)
	case refused:
		return capability.Errorf(capability.Internal, "%w", errCommand)
	case otherCall:
		return capability.Errorf(capability.InvalidRequest, "the call's id was used for another call")
	case storeBroke:
		return capability.Errorf(capability.Unavailable, "this node could not write its store, which is built anew; the write may have been done")
	}
	return capability.Errorf(capability.Internal, "an answer of a kind that is unknown: %s", fmt.Sprint(a.Code))
}
