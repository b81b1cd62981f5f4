# Runs a wasmatrix node on every Linux client of a Nomad cluster: one binary, in the host's network.
#
#   nomad job run deploy/nomad/wasmatrix.nomad.hcl
#
# The nodes find each other by Nomad's own service discovery, so no Consul is needed, and all have one command line: the first
# `expect` that see each other found the cluster. The clients must have the binary at var.binary, and allow raw_exec, since a
# node keeps its data on the host. There is no authentication yet: keep the ports on a trusted network.

variable "binary" {
  description = "Where the binary is on each client."
  type        = string
  default     = "/usr/local/bin/wasmatrix"
}

variable "expect" {
  description = "How many nodes found the cluster together."
  type        = number
  default     = 3
}

variable "data_dir" {
  description = "Where a node keeps what it knows; outside the allocation, so that it outlives it."
  type        = string
  default     = "/var/lib/wasmatrix"
}

variable "datacenters" {
  description = "Where it runs."
  type        = list(string)
  default     = ["*"]
}

job "wasmatrix" {
  type        = "system"
  datacenters = var.datacenters

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  # One node after the other, so that the quorum never goes down at once. Nomad 1.11 and newer wait until the node is ready;
  # older ones wait for `stagger`, whatever becomes of the node.
  update {
    max_parallel     = 1
    stagger          = "1m"
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "5m"
  }

  group "node" {
    network {
      mode = "host"
      port "gossip" { static = 7400 }
      port "rpc" { static = 7401 }
      port "http" { static = 7402 }
      port "nats" { static = 7403 }
      port "routes" { static = 7404 }
    }

    # Sooner than a lost node's instances are moved, and for ever: what a node lacks is mostly another host.
    restart {
      attempts = 10
      interval = "1m"
      delay    = "1s"
      mode     = "delay"
    }

    # A group's services are registered before its tasks start: whoever reads the list finds itself and all that came before.
    service {
      name     = "wasmatrix-gossip"
      provider = "nomad"
      port     = "gossip"

      check {
        type     = "tcp"
        interval = "10s"
        timeout  = "2s"
      }
    }

    service {
      name     = "wasmatrix"
      provider = "nomad"
      port     = "http"

      check {
        name     = "knows a leader"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "agent" {
      driver = "raw_exec"

      # Leaving in order takes up to --drain-timeout. Clients cut off at their max_kill_timeout, which is 30 s unless they say more.
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        command = var.binary
        args = [
          "agent",
          "--name", "${node.unique.name}",
          "--bind", "${NOMAD_IP_rpc}",
          "--data-dir", var.data_dir,
          "--bootstrap-expect", "${var.expect}",
          "--drain-timeout", "25s",
        ]
      }

      # Any living member will do to join through, and a node that has joined remembers all others: no change needs a restart.
      template {
        destination = "secrets/join.env"
        env         = true
        change_mode = "noop"
        data        = <<-EOT
          WASMATRIX_JOIN={{ range $i, $node := nomadService "wasmatrix-gossip" }}{{ if $i }},{{ end }}{{ $node.Address }}:{{ $node.Port }}{{ end }}
        EOT
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
