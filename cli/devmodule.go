package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// devSettle is how long a file must be left alone before it is looked at: compilers write it in pieces.
	devSettle = 200 * time.Millisecond
	// devPatience is how long a file may be half a module before that is said.
	devPatience = 2 * time.Second
	// devRest is how long the last output of what was stopped is waited for.
	devRest = time.Second
)

// devModule runs one module, and the next one of the same file instead once there is one that runs.
type devModule struct {
	*client

	path string

	hash    string             // of what runs
	running []string           // its instances
	stop    context.CancelFunc // ends the showing of their output
	outputs sync.WaitGroup
	ending  atomic.Bool // they are being stopped
}

// newDevModule returns the module that the command line names.
func newDevModule(c *client) (*devModule, error) {
	req, err := runRequest(c)
	if err != nil {
		return nil, err
	}
	if isHash(req.module) || isHashBeginning(req.module) {
		return nil, usagef(c.Context, "%s: want a file; a cluster that was just born holds no module", req.module)
	}
	path, err := filepath.Abs(req.module)
	if err != nil {
		return nil, err
	}
	return &devModule{client: c, path: path, stop: func() {}}, nil
}

// run runs the module until ctx ends. Without --watch it returns the error of a module that does not start.
func (d *devModule) run(ctx context.Context) error {
	defer d.outputs.Wait()
	defer func() { d.stop() }()
	if !d.Bool("watch") {
		if err := d.replace(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", d.path, err)
	}
	defer watcher.Close()
	// The directory and not the file: many write another file and give it this one's name.
	if err := watcher.Add(filepath.Dir(d.path)); err != nil {
		return fmt.Errorf("watch %s: %w", filepath.Dir(d.path), err)
	}
	timer := time.NewTimer(0) // for the first time at once
	defer timer.Stop()
	partial := false // the file was no whole module when it was looked at last
	for {
		select {
		case e := <-watcher.Events:
			if filepath.Clean(e.Name) == d.path {
				partial = false
				timer.Reset(devSettle)
			}
		case err := <-watcher.Errors:
			d.note("some changes of files may have been missed: %s", err)
			timer.Reset(devSettle)
		case <-timer.C:
			why := d.whole()
			if why != nil && !partial { // its other half may be about to be written
				partial = true
				timer.Reset(devPatience)
				continue
			}
			if why == nil {
				why = d.replace(ctx)
			}
			if why != nil && ctx.Err() == nil {
				d.note("%s: %s; %s", filepath.Base(d.path), why, d.goesOn())
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *devModule) goesOn() string {
	if d.hash == "" {
		return "it is run once the file is good"
	}
	return "the one before goes on"
}

// replace starts what is in the file now, and then stops what ran before.
func (d *devModule) replace(ctx context.Context) error {
	file, err := openModule(d.path)
	if err != nil {
		return err
	}
	defer file.Close()
	if file.hash == d.hash {
		return nil
	}
	req, err := runRequest(d.client) // with new ids
	if err != nil {
		return err
	}
	req.spec.ModuleHash = file.hash
	if req.spec.Name == "" {
		req.spec.Name = nameFor(d.path)
	}
	holders, err := d.ensure(ctx, file)
	if err != nil {
		return err
	}
	started, failures, err := d.start(ctx, req, holders)
	if err == nil {
		err = failureOf(failures, len(started)+len(failures))
	}
	if err == nil {
		err = crashOf(started)
	}
	if err != nil {
		return errors.Join(err, d.end(ctx, idsOfInstances(started)))
	}
	if len(d.running) > 0 {
		d.ending.Store(true)
		if err := d.end(ctx, d.running); err != nil {
			return err
		}
		d.finish()
		d.ending.Store(false)
		d.note("%s has changed: the new module runs", filepath.Base(d.path))
	}
	d.hash, d.running = file.hash, idsOfInstances(started)
	following, stop := context.WithCancel(ctx)
	d.stop = stop
	for _, i := range started {
		d.outputs.Go(func() { d.show(following, i) })
	}
	return nil
}

// finish lets those who show the output of what was stopped come to its end.
func (d *devModule) finish() {
	hurry := time.AfterFunc(devRest, d.stop)
	d.outputs.Wait()
	hurry.Stop()
	d.stop()
}

// end stops instances.
func (d *devModule) end(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := ask(ctx, d.client, d.control.StopInstance, &pb.StopInstanceRequest{Refs: ids})
	return err
}

// show prints what an instance writes, until it ends.
func (d *devModule) show(ctx context.Context, i *pb.Instance) {
	err := (&follower{client: d.client, ref: i.GetInstanceId(), show: d.client.showEntry, remark: d.client.note}).run(ctx)
	switch {
	case ctx.Err() != nil, d.ending.Load():
	case err != nil:
		d.note("the output of instance %s can't be followed: %s", i.GetInstanceId(), err)
	default:
		d.note("instance %s has ended; `wasmatrix inspect %s` says how", i.GetInstanceId(), i.GetInstanceId())
	}
}

func idsOfInstances(all []*pb.Instance) []string {
	ids := make([]string, 0, len(all))
	for _, i := range all {
		ids = append(ids, i.GetInstanceId())
	}
	return ids
}

// whole says why the file is no whole module: it may be in the middle of being written.
func (d *devModule) whole() error {
	raw, err := os.ReadFile(d.path)
	if err != nil {
		return err
	}
	return wholeModule(raw)
}

// wholeModule says what is missing of a module's sections. It does not look into them.
func wholeModule(raw []byte) error {
	rest, ok := bytes.CutPrefix(raw, []byte("\x00asm"))
	if !ok || len(rest) < 4 {
		return errors.New("this does not begin as a WebAssembly module does")
	}
	for rest = rest[4:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return fmt.Errorf("the module ends within section %d", rest[0])
		}
		rest = rest[1+n+int(size):]
	}
	return nil
}
