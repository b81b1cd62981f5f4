package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// askAtMost is how long someone who pressed Tab waits for a cluster that does not answer.
	askAtMost = time.Second
	// manyInstances are too many to choose an id from of which nothing was typed.
	manyInstances = 50
)

// asker proposes what a cluster knows. Where it is not reached in time there is nothing to propose: a prompt is no place
// for errors.
type asker struct {
	addr string // none: of no node
}

// from asks the node with this connection.
func (a asker) from(ask func(ctx context.Context, conn *grpc.ClientConn) proposals) proposals {
	if a.addr == "" {
		return proposals{}
	}
	conn, err := rpc.Dial(a.addr)
	if err != nil {
		return proposals{}
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), askAtMost)
	defer cancel()
	return ask(ctx, conn)
}

// instances proposes the names of instances and their ids. All are those that have ended, too.
func (a asker) instances(typed string, all bool) proposals {
	return a.from(func(ctx context.Context, conn *grpc.ClientConn) proposals {
		list := listSome(ctx, conn, all)
		p := namesOf(list)
		if typed == "" && len(list) > manyInstances {
			return p
		}
		for _, i := range list {
			p.words = append(p.words, proposal{i.GetInstanceId(), fmt.Sprintf("%s on %s, %s", i.GetSpec().GetName(), i.GetNodeName(), api.FromInstance(i).Status)})
		}
		return p
	})
}

// names proposes the names of instances.
func (a asker) names() proposals {
	return a.from(func(ctx context.Context, conn *grpc.ClientConn) proposals { return namesOf(listSome(ctx, conn, true)) })
}

func namesOf(list []*pb.Instance) (p proposals) {
	count := map[string]int{}
	for _, i := range list {
		count[i.GetSpec().GetName()]++
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		help := "an instance"
		if n := count[name]; n > 1 {
			help = fmt.Sprintf("%d instances", n)
		}
		p.words = append(p.words, proposal{name, help})
	}
	return p
}

// listSome returns the instances that came in time.
func listSome(ctx context.Context, conn *grpc.ClientConn, all bool) (list []*pb.Instance) {
	stream, err := pb.NewControlPlaneServiceClient(conn).ListInstances(ctx, &pb.ListInstancesRequest{All: all})
	if err != nil {
		return nil
	}
	for {
		page, err := stream.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) && len(list) == 0 {
				return nil
			}
			return list
		}
		list = append(list, page.GetInstances()...)
	}
}

// members returns the nodes as proposals.
func (a asker) members(of func(*pb.Member) []proposal) proposals {
	return a.from(func(ctx context.Context, conn *grpc.ClientConn) (p proposals) {
		resp, err := pb.NewControlPlaneServiceClient(conn).ListMembers(ctx, &pb.ListMembersRequest{})
		if err != nil {
			return p
		}
		for _, m := range resp.GetMembers() {
			p.words = append(p.words, of(m)...)
		}
		slices.SortFunc(p.words, func(a, b proposal) int { return cmp.Compare(a.word, b.word) })
		p.words = slices.CompactFunc(p.words, func(a, b proposal) bool { return a.word == b.word })
		return p
	})
}

func (a asker) nodes() proposals {
	return a.members(func(m *pb.Member) []proposal {
		return []proposal{{m.GetName(), fmt.Sprintf("%s, %s, %d instances", m.GetRole(), m.GetState(), m.GetInstances())}}
	})
}

func (a asker) addresses() proposals {
	return a.members(func(m *pb.Member) []proposal { return []proposal{{m.GetRpcAddr(), m.GetName()}} })
}

func (a asker) labels() proposals {
	return a.members(func(m *pb.Member) (words []proposal) {
		for k, v := range m.GetLabels() {
			words = append(words, proposal{k + "=" + v, "a node's label"})
		}
		return words
	})
}

func (a asker) modules() proposals {
	return a.from(func(ctx context.Context, conn *grpc.ClientConn) (p proposals) {
		resp, err := pb.NewCatalogServiceClient(conn).ListCatalog(ctx, &pb.ListCatalogRequest{})
		if err != nil {
			return p
		}
		for _, m := range resp.GetModules() {
			module := api.FromModule(m)
			p.words = append(p.words, proposal{module.ModuleHash, fmt.Sprintf("%s, %d live instances", formatSize(module.SizeBytes), module.LiveInstances)})
		}
		return p
	})
}

func (a asker) listProviders(of func(*pb.Provider) []proposal) proposals {
	return a.from(func(ctx context.Context, conn *grpc.ClientConn) (p proposals) {
		resp, err := pb.NewProviderServiceClient(conn).ListProviders(ctx, &pb.ListProvidersRequest{})
		if err != nil {
			return p
		}
		for _, s := range resp.GetProviders() {
			p.words = append(p.words, of(s.GetProvider())...)
		}
		return p
	})
}

func (a asker) providers() proposals {
	return a.listProviders(func(provider *pb.Provider) []proposal {
		return []proposal{{provider.GetProviderId(), provider.GetProviderType()}}
	})
}

// permissions are those of each type. One that ends in a colon goes on.
var permissions = map[string][]string{
	capability.TypeKV:        {capability.KVRead, capability.KVWrite, capability.KVDelete, "kv:bucket:"},
	capability.TypeHTTP:      {capability.HTTPAsk, "http:domain:"},
	capability.TypeMessaging: {capability.Publish, capability.Subscribe, capability.Publish + ":", capability.Subscribe + ":"},
}

// grants proposes ID=PERM[,PERM...] one part after the other.
func (a asker) grants(typed string) proposals {
	id, _, begun := strings.Cut(typed, "=")
	p := a.listProviders(func(provider *pb.Provider) (words []proposal) {
		if !begun {
			return []proposal{{provider.GetProviderId() + "=", provider.GetProviderType()}}
		}
		if provider.GetProviderId() != id {
			return nil
		}
		head := typed[:strings.LastIndexAny(typed, "=,")+1]
		for _, permission := range permissions[provider.GetProviderType()] {
			words = append(words, proposal{word: head + permission})
		}
		return words
	})
	p.glued = true // another permission may follow
	return p
}
