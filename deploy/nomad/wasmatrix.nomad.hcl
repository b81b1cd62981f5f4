# Runs a wasmatrix node on every client of a Nomad cluster: one binary, in the host's network.
#
#   nomad job run -var 'join=["10.0.0.5","10.0.0.6","10.0.0.7"]' scripts/wasmatrix.nomad.hcl
#
# All nodes have one command line: the first `expect` that see each other found the cluster. The
# binary is expected at var.binary on each client. There is no authentication yet: keep the three
# ports on a trusted network.

variable "binary" {
  description = "Where the binary is on each client."
  type        = string
  default     = "/usr/local/bin/wasmatrix"
}

variable "join" {
  description = "Addresses of a few clients; any that live will do."
  type        = list(string)
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
  type    = list(string)
  default = ["*"]
}

job "wasmatrix" {
  type        = "system"
  datacenters = var.datacenters

  update {
    max_parallel     = 1 # never take the quorum down at once
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "2m"
  }

  group "node" {
    network {
      mode = "host"
      port "gossip" { static = 7400 }
      port "rpc" { static = 7401 }
      port "http" { static = 7402 }
    }

    restart {
      attempts = 10
      interval = "10m"
      delay    = "5s"
      mode     = "delay"
    }

    service {
      name     = "wasmatrix"
      provider = "nomad"
      port     = "http"

      check {
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "agent" {
      # raw_exec, as the node keeps its data on the host; the client must allow it.
      driver       = "raw_exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "45s" # leaving in order takes up to --drain-timeout, 30 s

      config {
        command = var.binary
        args = [
          "agent",
          "--name", "${node.unique.name}",
          "--bind", "${NOMAD_IP_rpc}",
          "--data-dir", var.data_dir,
          "--bootstrap-expect", "${var.expect}",
          "--join", join(",", var.join),
        ]
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
