package browser

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// T is what a browser needs of whoever uses it: any testing.TB, or a program that measures.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// patience is how long a page may take to become what is waited for: far beyond what is promised, for machines
// that do much else.
const patience = 30 * time.Second

// Browser is a running Chromium.
type Browser struct {
	t   T
	ctx context.Context //nolint:containedctx // chromedp keeps the browser in it
}

// Start starts a Chromium that ends with the test.
func Start(t T) *Browser {
	t.Helper()
	path, err := find()
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("mute-audio", true),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	starts, ends := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, closes := chromedp.NewContext(starts)
	t.Cleanup(func() {
		// In order, so that nothing writes into the profile while it is removed.
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("end the browser: %v", err)
		}
		closes()
		ends()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return &Browser{t: t, ctx: ctx}
}

// find returns the browser of this machine, by the names that it has in distributions.
func find() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no chromium in the path: make setup installs it")
}

// Page is one tab.
type Page struct {
	t     T
	ctx   context.Context //nolint:containedctx // chromedp keeps the tab in it
	close context.CancelFunc

	mu     sync.Mutex // guards all below
	faults []string
}

// Open opens an address in a new tab of that width.
func (b *Browser) Open(url string, width, height int) *Page {
	b.t.Helper()
	p := b.Tab(width, height)
	p.Go(url)
	return p
}

// Tab returns a new tab of that width, which shows nothing yet.
func (b *Browser) Tab(width, height int) *Page {
	b.t.Helper()
	ctx, closes := chromedp.NewContext(b.ctx)
	p := &Page{t: b.t, ctx: ctx, close: closes}
	b.t.Cleanup(closes)
	// Without a deadline: the tab lives as long as the context of its first call.
	if err := errors.Join(chromedp.Listen(ctx, p.listen), chromedp.Do(ctx, chromedp.EmulateViewport(int64(width), int64(height)))); err != nil {
		b.t.Fatalf("open a tab: %v", err)
	}
	return p
}

// Close closes the tab.
func (p *Page) Close() { p.close() }

// listen keeps what the page did wrong: uncaught exceptions, and what the browser refused it.
func (p *Page) listen(event any) {
	said := ""
	switch event := event.(type) {
	case *runtime.EventExceptionThrown:
		said = event.ExceptionDetails.Text + " " + descriptionOf(event.ExceptionDetails.Exception)
	case *cdlog.EventEntryAdded:
		if event.Entry.Source == cdlog.EntrySourceSecurity || event.Entry.Source == cdlog.EntrySourceJavascript {
			said = event.Entry.Text
		}
	}
	if said != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.faults = append(p.faults, said)
	}
}

// Faults returns what the page did wrong so far.
func (p *Page) Faults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

// Do does what chromedp can do.
func (p *Page) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
}

// Go goes to an address, and waits until it is loaded.
func (p *Page) Go(url string) {
	p.t.Helper()
	p.Do(chromedp.Navigate(url))
}

// Prefer has the page be shown as to somebody who prefers "light" or "dark", and things that do not move.
func (p *Page) Prefer(scheme string) {
	p.t.Helper()
	p.Do(chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
		_, err := cdp.Call(ctx, at, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}})
		return err
	}))
}

// Wait waits until a JavaScript expression is true. It outlives that the page is loaded anew.
func (p *Page) Wait(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && holds {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			p.t.Fatalf("waited %s for %s: %v\nthe page shows:\n%s", patience, expression, err, p.text())
		}
	}
}

// Shows waits until the text of the page has all of these words.
func (p *Page) Shows(words ...string) {
	p.t.Helper()
	for _, w := range words {
		p.Wait(fmt.Sprintf("document.body.innerText.includes(%q)", w))
	}
}

// Ask does what chromedp can do, and returns what it says.
func Ask[V any](p *Page, action chromedp.Action[V]) V {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
	return value
}

// Eval returns the value of a JavaScript expression, which may be a promise.
func Eval[V any](p *Page, expression string) V {
	p.t.Helper()
	return Ask(p, chromedp.Evaluate[V](expression, chromedp.EvalAwaitPromise))
}

// text is what the page says, as far as it can still be asked.
func (p *Page) text() string {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	said, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(said)
}

// Screenshot returns a picture of what is visible, or of the whole page, as PNG.
func (p *Page) Screenshot(whole bool) []byte {
	p.t.Helper()
	if whole {
		return Ask(p, chromedp.FullScreenshot(100))
	}
	return Ask(p, chromedp.CaptureScreenshot())
}

func descriptionOf(thrown *runtime.RemoteObject) string {
	if thrown == nil {
		return ""
	}
	return thrown.Description
}
