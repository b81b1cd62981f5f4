package api

import (
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// List is one page of instances.
type List struct {
	Instances []*pb.Instance
	// How many there are on all pages.
	Total int
	// The leader is rebuilding its view, and some may be missing.
	Recovering bool
	// The names of nodes that have not answered the leader yet.
	Missing []string
}

// ReadList reads the answer to a request to its end. A leader of a version that knows no pages has sent all; the page is
// then made here.
func ReadList(req *pb.ListInstancesRequest, stream grpc.ServerStreamingClient[pb.ListInstancesResponse]) (*List, error) {
	list, paged := &List{}, false
	for {
		some, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		list.Instances = append(list.Instances, some.GetInstances()...)
		list.Missing = append(list.Missing, some.GetMissingNodes()...)
		list.Recovering = list.Recovering || some.GetRecovering()
		if some.Total != nil {
			list.Total, paged = int(some.GetTotal()), true
		}
	}
	if !paged {
		list.Instances, list.Total = fact.Select(list.Instances, req)
	}
	return list, nil
}

// Statuses are the words for what an instance may be, in their order.
func Statuses() []string { return words(pb.InstanceStatus_name, StatusName) }

// StatusNamed returns the status that a word stands for.
func StatusNamed(name string) (pb.InstanceStatus, bool) {
	return named(name, pb.InstanceStatus_name, StatusName)
}

// Sorts are the words for what instances can be ordered by.
func Sorts() []string { return words(pb.InstanceSort_name, sortName) }

// SortNamed returns what a word has instances be ordered by.
func SortNamed(name string) (pb.InstanceSort, bool) {
	return named(name, pb.InstanceSort_name, sortName)
}

func sortName(s pb.InstanceSort) string { return word(s.String(), "INSTANCE_SORT_") }

// words are those of an enum's values, save for the one that says nothing.
func words[E ~int32](values map[int32]string, name func(E) string) (all []string) {
	for n := range int32(len(values) - 1) {
		all = append(all, name(E(n+1)))
	}
	return all
}

func named[E ~int32](word string, values map[int32]string, name func(E) string) (E, bool) {
	at := slices.Index(words(values, name), word)
	return E(at + 1), at >= 0
}
