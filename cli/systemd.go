package cli

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/wasmatrix/wasmatrix/node"
)

const (
	// How often systemd hears how the node is; sooner where its watchdog wants that.
	tellEvery = 10 * time.Second
	// How many of these may be lost before systemd acts: a busy host makes one late, not three.
	tellMargin = 3
	// What leaving may take beyond the drain timeout: the stop of the parts, after it.
	leaveMargin = 15 * time.Second
)

// supervisor tells systemd how the node is (sd_notify(3)): ready once it has joined, its watchdog fed while it works. Where
// NOTIFY_SOCKET names nobody, nothing is said to anybody.
type supervisor struct {
	log   *slog.Logger
	every time.Duration // 0 where nobody listens
	join  []string

	joined atomic.Bool
}

// newSupervisor asks the environment who listens, and how often. The error says what is wrong with that.
func newSupervisor(cfg node.Config) (*supervisor, error) {
	s := &supervisor{log: cfg.Log, join: cfg.Join}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("WATCHDOG_USEC and WATCHDOG_PID, which systemd sets: %w", err)
	}
	listens, err := daemon.SdNotify(false, "STATUS=starting")
	switch {
	case err != nil:
		return nil, fmt.Errorf("NOTIFY_SOCKET, which systemd sets: %w", err)
	case listens && watchdog > 0:
		s.every = min(watchdog/tellMargin, tellEvery)
	case listens:
		s.every = tellEvery
	}
	return s, nil
}

// pulse is what the node is to tell.
func (s *supervisor) pulse() node.Pulse {
	return node.Pulse{Every: s.every, Beat: s.beat, Leaving: s.leaving}
}

// beat says that the node works. While it joins, which may take as long as the others are away, that gives it more time.
func (s *supervisor) beat(v node.Vitals) {
	if s.joined.Load() {
		s.tell(daemon.SdNotifyWatchdog, "STATUS="+summary(v))
		return
	}
	status := "founding a cluster"
	if len(s.join) > 0 {
		status = "joining through " + strings.Join(s.join, ", ")
	}
	s.tell(extend(tellMargin*s.every), "STATUS="+status)
}

// ready says that the node is a member: what starts after it may rely on that.
func (s *supervisor) ready(info node.Info) {
	s.joined.Store(true)
	s.tell(daemon.SdNotifyReady, "STATUS=member of cluster "+info.ClusterID)
}

func (s *supervisor) leaving(within time.Duration) {
	s.tell(daemon.SdNotifyStopping, extend(within+leaveMargin), "STATUS=leaving the cluster in order")
}

// failed leaves the reason where `systemctl status` shows it.
func (s *supervisor) failed(err error) {
	s.tell("STATUS=" + strings.ReplaceAll(err.Error(), "\n", "; "))
}

func (s *supervisor) tell(lines ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		s.log.Warn("systemd could not be told how the node is", "err", err)
	}
}

// summary is one line for `systemctl status`.
func summary(v node.Vitals) string {
	leader := "no leader is known"
	if v.Leader != "" {
		leader = v.Leader + " leads"
	}
	return fmt.Sprintf("%s; nodes alive: %d; instances here: %d", leader, v.Nodes, v.Instances)
}

func extend(by time.Duration) string { return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", by.Microseconds()) }
