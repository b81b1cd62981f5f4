// Package node builds one node out of its parts and takes it down in order.
//
// It reads like a table of contents: [Run] opens what is kept on disk, makes the parts, starts them
// in the order in which they lean on each other, and when told to leave moves the instances away,
// hands leadership and vote over, and stops the parts in reverse.
//
// What a part does is the part's own business; only the wiring is here.
package node
