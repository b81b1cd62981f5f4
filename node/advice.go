package node

import (
	"errors"
	"strings"
	"syscall"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// advised says of what keeps a node from running that it is for its operator to mend, where that is so, and how, where
// the error itself does not.
func advised(err error) error {
	if _, ok := errors.AsType[*cluster.NameTakenError](err); ok {
		return rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	if _, ok := errors.AsType[*cluster.ForeignClusterError](err); ok {
		return rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	if _, ok := errors.AsType[*cluster.VersionError](err); ok {
		return rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	switch {
	case says(err, syscall.EADDRINUSE):
		return rpc.Errorf(rpc.InvalidRequest, "%w; is another node running here? stop what has the port, or choose another port or --bind", err)
	case says(err, syscall.EADDRNOTAVAIL):
		return rpc.Errorf(rpc.InvalidRequest, "%w; give an address of this host as --bind", err)
	}
	return err
}

// says whether err has number for a cause. The libraries of gossip and messaging pass causes on as text.
func says(err error, number syscall.Errno) bool {
	return errors.Is(err, number) || err != nil && strings.Contains(err.Error(), number.Error())
}
