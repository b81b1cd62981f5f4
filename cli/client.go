package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// defaultAddr is that of an agent on this host that was told nothing.
const defaultAddr = "127.0.0.1:7401"

// defaultTimeout is longer than a cluster needs to elect a leader and hear what all nodes run.
const defaultTimeout = 10 * time.Second

// client is what the client commands work with.
type client struct {
	*cli.Context

	json    bool
	timeout time.Duration
	conn    *grpc.ClientConn
	control pb.ControlPlaneServiceClient
	modules pb.ModuleServiceClient
	catalog pb.CatalogServiceClient
	byHand  pb.OperatorServiceClient

	providers pb.ProviderServiceClient
}

// clientFlags returns the flags of a client command: its own, then those of all.
func clientFlags(own ...cli.Flag) []cli.Flag {
	return append(own,
		&cli.StringFlag{Name: "addr", Value: defaultAddr, Usage: "ask the node with this rpc `ADDRESS`; any node serves", EnvVars: env("addr")},
		outputFlag(),
		&cli.StringFlag{Name: "correlation-id", Usage: "call the request this `ID` in logs, errors and events", DefaultText: "a new one", EnvVars: env("correlation-id")},
		&cli.DurationFlag{Name: "timeout", Value: defaultTimeout, Usage: "give up after this `TIME`; until then a cluster without a leader is asked again", EnvVars: env("timeout")},
	)
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "print a `FORMAT`: table or json", EnvVars: env("output")}
}

// jsonAsked reads --output.
func jsonAsked(c *cli.Context) (bool, error) {
	switch format := c.String("output"); format {
	case "json", "table", "": // empty: its environment variable is set to nothing
		return format == "json", nil
	default:
		return false, usagef(c, "--output %q: want table or json", format)
	}
}

// asClient makes an action of one that works with a client.
func asClient(do func(ctx context.Context, c *client) error) cli.ActionFunc {
	return func(cc *cli.Context) (err error) {
		c := &client{Context: cc, timeout: cc.Duration("timeout")}
		if c.json, err = jsonAsked(cc); err != nil {
			return err
		}
		if c.timeout <= 0 {
			return usagef(cc, "--timeout %s: want more than nothing", c.timeout)
		}
		if err := c.dial(cc.String("addr")); err != nil {
			return usagef(cc, "--addr: %s", err)
		}
		defer c.conn.Close()
		ctx, err := c.correlated(cc.Context)
		if err != nil {
			return err
		}
		return rpc.Correlated(ctx, c.traced(ctx, func(ctx context.Context) error { return c.hinted(do(ctx, c)) }))
	}
}

// dial has the client ask the node at that address.
func (c *client) dial(addr string) (err error) {
	if c.conn, err = rpc.Dial(addr); err != nil {
		return err
	}
	c.control = pb.NewControlPlaneServiceClient(c.conn)
	c.modules = pb.NewModuleServiceClient(c.conn)
	c.catalog = pb.NewCatalogServiceClient(c.conn)
	c.byHand = pb.NewOperatorServiceClient(c.conn)
	c.providers = pb.NewProviderServiceClient(c.conn)
	return nil
}

// correlated gives what is asked of the cluster the id by which its logs and events name it.
func (c *client) correlated(ctx context.Context) (context.Context, error) {
	id := c.String("correlation-id")
	switch {
	case id == "":
		id = tracing.NewCorrelationID()
	case !tracing.FitCorrelationID(id):
		return nil, usagef(c.Context, "--correlation-id %q: want 1 to 128 printable characters of ASCII, and no space", id)
	}
	return tracing.WithCorrelationID(ctx, id), nil
}

// hinted says what to do where it was the node asked that could not be reached, and not one behind it.
func (c *client) hinted(err error) error {
	if state := c.conn.GetState(); rpc.CodeOf(err) != rpc.CommunicationFailure || state != connectivity.TransientFailure && state != connectivity.Connecting {
		return err
	}
	if strings.Contains(err.Error(), "looked like an HTTP/1.1 header") { // so gRPC says, and as text only
		return fmt.Errorf("%w; this looks like a port for HTTP: --addr wants the node's rpc port, which is 7401 unless --rpc-port says otherwise", err)
	}
	return fmt.Errorf("%w; is an agent running there? start one with `wasmatrix agent`, or name another node with --addr", err)
}

// ask makes one call, which must be safe to repeat, and repeats it for --timeout where that helps.
func ask[Request, Response any](ctx context.Context, c *client, call func(context.Context, Request, ...grpc.CallOption) (Response, error), req Request) (resp Response, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err = rpc.Retry(ctx, func(ctx context.Context) error {
		resp, err = call(ctx, req)
		return err
	})
	return resp, err
}

func (c *client) out() io.Writer { return c.App.Writer }

// note tells a person something that is no part of the answer.
func (c *client) note(format string, args ...any) {
	fmt.Fprintf(c.App.ErrWriter, "%s %s\n", screenOf(c.App.ErrWriter).paint(yellow, "note:"), clean(fmt.Sprintf(format, args...)))
}

// How long follow waits between two attempts.
const (
	followWaitFirst = 50 * time.Millisecond
	followWaitMost  = 500 * time.Millisecond
)

// follow keeps a stream going. once opens it, reads it to its end, and says whether anything came;
// it returns nil when nothing more will come. A stream that broke is opened again; an outage may last
// for --timeout.
func (c *client) follow(ctx context.Context, once func(context.Context) (came bool, err error)) error {
	wait, well := followWaitFirst, time.Now()
	for {
		began := time.Now()
		came, err := once(ctx)
		if err == nil || !rpc.Retryable(err) {
			return err
		}
		// A stream that was silent for long was there all the same.
		if came || time.Since(began) > c.timeout {
			wait, well = followWaitFirst, time.Now()
		}
		if time.Since(well) > c.timeout {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		wait = min(2*wait, followWaitMost)
	}
}
