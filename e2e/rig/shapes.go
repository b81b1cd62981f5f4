package rig

import (
	"encoding/json"
	"time"
)

// Instance is the contract's instance.
type Instance struct {
	InstanceID    string `json:"instance_id"`
	Name          string `json:"name"`
	NodeID        string `json:"node_id"`
	NodeName      string `json:"node_name"`
	ModuleHash    string `json:"module_hash"`
	Status        string `json:"status"`
	RestartPolicy struct {
		PolicyType     string  `json:"policy_type"`
		MaxRetries     int     `json:"max_retries"`
		BackoffSeconds float64 `json:"backoff_seconds"`
	} `json:"restart_policy"`
	Capabilities []json.RawMessage `json:"capabilities"`
	Durability   string            `json:"durability"`
	CreatedAt    *time.Time        `json:"created_at"`
	StartedAt    *time.Time        `json:"started_at"`
	FinishedAt   *time.Time        `json:"finished_at"`
	Restarts     int               `json:"restarts"`
	Generation   int               `json:"generation"`
	ExitCode     *int              `json:"exit_code"`
	LastError    string            `json:"last_error"`
	Usage        struct {
		Fuel uint64 `json:"fuel"`
	} `json:"usage"`
}

// Member is the contract's member.
type Member struct {
	NodeID     string            `json:"node_id"`
	Name       string            `json:"name"`
	GossipAddr string            `json:"gossip_addr"`
	RPCAddr    string            `json:"rpc_addr"`
	HTTPAddr   string            `json:"http_addr"`
	Role       string            `json:"role"`
	State      string            `json:"state"`
	Instances  int               `json:"instances"`
	Labels     map[string]string `json:"labels"`
	Version    string            `json:"version"`

	CommittedCPUMillicores int `json:"committed_cpu_millicores"`
	MaxCPUMillicores       int `json:"max_cpu_millicores"`
}

// Status is the contract's cluster status.
type Status struct {
	ClusterID   string `json:"cluster_id"`
	ClusterName string `json:"cluster_name"`
	Leader      struct {
		NodeID string `json:"node_id"`
		Name   string `json:"name"`
	} `json:"leader"`
	Term         uint64   `json:"term"`
	Recovering   bool     `json:"recovering"`
	MissingNodes []string `json:"missing_nodes"`
	Voters       []string `json:"voters"`
	Members      struct {
		Alive int `json:"alive"`
		Dead  int `json:"dead"`
		Left  int `json:"left"`
	} `json:"members"`
	Instances map[string]int `json:"instances"`
	Version   string         `json:"version"`
}

// Event is the contract's event.
type Event struct {
	Time       time.Time         `json:"time"`
	Type       string            `json:"type"`
	NodeID     string            `json:"node_id"`
	InstanceID string            `json:"instance_id"`
	Name       string            `json:"name"`
	Details    map[string]string `json:"details"`
}

// Error is the contract's error.
type Error struct {
	Code      string            `json:"error_code"`
	Message   string            `json:"message"`
	Details   map[string]string `json:"details"`
	Timestamp time.Time         `json:"timestamp"`
}
