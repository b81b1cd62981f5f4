// Package notify tells others what happens in the cluster, as CloudEvents 1.0 in JSON: on the messaging subjects
// wasmatrix.events.TYPE of every node's NATS server, and by HTTP to webhooks.
//
// Only the leader tells. Its queue is what the control plane remembers anyway ([controlplane.EventLog]): each receiver has a place in
// it, takes one event after the other, and whoever is so slow that its next event has been forgotten misses that one, which is counted.
// So nothing waits for a receiver, and a receiver that hangs holds one event.
//
// At least once, over changes of leader too. Each voter has the events; what it lacks is how far the receivers are, and that the leader
// announces on the messaging subject wasmatrix.delivered.RECEIVER, several times a second: for each life of each agent the number of
// the last event that was delivered ([progress]). A new leader goes on from there. What was delivered and not announced yet comes
// again, with the same id.
//
// The package keeps nothing on disk: what is not delivered when all voters lose their memory is lost. It decides nothing, and reads
// nothing back from a receiver but whether it took the event.
package notify
