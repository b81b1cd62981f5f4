package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// peerFile keeps the gossip addresses of known nodes over restarts.
type peerFile struct {
	path string

	mu    sync.Mutex        // guards peers
	peers map[string]string // node id → gossip address
}

func openPeerFile(path string) (*peerFile, error) {
	p := &peerFile{path: path, peers: map[string]string{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the known nodes: %w", err)
	}
	if err := json.Unmarshal(raw, &p.peers); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; remove it, and give --join", path, err)
	}
	if p.peers == nil { // JSON's null
		p.peers = map[string]string{}
	}
	return p, nil
}

func (p *peerFile) addresses() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.peers)
}

// update adds nodes and removes those that left, and writes if that changed anything.
func (p *peerFile) update(now map[string]string, left []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := maps.Clone(p.peers)
	maps.Copy(next, now)
	for _, id := range left {
		delete(next, id)
	}
	if maps.Equal(next, p.peers) {
		return nil
	}
	raw, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(p.path, raw); err != nil {
		return err
	}
	p.peers = next
	return nil
}

// writeFile writes a small file so that it is there whole or not at all.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
