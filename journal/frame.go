package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// The file, all numbers little-endian:
//
//	header   magic (8)   version (4)   CRC32C of both (4)
//	frame    marker (4)  length of the payload (4)  CRC32C of both (4)  payload
//
// and the payload:
//
//	kind (1)  and then, by kind:
//	          instance  the marshaled pb.Instance
//	          removal   the instance's id
//	          meta      length of the key (uvarint)  key  value
//
// Of several frames with one key the last one counts.
const (
	magic   = "\xffwmjrnl\n"
	version = 1

	// marker begins each frame. No text in UTF-8 has its first two bytes, so nothing that a guest or
	// its owner chose can look like a frame to who searches for the next intact one.
	marker = "\xff\xfewm"

	headerSize      = len(magic) + 4 + 4
	frameHeaderSize = len(marker) + 4 + 4

	// maxPayload tells a length from garbage. A record came in one gRPC message, of 4 MiB at the most.
	maxPayload = 16 << 20
)

// kind says what a frame is about.
type kind byte

const (
	kindInstance kind = 'i'
	kindRemoval  kind = 'r'
	kindMeta     kind = 'm'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func header() []byte {
	h := binary.LittleEndian.AppendUint32([]byte(magic), version)
	return binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
}

// parseHeader says why data does not begin with a header. A header that is intact and of another
// version is the one thing that is an error.
func parseHeader(data []byte) (why string, err error) {
	if len(data) < headerSize {
		return fmt.Sprintf("the file's header is cut off after %d of %d bytes", len(data), headerSize), nil
	}
	sum := headerSize - 4
	if binary.LittleEndian.Uint32(data[sum:]) != crc32.Checksum(data[:sum], castagnoli) || string(data[:len(magic)]) != magic {
		return "the file's header is damaged", nil
	}
	if v := binary.LittleEndian.Uint32(data[len(magic):]); v != version {
		return "", fmt.Errorf("its format has version %d, and this program knows version %d only; run the version of wasmatrix that wrote it, or move the file away to begin without records", v, version)
	}
	return "", nil
}

func instanceFrame(rec *pb.Instance) ([]byte, error) {
	if rec.GetInstanceId() == "" {
		return nil, errors.New("the record has no instance id")
	}
	frame, err := proto.MarshalOptions{}.MarshalAppend(begin(kindInstance, 0), rec)
	if err != nil {
		return nil, err
	}
	return seal(frame)
}

func removalFrame(id string) ([]byte, error) {
	return seal(append(begin(kindRemoval, len(id)), id...))
}

func metaFrame(key string, value []byte) ([]byte, error) {
	frame := begin(kindMeta, binary.MaxVarintLen64+len(key)+len(value))
	frame = binary.AppendUvarint(frame, uint64(len(key)))
	frame = append(frame, key...)
	return seal(append(frame, value...))
}

// begin returns the start of a frame, with room for so many bytes behind the kind.
func begin(k kind, room int) []byte {
	frame := make([]byte, frameHeaderSize+1, frameHeaderSize+1+room)
	copy(frame, marker)
	frame[frameHeaderSize] = byte(k)
	return frame
}

// seal fills in the length and the checksum of a frame whose payload is complete.
func seal(frame []byte) ([]byte, error) {
	payload := frame[frameHeaderSize:]
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("%d bytes are more than the %d that an entry may have", len(payload), maxPayload)
	}
	length := frame[len(marker) : len(marker)+4]
	binary.LittleEndian.PutUint32(length, uint32(len(payload)))
	binary.LittleEndian.PutUint32(frame[len(marker)+4:], checksum(length, payload))
	return frame, nil
}

func checksum(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, payload)
}

// frameAt returns the frame with which data begins, or says why it begins with none.
func frameAt(data []byte) (frame []byte, why string) {
	if len(data) < frameHeaderSize {
		return nil, fmt.Sprintf("a frame is cut off after %d bytes", len(data))
	}
	if string(data[:len(marker)]) != marker {
		if len(bytes.Trim(data[:frameHeaderSize], "\x00")) == 0 {
			return nil, "zeros where a frame should begin"
		}
		return nil, "no frame begins here"
	}
	length := data[len(marker) : len(marker)+4]
	size := int(binary.LittleEndian.Uint32(length))
	if size == 0 || size > maxPayload {
		return nil, fmt.Sprintf("a frame says that it has %d bytes", size)
	}
	payload := data[frameHeaderSize:]
	if len(payload) < size {
		return nil, fmt.Sprintf("a frame is cut off after %d of %d bytes", len(payload), size)
	}
	payload = payload[:size]
	if binary.LittleEndian.Uint32(data[len(marker)+4:]) != checksum(length, payload) {
		return nil, "a frame's checksum does not match"
	}
	return data[:frameHeaderSize+size], ""
}

// nextFrame returns the first offset, from an offset on, at which an intact frame begins; the length
// of data if there is none.
func nextFrame(data []byte, from int) int {
	for from <= len(data) {
		i := bytes.Index(data[from:], []byte(marker))
		if i < 0 {
			break
		}
		from += i
		if _, why := frameAt(data[from:]); why == "" {
			return from
		}
		from++
	}
	return len(data)
}

// parseMeta takes the payload of a meta frame apart, behind its kind.
func parseMeta(payload []byte) (key string, value []byte, err error) {
	size, n := binary.Uvarint(payload)
	if n <= 0 || size > uint64(len(payload)-n) {
		return "", nil, errors.New("its key is cut off")
	}
	rest := payload[n:]
	return string(rest[:size]), rest[size:], nil
}
